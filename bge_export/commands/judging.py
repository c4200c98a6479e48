"""Judges a folder by the report that lies in it, before it is signed, published or believed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bge_export.bundle.integrity import REPORT
from bge_export.commands.measuring import Proof
from bge_export.commands.reports import judge_report
from bge_export.parity.report import ReferenceKind


@dataclass(frozen=True)
class Required:
    """What the gate must see, as in `judge_report`."""

    require: Sequence[str] = ()
    require_reference: ReferenceKind | None = None
    thresholds: Path | None = None
    reference: str | None = None
    revision: str | None = None


def judge_folder(folder: Path, required: Required) -> Proof:
    """Return the verdict of the gate on a folder, with the report that lies in it."""
    return judge_report(
        folder / REPORT,
        require=required.require,
        require_reference=required.require_reference,
        thresholds=required.thresholds,
        bundle=folder,
        reference=required.reference,
        revision=required.revision,
    )
