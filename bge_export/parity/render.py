"""Report and verdict for people (rich) and for machines (a dictionary). Nothing is judged here.

Texts come from files that others wrote: they are shown on one line, control characters escaped, as `rich.text.Text`,
which knows no markup. Figures are rounded away from passing.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bge_export.parity.figures import cosine_figure, difference_figure, escaped
from bge_export.parity.report import Lane, ParityReport, RowParity
from bge_export.parity.verdict import Failure, Verdict

SHOWN = 10
"""Refusals shown of one rule in one lane."""

COLUMNS = ("target", "output", "runtime", "device", "texts", "smallest cosine", "of text", "largest difference",
           "smallest in batch", "state")  # fmt: skip


@dataclass(frozen=True)
class Worst:
    """The worst figures of a lane; None where a row has no such number, which is worse than any."""

    cosine: float | None
    row: RowParity
    max_abs: float | None
    batch_cosine: float | None


def render(report: ParityReport, verdict: Verdict) -> RenderableType:
    """Return the table of lanes, the refusals and the verdict."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    several = len({lane.output for lane in report.lanes}) > 1
    shown = [place for place, column in enumerate(COLUMNS) if several or column != "output"]
    for place in shown:
        table.add_column(COLUMNS[place], justify="right" if COLUMNS[place] == "texts" else "left", overflow="fold")
    seen = Counter((lane.target, lane.output, lane.runtime, lane.device) for lane in report.lanes)
    for lane in report.lanes:
        if not _is_absent(lane):
            alone = seen[lane.target, lane.output, lane.runtime, lane.device] == 1
            cells = [Text(escaped(cell)) for cell in _cells(lane, verdict, name_run=not alone)]
            table.add_row(*(cells[place] for place in shown))
    kinds = " and a ".join(sorted({run.reference.kind for run in report.runs.values()}))
    head = f"{report.checkpoint.source} {report.checkpoint.digest[:12]}, reference from a {kinds}, {report.texts.name}"
    absent = dict.fromkeys(f"{lane.runtime}:{lane.device}" for lane in report.lanes if _is_absent(lane))
    listed = f"not on the machine that measured, and not asked for: {', '.join(absent)} (why: --json)"
    notes = [Text(escaped(listed), style="dim")] if absent else []
    notes += [Text(escaped(note), style="dim") for note in _token_notes(report.lanes)]
    return Group(Text(escaped(head)), table, *notes, *_refusals(verdict.failures), _conclusion(report, verdict))


def _token_notes(lanes: Iterable[Lane]) -> Iterable[str]:
    """Yield the texts on which clients' own tokenizers differ, apart from the figures: places that agree together."""
    places: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for lane in lanes:
        if differing := _other_tokens(lane):
            places[differing].append(f"{lane.runtime}:{lane.device}")
    for texts, where in places.items():
        yield (
            f"other tokens by the client's own tokenizer, in {', '.join(dict.fromkeys(where))}: {len(texts)} texts: "
            f"{', '.join(texts)}"
        )


def _other_tokens(lane: Lane) -> tuple[str, ...]:
    """Return the ids of the texts of which a client's own tokenizer made other tokens."""
    return tuple(row.id for row in lane.rows if row.client is not None and not row.client.tokens_equal)


def _is_absent(lane: Lane) -> bool:
    """Return whether a lane could not run and nobody asked for it."""
    return lane.unavailable is not None and not lane.requested


def as_json(report: ParityReport, verdict: Verdict) -> dict[str, Any]:
    """Return what `render` shows, and every failure, as JSON's types."""
    return {
        "passed": verdict.passed,
        "exit_status": verdict.exit_status,
        "checkpoint": report.checkpoint.model_dump(mode="json"),
        "texts": report.texts.model_dump(mode="json"),
        "report_digest": report.digest,
        "lanes": [_lane_json(lane, verdict) for lane in report.lanes],
        "failures": [{**asdict(failure), "advice": failure.advice} for failure in verdict.failures],
    }


def _lane_json(lane: Lane, verdict: Verdict) -> dict[str, Any]:
    worst = _worst(lane.rows)
    return {
        "name": lane.name,
        **lane.model_dump(mode="json", include={
            "run", "target", "output", "runtime", "device", "threads", "model", "artifact_digest", "facts", "requested",
            "unavailable", "failed",
        }),
        "texts": len(lane.rows),
        "smallest_cosine": worst.cosine if worst else None,
        "smallest_cosine_text": worst.row.id if worst else None,
        "largest_difference": worst.max_abs if worst else None,
        "client_token_differences": list(_other_tokens(lane)),
        "smallest_batch_cosine": worst.batch_cosine if worst else None,
        "state": _state(lane, verdict),
    }  # fmt: skip


def _cells(lane: Lane, verdict: Verdict, *, name_run: bool) -> Iterable[str]:
    worst = _worst(lane.rows)
    figures = ("", "", "", "")
    if worst is not None:
        figures = (
            cosine_figure(worst.cosine), worst.row.id, difference_figure(worst.max_abs),
            cosine_figure(worst.batch_cosine),
        )  # fmt: skip
    state = _state(lane, verdict)
    reason = lane.unavailable or lane.failed
    device = f"{lane.device} (run {lane.run[:12]})" if lane.run and name_run else lane.device
    yield from (lane.target, lane.output, lane.runtime, device, str(len(lane.rows)), *figures)
    yield state if reason is None else f"{state}: {reason.partition(chr(10))[0]}"


def _state(lane: Lane, verdict: Verdict) -> str:
    count = sum(failure.lane == lane.name for failure in verdict.failures)
    if count:
        return f"refused ({count})"
    return "within limits" if lane.measured else "not measured"


def _worst(rows: Iterable[RowParity]) -> Worst | None:
    """Return the worst figures of a lane, None for a lane without rows."""
    kept = tuple(rows)
    if not kept:
        return None
    row = min(kept, key=lambda row: -2.0 if row.cosine is None else row.cosine)
    batched = [value for row in kept for value in row.batch_cosine.values()]
    return Worst(row.cosine, row, _extreme([row.max_abs for row in kept], max), _extreme(batched, min))


def _extreme(values: list[float | None], choose: Any) -> float | None:  # noqa: ANN401 - min or max
    known = [value for value in values if value is not None]
    return choose(known) if known and len(known) == len(values) else None


def _refusals(failures: Iterable[Failure]) -> Iterable[RenderableType]:
    """Yield the refusals, those of one rule in one lane together, with what to do next."""
    groups: dict[tuple[str, str], list[Failure]] = defaultdict(list)
    for failure in failures:
        groups[failure.rule, failure.lane].append(failure)
    for group in groups.values():
        yield Text("")
        for failure in group[:SHOWN]:
            yield Text.assemble(("refused ", "bold red"), escaped(failure.message))
        if len(group) > SHOWN:
            yield Text(f"        … and {len(group) - SHOWN} more")
        yield Text(f"        {group[0].advice}", style="dim")


def _conclusion(report: ParityReport, verdict: Verdict) -> Text:
    measured = sum(lane.measured for lane in report.lanes)
    expected = sum(not _is_absent(lane) for lane in report.lanes)
    counts = f"{measured} of {expected} lanes measured on {report.texts.count} texts"
    if verdict.passed:
        return Text.assemble("\n", ("PASSED", "bold green"), f": {counts}, every row within its limits.")
    number = len(verdict.failures)
    return Text.assemble("\n", ("REFUSED", "bold red"), f": {counts}, {number} reason{'s' * (number != 1)} above.")
