"""Exports sentence-embedding checkpoints and proves that every artifact gives the same embeddings.

Public names are listed here and loaded on first use, so that importing the package loads no heavy library.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bge_export.build.recipe import Recipe, read_recipe
    from bge_export.checkpoint.opening import open_checkpoint
    from bge_export.commands import (
        Exported,
        Proof,
        bench_files,
        bisect_artifact,
        check_parity,
        evaluate_pairs,
        export,
        judge_report,
        merge_reports,
        write_reference,
    )
    from bge_export.contracts import Artifact, Checkpoint, EmbeddingSpec, Target, TokenBatch
    from bge_export.errors import BgeExportError
    from bge_export.inspection.doctor import examine_machine
    from bge_export.inspection.folder import inspect_path
    from bge_export.oracle.vectors import ReferenceVectors
    from bge_export.parity.gate.judge import Verdict
    from bge_export.parity.report import ParityReport

_OWNERS = {
    "bge_export.build.recipe": ("Recipe", "read_recipe"),
    "bge_export.checkpoint.opening": ("open_checkpoint",),
    "bge_export.commands": (
        "Exported",
        "Proof",
        "bench_files",
        "bisect_artifact",
        "check_parity",
        "evaluate_pairs",
        "export",
        "judge_report",
        "merge_reports",
        "write_reference",
    ),
    "bge_export.contracts": ("Artifact", "Checkpoint", "EmbeddingSpec", "Target", "TokenBatch"),
    "bge_export.inspection.doctor": ("examine_machine",),
    "bge_export.errors": ("BgeExportError",),
    "bge_export.inspection.folder": ("inspect_path",),
    "bge_export.parity.gate.judge": ("Verdict",),
    "bge_export.parity.report": ("ParityReport",),
    "bge_export.oracle.vectors": ("ReferenceVectors",),
}
_OWNER = {name: module for module, names in _OWNERS.items() for name in names}

__all__ = [
    "Artifact",
    "BgeExportError",
    "Checkpoint",
    "EmbeddingSpec",
    "Exported",
    "ParityReport",
    "Proof",
    "Recipe",
    "ReferenceVectors",
    "Target",
    "TokenBatch",
    "Verdict",
    "bench_files",
    "bisect_artifact",
    "check_parity",
    "evaluate_pairs",
    "examine_machine",
    "export",
    "inspect_path",
    "judge_report",
    "merge_reports",
    "open_checkpoint",
    "read_recipe",
    "write_reference",
]


def __getattr__(name: str) -> object:
    """Load a public name from the module that owns it."""
    if name not in _OWNER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_OWNER[name]), name)
