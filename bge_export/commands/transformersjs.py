"""Exports a Transformers.js folder: ONNX files under the names it expects, PyTorch weights, and a model card."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bge_export.checkpoint.weight_files import INDEX
from bge_export.commands.exports import DEFAULT_MODEL, Exported, export_model
from bge_export.commands.measuring import read_policy
from bge_export.contracts import Artifact, Checkpoint, Pooling
from bge_export.errors import UsageError
from bge_export.exporters import find_exporter
from bge_export.parity.gate.policy import ThresholdPolicy
from bge_export.parity.measure.measurement import RuntimeDevice
from bge_export.parity.report import ParityReport
from bge_export.publish.card import CardFacts, write_card
from bge_export.runtimes import find_runtime

DEFAULT_DTYPES = ("fp32", "fp16", "int8")
"""Default precisions, as far as the ONNX exporter has them; clients load the `int8` file as `dtype: 'q8'`."""

PROVING = ("node@3", "node@4")
"""Devices where the folder is proven besides ONNX Runtime and OpenVINO, if the clients are installed: native builds of
both current versions. `bge-export parity --runtime` measures the others."""


@dataclass(frozen=True)
class ClientFolder:
    """Additional content of the folder, besides models and layout.

    Attributes:
        weights: whether the folder includes the PyTorch weights.
        repository: the Hub id that the card's examples name.
        license: the checkpoint's licence, for the card.
        policy: the limits by which the folder is judged, for the card.
    """

    weights: bool
    repository: str | None
    license: str | None
    policy: ThresholdPolicy

    def devices(self) -> Sequence[RuntimeDevice]:
        """Return the clients to measure in; the report names a missing client, but the gate does not refuse it."""
        return [RuntimeDevice(find_runtime("transformersjs"), device, requested=False) for device in PROVING]

    def write_weights(self, checkpoint: Checkpoint, root: Path) -> Sequence[str]:
        """Copy the safetensors files unchanged, for transformers, sentence-transformers and FlagEmbedding."""
        if not self.weights:
            return ()

        names = [*checkpoint.weights, *([INDEX] if (checkpoint.root / INDEX).is_file() else [])]
        for name in names:
            if not (root / name).exists():  # else kept from an earlier export of the same checkpoint
                shutil.copyfile(checkpoint.root / name, root / name)
        return tuple(names)

    def write_card(
        self, checkpoint: Checkpoint, root: Path, artifacts: Sequence[Artifact], report: ParityReport | None
    ) -> None:
        """Write `README.md`."""
        repository = self.repository or f"ORGANISATION/{checkpoint.source.rpartition('/')[2]}"
        facts = CardFacts(repository, checkpoint.source, self.license, self.weights)
        write_card(root, checkpoint, artifacts, facts, report, self.policy)


def export_transformersjs(
    model: str = DEFAULT_MODEL,
    out: Path | None = None,
    *,
    dtypes: Sequence[str] = (),
    weights: bool = True,
    repository: str | None = None,
    license_name: str | None = None,
    revision: str | None = None,
    pooling: Pooling | None = None,
    overwrite: bool = False,
    check: bool = True,
    thresholds: Path | None = None,
    threads: int = 1,
) -> Exported:
    """Write the folder that Transformers.js loads, and prove it.

    Args:
        model: a Hub id or a local folder.
        out: the folder to write; by default the model's name, in the current folder.
        dtypes: precisions of the ONNX exporter; by default those of `DEFAULT_DTYPES` that it has.
        weights: whether the folder includes the PyTorch weights.
        repository: the Hub id that the card's examples name.
        license_name: the checkpoint's licence, for the card.
        revision: the Hub revision.
        pooling: the pooling, if the checkpoint declares none.
        overwrite: whether earlier output of bge-export may be replaced.
        check: whether parity and gate follow.
        thresholds: a file of limits to use instead of the package's own.
        threads: threads for the export, the oracle and the runtimes.

    Raises:
        UsageError: checkpoint, options or output folder cannot be used.
        MeasurementError: the Hub, the exporter or a runtime failed.
    """
    exporter = find_exporter("onnx")
    if unknown := [dtype for dtype in dtypes if dtype not in exporter.precisions]:
        raise UsageError(f"--dtypes: there is no {unknown[0]!r}: {', '.join(exporter.precisions)}")

    chosen = tuple(dtypes) or tuple(dtype for dtype in DEFAULT_DTYPES if dtype in exporter.precisions)
    addition = ClientFolder(weights, repository, license_name, read_policy(thresholds))

    return export_model(
        exporter,
        model,
        out,
        revision=revision,
        pooling=pooling,
        precisions=chosen,
        addition=addition,
        overwrite=overwrite,
        check=check,
        thresholds=thresholds,
        threads=threads,
    )
