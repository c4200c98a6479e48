"""Which texts of a report are everyday ones, and which are there to stress a model."""

from collections.abc import Mapping

from bge_export.parity.report import ParityReport
from bge_export.texts.corpus import Kind

KINDS: tuple[Kind, ...] = ("everyday", "stress")


def kinds_by_id(report: ParityReport) -> Mapping[str, Kind]:
    """Return the id of each text of a report -> its kind for the checkpoint that was measured."""
    return {row.id: row.kind for lane in report.lanes for row in lane.rows}
