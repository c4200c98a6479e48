"""Holds what is loaded to the folder's own report: a model that was refused is no model to search with."""

import warnings
from collections.abc import Iterator
from pathlib import Path

from bge_export.bundle.integrity import REPORT
from bge_export.contracts import Artifact
from bge_export.errors import ArtifactError
from bge_export.files.spec import SpecRecord
from bge_export.parity.gate.judge import judge
from bge_export.parity.gate.lanes import proves
from bge_export.parity.gate.policy import ThresholdPolicy
from bge_export.parity.gate.verdict import Failure
from bge_export.parity.report import ParityReport, read_report
from bge_export.texts.corpus import builtin_corpus
from bge_export.texts.fixtures import fixtures_folder

OF_OTHER_TEXTS = "other-texts"
"""The rule that a report on a user's own texts breaks. What it was measured on is then for the user to choose."""

STACK = 3
"""Calls between a warning and whoever called `load`."""

ANYWAY = "To load it all the same, give unchecked=True."


def refuse_unproven(root: Path, artifact: Artifact) -> None:
    """Raise ArtifactError if a folder's report refuses a model, or speaks of other bytes; warn if there is no report.

    The limits are the package's own. What is wrong with other targets of the folder does not count.

    Args:
        root: the folder.
        artifact: the model, with the digest that the manifest gives.

    Raises:
        ArtifactError: the report refuses the model.
        ReportError: the report is damaged.
    """
    if not (root / REPORT).exists():
        warnings.warn(
            f"{root} has no {REPORT}, so nobody knows whether {artifact.target} gives the checkpoint's embeddings. "
            "Measure it with: bge-export parity FOLDER --reference MODEL",
            stacklevel=STACK,
        )
        return

    report = read_report(root / REPORT)
    if not any(_is_of(report, artifact)):
        raise ArtifactError(
            f"{root}: {REPORT} speaks of other files than {artifact.model} and those beside it. Measure again with: "
            f"bge-export parity {root} --reference MODEL. {ANYWAY}"
        )

    if found := list(_failures(report, artifact)):
        more = f", and {len(found) - 1} more reasons" if len(found) > 1 else ""
        raise ArtifactError(
            f"{root}: {REPORT} refuses {artifact.target}: {found[0].message}{more}. Load another precision, export "
            f"again, or see all reasons with: bge-export gate {root}. {ANYWAY}"
        )


def _is_of(report: ParityReport, artifact: Artifact) -> Iterator[bool]:
    """Yield whether each measured lane is of these very bytes, and promises the same embedding."""
    for lane in report.lanes:
        if lane.target == str(artifact.target) and lane.model == artifact.model and proves(lane):
            yield lane.artifact_digest == artifact.digest and lane.spec == SpecRecord.of(artifact.spec)


def _failures(report: ParityReport, artifact: Artifact) -> Iterator[Failure]:
    """Yield the refusals of the report as a whole, and of this target."""
    policy = ThresholdPolicy.read(fixtures_folder() / "thresholds.toml")
    for one in judge(report, policy, builtin_corpus()).failures:
        if one.target in ("", str(artifact.target)) and one.rule != OF_OTHER_TEXTS:
            yield one
