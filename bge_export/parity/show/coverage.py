"""Say in one line what a report covered beside its texts: the least of all artifacts, never the best."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from bge_export.parity.figures import difference_figure
from bge_export.parity.report import Lane, ParityReport
from bge_export.sweep.plan import MASKS, SIZES


def coverage(report: ParityReport) -> Mapping[str, Any] | None:
    """Return what every artifact was shown to hold for; None if nothing was swept.

    Returns:
        token_rows: rows of the token table.
        rows_run, rows_read: the least number of token ids that one artifact ran, and the least that were read of its
            table, or None if no file's table was read.
        positions: the least number of positions that were looked at one by one of one artifact.
        lengths, longest, token_types, sizes: see `SweepRecord`, the least of all lanes.
        masks: the kinds of mask.
        largest_row_error: of all tables, in units of their precision's step; None if none was read.
        states: whether all lanes compared the states of all tokens.
    """
    lanes = [lane for lane in report.lanes if lane.measured and lane.sweep is not None]
    sweeps = [lane.sweep for lane in lanes if lane.sweep is not None]
    if not sweeps:
        return None

    artifacts: dict[tuple[str, str], list[Lane]] = defaultdict(list)
    for lane in lanes:
        artifacts[lane.target, lane.model].append(lane)

    outputs: dict[tuple[str, str, str], list[Lane]] = defaultdict(list)
    for lane in lanes:
        outputs[lane.target, lane.model, lane.output].append(lane)

    run = [max(lane.sweep.ids for lane in own if lane.sweep is not None) for own in artifacts.values()]
    tables = [lane.table for lane in lanes if lane.table is not None]
    undefined = {kind for sweep in sweeps for kind in sweep.undefined}
    known = [report.runs[lane.run].reference.token_rows for lane in lanes if lane.run in report.runs]

    return {
        "token_rows": max(known, default=0),
        "rows_run": min(run),
        "positions": min(
            max(lane.sweep.positions for lane in own if lane.sweep is not None) for own in outputs.values()
        ),
        "rows_read": min((table.rows for table in tables), default=None),
        "lengths": max(sweep.lengths for sweep in sweeps),
        "longest": min(sweep.longest for sweep in sweeps),
        "token_types": min(sweep.token_types for sweep in sweeps),
        "sizes": [size for size in SIZES if all(size in sweep.sizes for sweep in sweeps)],
        "masks": [kind for kind in MASKS if kind not in undefined],
        "largest_row_error": max((table.worst for table in tables if table.worst is not None), default=None),
        "states": all(sweep.states for sweep in sweeps),
    }


def _alone(report: ParityReport) -> str:
    """Return what is compared of outputs that hold no states."""
    if report.spec.is_reranker:
        return "logits"
    return "weights and vectors" if report.spec.has_token_heads else "vectors"


def coverage_line(report: ParityReport) -> str | None:
    """Return the same as a sentence; None if nothing was swept."""
    found = coverage(report)
    if found is None:
        return None

    sizes, masks = ", ".join(map(str, found["sizes"])), ", ".join(("right", *found["masks"]))
    types = f", {found['token_types']} token types" if found["token_types"] > 1 else ""
    line = (
        f"besides texts: {found['rows_run']} of {found['token_rows']} token rows run, "
        f"inputs up to {found['longest']} tokens, {found['positions']} positions, batches of {sizes}, "
        f"padding and masks: {masks}{types}"
    )

    if not found["states"]:
        line += f"; of some outputs the {_alone(report)} alone"
    if found["rows_read"]:
        worst = difference_figure(found["largest_row_error"])
        line += f"; {found['rows_read']} rows read, off by at most {worst} of what rounding makes"
    return line
