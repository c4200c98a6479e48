"""Refusals about the sweep of token ids: what it did not cover, and states and rows that are not the checkpoint's.

Texts touch a few percent of a vocabulary. Each lane must have run the sample of `sweep.plan`; every id must have been
swept in one lane of each artifact, or else its row read from the file. A file of rounded weights must have both: its
states move by rounding as far as by a row that is a tenth noise.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

from bge_export.heads.dense import POOLED
from bge_export.parity.figures import cosine_figure, difference_figure
from bge_export.parity.gate.lanes import CHECKPOINT
from bge_export.parity.gate.limits import Limits
from bge_export.parity.gate.verdict import Failure, failure
from bge_export.parity.report import Lane, ParityReport, ReferenceRecord, SweepPart, SweepRecord
from bge_export.precision import find_precision, precision_names
from bge_export.sweep.plan import LONGEST, MASKS, POSITIONS, SIZED, SIZES, TOKEN_TYPES
from bge_export.token_tables import readable_formats

MOST_ERROR = 1.0
"""Largest error of a row of the token table, in units of the error that rounding to the precision's step may make."""


def sweep_failures(report: ParityReport) -> Iterator[Failure]:
    """Yield the refusals of rows of the token table that nothing covers, once for each artifact and output."""
    lanes: dict[tuple[str, str, str], list[Lane]] = defaultdict(list)
    for lane in report.lanes:
        if lane.measured and lane.run in report.runs:
            lanes[lane.target, lane.model, lane.output].append(lane)

    for own in lanes.values():
        yield from _row_failures(own, report)


def _row_failures(lanes: Sequence[Lane], report: ParityReport) -> Iterator[Failure]:
    """Yield the refusals of one output of an artifact, given all its lanes.

    Machines without the checkpoint run the sample alone; then nothing more is asked, and the verdict says so.
    """
    there = [lane for lane in lanes if report.runs[lane.run].reference.kind == "checkpoint"]
    if not there:
        return

    first, rows = there[0], max(report.runs[lane.run].reference.token_rows for lane in there)
    tables = [lane.table for lane in there if lane.table is not None]
    read = max((table.rows for table in tables if table.unread is None), default=0)
    swept = max((lane.sweep.ids for lane in there if lane.sweep is not None and lane.sweep.states), default=0)

    if _must_be_read(first) and read < rows:
        reason = next((table.unread for table in tables), None)
        got = f"{read} rows of its token table were read" + (f" ({reason})" if reason else "")
        yield failure("coverage", got, f"all {rows}, since its weights are rounded", lane=first.name)
    elif max(read, swept) < rows:
        got = f"{max(read, swept)} rows of the token table were looked at"
        yield failure("coverage", got, f"all {rows}", lane=first.name)

    sweeps = [lane.sweep for lane in there if lane.sweep is not None]
    seen = max((sweep.positions for sweep in sweeps), default=0)
    most = first.spec.inputs.max_tokens
    if sweeps and seen < most and not all(POSITIONS in sweep.undefined for sweep in sweeps):
        yield failure("coverage", f"{seen} positions were looked at", f"all {most}", lane=first.name)


def _must_be_read(lane: Lane) -> bool:
    """Return whether only its own token table can prove the rows of a lane's file."""
    format_name, _, precision = lane.target.partition("-")
    known = precision in precision_names() and not lane.target.startswith(CHECKPOINT)
    return known and find_precision(precision).rounded and format_name in readable_formats()


Judge = Callable[[SweepPart], Iterator[Failure]]
"""Yields the refusals of one kind of batch."""


def lane_failures(lane: Lane, reference: ReferenceRecord, judge_part: Judge) -> Iterator[Failure]:
    """Yield the refusals of one lane with rows: of its sweep, and of its file's token table."""
    if lane.table is not None and lane.table.unread is None and not _at_most(lane.table.worst, MOST_ERROR):
        off = difference_figure(lane.table.worst)
        got = f"the row of token {lane.table.token} is {off} times the precision's step off"
        yield failure("token-table", got, f"at most {MOST_ERROR:g}, which rounding explains", lane=lane.name)

    if lane.sweep is None:
        yield failure("coverage", "no sweep of token ids", "one in every lane", lane=lane.name)
        return

    yield from _coverage_failures(lane, lane.sweep, reference)
    if not lane.sweep.repeated:
        yield failure("not-repeatable", "the same batch gave other bytes", "the same bytes", lane=lane.name)
    for part in lane.sweep.parts:
        yield from judge_part(part)


def _coverage_failures(lane: Lane, sweep: SweepRecord, reference: ReferenceRecord) -> Iterator[Failure]:
    """Yield a refusal for each part of the sample that did not run."""
    most = lane.spec.inputs.max_tokens
    kinds = {part.kind for part in sweep.parts}
    needed = {SIZED, LONGEST, *MASKS} - (set(sweep.undefined) & set(MASKS))
    if reference.token_types > 1:
        needed.add(TOKEN_TYPES)

    if missing := sorted(needed - kinds):
        yield failure("coverage", f"no {', '.join(missing)} in its sweep", "every kind of batch", lane=lane.name)
    if sweep.longest < most:
        got = f"the longest input that was run has {sweep.longest} tokens"
        yield failure("coverage", got, f"{most}, which the folder promises", lane=lane.name)
    if left := sorted(set(SIZES) - set(sweep.sizes)):
        yield failure("coverage", f"no batch of {', '.join(map(str, left))}", "every batch size", lane=lane.name)


def state_failures(lane: Lane, limits: Limits, part: SweepPart) -> Iterator[Failure]:
    """Yield the refusals of one kind of batch."""
    what = f"in the sweep's {part.kind}"
    if not part.finite:
        yield failure("not-finite", f"NaN or infinity {what}", "finite values", lane=lane.name)
        return

    turned = False
    for figure, least, where in (
        (part.token_cosine, limits.min_token_cosine, f"the state of token {part.token}"),
        (part.sequence_cosine, limits.min_sequence_cosine, f"the states of a sequence of {part.length}, in the mean,"),
    ):
        if figure is None or not figure >= least:
            got = f"{where} {what} has cosine {cosine_figure(figure)}"
            yield failure("token-states", got, f"at least {least}", lane=lane.name, figure=figure)
            turned = True

    most = _longest_norm_error(lane, limits)
    if not turned and not _at_most(part.norm_error, most):
        got = f"the norm of a state {what} is off by {difference_figure(part.norm_error)} of the checkpoint's"
        yield failure("vector-norm", got, f"at most {most:.4g}", lane=lane.name, figure=part.norm_error)


ROUNDED_TIMES = 2
"""How much farther than a turn by the cosine's limit rounded weights may change a state's length."""


def _longest_norm_error(lane: Lane, limits: Limits) -> float:
    """Return the limit of the relative error of a state's norm in the sweep.

    Rounding that turns a state by an angle changes its length by no more than it moves its end, so the limit follows
    from that of the cosine; twice that where weights are rounded, since a right int8 file of all-MiniLM-L6-v2 has 0.451
    on random ids where the limit gives 0.447. A vector that was divided by its norm has the length 1 in any case.
    """
    dense = lane.spec.heads.dense
    if lane.output in POOLED and dense is not None and dense.normalize:
        return limits.max_norm_error
    moved = math.sqrt(2 * (1 - limits.min_token_cosine))
    return moved * (ROUNDED_TIMES if limits.by_kind else 1) or limits.max_norm_error


def _at_most(value: float | None, limit: float) -> bool:
    return value is not None and value <= limit
