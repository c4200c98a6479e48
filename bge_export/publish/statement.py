"""The statement that a proven folder is signed with: by which limits it passed, where, and how it was made.

An in-toto statement whose subjects are the files of the folder. Its predicate is ours, and has the fields of SLSA's
provenance in it. All of it but the limits and the builder follows from manifest and report, so that a verifier writes
it again and compares.
"""

import math
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from bge_export.bundle.integrity import REPORT
from bge_export.bundle.manifest import Manifest
from bge_export.parity.gate.limits import HEAD_LIMITS
from bge_export.parity.gate.policy import AnyLimits, ThresholdPolicy
from bge_export.parity.gate.token_heads import kind_of_head
from bge_export.parity.orders import worst_scores
from bge_export.parity.report import Lane, ParityReport
from bge_export.parity.show.token_heads import answer_facts
from bge_export.parity.worst import worst_of
from bge_export.publish.facts import REPOSITORY

PREDICATE = "https://bge_export/parity/v1"
"""The type of the predicate. Such types are names; nothing is fetched from there."""
EXPORT = "https://bge_export/export/v1"
"""The type of the build, for SLSA."""
LOCAL = "https://bge_export/builder/local"
"""The builder of a folder that was signed outside of CI."""

FOLLOWING = ("report", "checkpoint", "texts", "lanes", "buildDefinition")
"""Fields of the predicate that follow from manifest and report."""


WEIGHT_FIGURES = ("largest_weight_difference", "largest_batch_weight_difference", "largest_score_error")
VECTOR_FIGURES = (
    "smallest_token_cosine",
    "smallest_batch_token_cosine",
    "largest_norm_error",
    "largest_batch_norm_error",
    "largest_max_sim_error",
)
"""Worst figures of token weights and of vectors of tokens, by their names in `--json`."""


def statement_of(
    digests: Mapping[str, str], manifest: Manifest, report: ParityReport, policy: ThresholdPolicy, builder: str
) -> Mapping[str, Any]:
    """Return the statement of a folder that the gate passed by a policy.

    Args:
        digests: every file of the folder -> its sha256.
        manifest: that of the folder.
        report: that of the folder.
        policy: the limits by which the gate passed it.
        builder: where it was signed, as an address.
    """
    subjects = [{"name": name, "digest": {"sha256": digest}} for name, digest in sorted(digests.items())]
    built = {"builder": {"id": builder, "version": {"bge-export": version("bge-export")}}}
    predicate = {
        "verdict": "passed",
        "limits": limits_of(report, policy),
        **following(digests, manifest, report),
        "runDetails": built,
    }
    return {"subject": subjects, "predicateType": PREDICATE, "predicate": predicate}


def following(digests: Mapping[str, str], manifest: Manifest, report: ParityReport) -> Mapping[str, Any]:
    """Return the fields of the predicate that follow from manifest and report."""
    return {
        "report": {"name": REPORT, "sha256": digests[REPORT], "facts": report.digest},
        "checkpoint": report.checkpoint.model_dump(mode="json"),
        "texts": report.texts.model_dump(mode="json"),
        "lanes": [stated_lane(lane) for lane in report.lanes],
        "buildDefinition": {
            "buildType": EXPORT,
            "externalParameters": {"targets": {one.target: one.options for one in manifest.models}},
            "internalParameters": {"tools": {one.target: one.tools for one in manifest.models}},
            "resolvedDependencies": [_checkpoint(manifest)],
        },
    }


def limits_of(report: ParityReport, policy: ThresholdPolicy) -> Mapping[str, Any]:
    """Return what a report was judged by: the limits of each lane, the accepted differences, and what was required.

    A lane of a model with several heads, or a head on tokens, is named with its output, which has limits of its own.
    """
    lanes: dict[str, Any] = {}
    for lane in report.lanes:
        limits = _limits(lane, policy)
        accepted = policy.accepted_differences(lane.runtime, lane.device)
        plain = lane.spec.heads.kinds <= {"dense", "score"}
        lanes[_where(lane) if plain else f"{_where(lane)} {lane.output}"] = {
            **(limits.model_dump(mode="json", exclude_none=True) if limits is not None else {}),
            "token_differences": sorted(accepted or ()),
        }

    return {
        "file": policy.digest or "of bge-export",
        "required": [str(one) for one in policy.require],
        "lanes": lanes,
    }


def _limits(lane: Lane, policy: ThresholdPolicy) -> AnyLimits | None:
    """Return the limits of the head that reads a lane's output; None if there is no table for it."""
    kind = kind_of_head(lane)
    if kind == "score":
        return policy.score_limits_for(lane.target, lane.runtime, lane.device)
    if kind in HEAD_LIMITS:
        return policy.head_limits_for(kind, lane)
    return policy.limits_for(lane.target, lane.runtime, lane.device)


def _where(lane: Lane) -> str:
    return f"{lane.target}@{lane.runtime}:{lane.device}"


def stated_lane(lane: Lane) -> Mapping[str, Any]:
    """Return where a lane ran and its worst figures; an undefined figure is left out, as is all that is not there."""
    known: dict[str, Any] = {"lane": _where(lane), "output": lane.output, "artifact": lane.artifact_digest}
    if not lane.measured:
        return {**known, "measured": False}

    return {**known, "measured": True, "texts": len(lane.facts_of_texts), "worst": _worst(lane)}


def _worst(lane: Lane) -> Mapping[str, float]:
    figures: dict[str, float | None] = {}
    if (worst := worst_of(lane.rows)) is not None:
        figures |= {
            "cosine": worst.overall.cosine,
            "everyday_cosine": worst.everyday.cosine if worst.everyday else None,
            "stress_cosine": worst.stress.cosine if worst.stress else None,
            "batch_cosine": worst.batch_cosine,
            "max_abs": worst.max_abs,
        }
    if (scores := worst_scores(lane.scores)) is not None:
        figures |= {"difference": scores.difference, "batch_difference": scores.batch_difference, "tau": scores.tau}
    if lane.weights or lane.vectors:
        facts = answer_facts(lane)
        figures |= {name: facts[name] for name in (WEIGHT_FIGURES if lane.weights else VECTOR_FIGURES)}

    return {name: value for name, value in figures.items() if value is not None and math.isfinite(value)}


def _checkpoint(manifest: Manifest) -> Mapping[str, Any]:
    """Return the checkpoint as SLSA names what a build was made of."""
    source = manifest.source
    where: Mapping[str, str] = {}
    if source.revision is not None and REPOSITORY.fullmatch(source.id):
        where = {"uri": f"https://huggingface.co/{source.id}/tree/{source.revision}"}
    return {"name": source.id, **where, "digest": {"sha256": source.digest}}
