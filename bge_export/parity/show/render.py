"""Render a report and its verdict for the terminal (rich) and as JSON (a dictionary). Nothing is judged here.

Texts come from untrusted files: they are shown on one line, with control characters escaped, as `rich.text.Text`,
which does not interpret markup. Figures are rounded away from passing.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bge_export.contracts import LAST_HIDDEN_STATE, LOGITS
from bge_export.parity.figures import cosine_figure, difference_figure, escaped
from bge_export.parity.gate.verdict import Verdict
from bge_export.parity.report import Lane, ParityReport
from bge_export.parity.show.coverage import coverage, coverage_line
from bge_export.parity.show.reasons import reason_lines
from bge_export.parity.show.scores import SCORE_COLUMNS, score_cells, score_facts
from bge_export.parity.show.token_heads import ANSWER_COLUMNS, answer_cells, answer_facts
from bge_export.parity.worst import Smallest, of_kind, worst_of

TABLE_COLUMNS = 130
"""Columns that the table of lanes takes at least; cells of figures are of no use folded."""

NAMES = frozenset({"target", "output", "runtime", "device"})
"""Columns of names that users type: they are never folded."""

SMALLEST, LARGEST, BATCHED = "smallest\ncosine", "largest\ndifference", "smallest\nin batch"
STRESS = "of stress\ntexts"


def render(report: ParityReport, verdict: Verdict, width: int = TABLE_COLUMNS) -> RenderableType:
    """Return the lanes as a table, or one below the other where it does not fit, the refusals and the verdict.

    Args:
        report: the report.
        verdict: the verdict on it.
        width: columns of the terminal.
    """
    kinds = " and a ".join(report.references)
    head = f"{report.checkpoint.source} {report.checkpoint.digest[:12]}, reference from a {kinds}, {report.texts.name}"
    absent = dict.fromkeys(f"{lane.runtime}:{lane.device}" for lane in report.lanes if _is_absent(lane))
    listed = f"not on the machine that measured, and not asked for: {', '.join(absent)} (why: --json)"

    notes = [Text(escaped(listed), style="dim")] if absent else []
    if (line := coverage_line(report)) is not None:
        notes.append(Text(line, style="dim"))
    notes += [Text(escaped(note), style="dim") for note in _token_notes(report.lanes)]
    reasons = reason_lines(verdict.failures)
    gap = [Text("")] if reasons else []
    lanes = [_table(report, verdict)] if width >= TABLE_COLUMNS else _blocks(report, verdict)
    return Group(Text(escaped(head)), *lanes, *notes, *gap, *reasons, _conclusion(report, verdict))


def _blocks(report: ParityReport, verdict: Verdict) -> Iterable[Text]:
    """Yield each lane in a few short lines, for terminals that are too narrow for the table."""
    for lane in report.lanes:
        if _is_absent(lane):
            continue

        worst = worst_of(lane.rows)
        output = "" if lane.output in (LAST_HIDDEN_STATE, LOGITS) else f" {lane.output}"
        yield Text.assemble(
            (escaped(f"{lane.target} in {lane.runtime}:{lane.device}{output}: "), "bold"), _said(lane, verdict)
        )
        if lane.scores:
            figures = zip(SCORE_COLUMNS, score_cells(lane), strict=True)
            yield from (Text(escaped(f"  {name.replace(chr(10), ' ')} {figure}")) for name, figure in figures)
        if lane.spec.has_token_heads:
            answers = zip(ANSWER_COLUMNS, answer_cells(lane), strict=True)
            yield from (Text(escaped(f"  {name}: {figure}")) for name, figure in answers if figure)
            continue
        if worst is None:
            continue

        for kind, least in (("everyday", worst.everyday), ("stress", worst.stress)):
            if least is not None:
                yield Text(escaped(f"  smallest cosine of {kind} texts {cosine_figure(least.cosine)} ({least.row.id})"))
        yield Text(f"  largest difference {difference_figure(worst.max_abs)}")
        yield Text(f"  smallest cosine in a batch {cosine_figure(worst.batch_cosine)}")


def _said(lane: Lane, verdict: Verdict) -> str:
    """Return a lane's state, with the reason why it was not measured if no refusal says it."""
    reason = None if _refusals(lane, verdict) else lane.unavailable or lane.failed
    return _state(lane, verdict) + ("" if reason is None else f": {reason.partition(chr(10))[0]}")


def _table(report: ParityReport, verdict: Verdict) -> Table:
    """Return the table of lanes, without columns whose value is equal in every row."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    seen = Counter((lane.target, lane.output, lane.runtime, lane.device) for lane in report.lanes)
    shown = [lane for lane in report.lanes if not _is_absent(lane)]
    columns_of, cells_of = _COLUMNS[_shown_as(report)]
    columns = columns_of(report.lanes, shown)

    for column in columns:
        if column is not None:
            justify: Literal["left", "right"] = "right" if column == "texts" else "left"
            table.add_column(column, justify=justify, overflow="fold", no_wrap=column in NAMES)

    for lane in shown:
        alone = seen[lane.target, lane.output, lane.runtime, lane.device] == 1
        cells = zip(columns, cells_of(lane, verdict, name_run=not alone), strict=True)
        table.add_row(*(Text(escaped(cell)) for column, cell in cells if column is not None))
    return table


def _columns(lanes: Sequence[Lane], shown: Sequence[Lane]) -> list[str | None]:
    """Return the column names, None for unneeded columns: a single output, equal numbers of texts, no stress texts."""
    outputs = len({lane.output for lane in lanes}) > 1
    counts = len({len(lane.rows) for lane in shown if lane.rows}) > 1
    stress = any(row.kind == "stress" for lane in shown for row in lane.rows)

    return [
        "target",
        "output" if outputs else None,
        "runtime",
        "device",
        "texts" if counts else None,
        SMALLEST,
        "of text",
        STRESS if stress else None,
        "of text" if stress else None,
        LARGEST,
        BATCHED,
        "state",
    ]


def _score_columns(lanes: Sequence[Lane], shown: Sequence[Lane]) -> list[str | None]:
    """Return the column names of a reranker's lanes; see `_columns`."""
    outputs = len({lane.output for lane in lanes}) > 1
    counts = len({len(lane.scores) for lane in shown if lane.scores}) > 1
    return [
        "target",
        "output" if outputs else None,
        "runtime",
        "device",
        "pairs" if counts else None,
        *SCORE_COLUMNS,
        "state",
    ]


def _answer_columns(lanes: Sequence[Lane], shown: Sequence[Lane]) -> list[str | None]:
    """Return the column names of lanes with token weights or vectors; see `_columns`."""
    counts = len({len(lane.facts_of_texts) for lane in shown if lane.facts_of_texts}) > 1
    outputs = len({lane.output for lane in lanes}) > 1
    return [
        "target",
        "output" if outputs else None,
        "runtime",
        "device",
        "texts" if counts else None,
        *ANSWER_COLUMNS,
        "state",
    ]


def _token_notes(lanes: Iterable[Lane]) -> Iterable[str]:
    """Yield a note for each set of texts that clients tokenize differently; lanes with the same set share a note."""
    lanes_of: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for lane in lanes:
        if differing := _other_tokens(lane):
            lanes_of[differing].append(f"{lane.runtime}:{lane.device}")

    for texts, names in lanes_of.items():
        yield (
            f"other tokens by the client's own tokenizer, in {', '.join(dict.fromkeys(names))}: {len(texts)} texts: "
            f"{', '.join(texts)}"
        )


def _other_tokens(lane: Lane) -> tuple[str, ...]:
    """Return the ids of the texts that a client's own tokenizer tokenizes differently."""
    return tuple(row.id for row in lane.rows if row.client is not None and not row.client.tokens_equal)


def _is_absent(lane: Lane) -> bool:
    """Return whether a lane is unavailable and was not requested."""
    return lane.unavailable is not None and not lane.requested


def as_json(report: ParityReport, verdict: Verdict) -> dict[str, Any]:
    """Return the content of `render`, and every failure, as JSON-compatible types."""
    return {
        "passed": verdict.passed,
        "exit_status": verdict.exit_status,
        "checkpoint": report.checkpoint.model_dump(mode="json"),
        "references": list(report.references),
        "texts": report.texts.model_dump(mode="json"),
        "report_digest": report.digest,
        "coverage": coverage(report),
        "lanes": [_lane_json(lane, verdict) for lane in report.lanes],
        "failures": [{**asdict(failure), "advice": failure.advice} for failure in verdict.failures],
    }


def _lane_json(lane: Lane, verdict: Verdict) -> dict[str, Any]:
    # Every key is present in every lane, with None if nothing was measured.
    worst = worst_of(lane.rows)
    kinds = (
        {"": None, "everyday_": None, "stress_": None}
        if worst is None
        else {
            "": worst.overall,
            "everyday_": worst.everyday,
            "stress_": worst.stress,
        }
    )

    if lane.spec.is_reranker:
        return {"name": lane.name, **_lane_fields(lane), **score_facts(lane), "state": _state(lane, verdict)}
    if lane.spec.has_token_heads:
        # The dense output has the keys of every embedding too, which the page's sections read.
        own = {key: value for key, value in answer_facts(lane).items() if key not in ("texts",)}
        more = {**_dense_json(lane, kinds), **own, "texts": len(lane.facts_of_texts)}
        return {"name": lane.name, **_lane_fields(lane), **more, "state": _state(lane, verdict)}

    return {"name": lane.name, **_lane_fields(lane), **_dense_json(lane, kinds), "state": _state(lane, verdict)}


def _dense_json(lane: Lane, kinds: Mapping[str, Smallest | None]) -> dict[str, Any]:
    """Return the figures of a lane of vectors; `kinds` holds the worst text by the beginning of its key."""
    worst = worst_of(lane.rows)
    figures: dict[str, Any] = {}
    for kind, least in kinds.items():
        figures[f"smallest_{kind}cosine"] = least.cosine if least else None
        figures[f"smallest_{kind}cosine_text"] = least.row.id if least else None

    return {
        "texts": len(lane.rows),
        "everyday_texts": len(of_kind(lane.rows, "everyday")),
        **figures,
        "mean_everyday_cosine": worst.mean_everyday if worst else None,
        "largest_difference": worst.max_abs if worst else None,
        "client_token_differences": list(_other_tokens(lane)),
        "smallest_batch_cosine": worst.batch_cosine if worst else None,
    }


def _lane_fields(lane: Lane) -> dict[str, Any]:
    """Return what identifies a lane, and why it did not run."""
    return lane.model_dump(
        mode="json",
        include={
            "run",
            "target",
            "output",
            "runtime",
            "device",
            "threads",
            "model",
            "artifact_digest",
            "facts",
            "requested",
            "unavailable",
            "failed",
        },
    )


def _score_cells(lane: Lane, verdict: Verdict, *, name_run: bool) -> list[str]:
    """Return the cells of a reranker's lane, one for each possible column."""
    target, output, runtime, device, _, *_, state = _cells(lane, verdict, name_run=name_run)
    return [target, output, runtime, device, str(len(lane.scores)), *score_cells(lane), state]


def _answer_cells(lane: Lane, verdict: Verdict, *, name_run: bool) -> list[str]:
    """Return the cells of a lane with token weights or vectors, one for each possible column."""
    target, output, runtime, device, _, *_, state = _cells(lane, verdict, name_run=name_run)
    return [target, output, runtime, device, str(len(lane.facts_of_texts)), *answer_cells(lane), state]


def _cells(lane: Lane, verdict: Verdict, *, name_run: bool) -> list[str]:
    """Return the cells of a lane, one for each possible column."""
    worst = worst_of(lane.rows)
    figures = [""] * 6
    if worst is not None:
        figures = [
            *_smallest_cells(worst.everyday),
            *_smallest_cells(worst.stress),
            difference_figure(worst.max_abs),
            cosine_figure(worst.batch_cosine),
        ]

    # A library's message folds into dozens of lines in a column; where the lane is refused, the reasons below hold it.
    state = _said(lane, verdict)
    device = f"{lane.device} (run {lane.run[:12]})" if lane.run and name_run else lane.device

    return [
        lane.target,
        lane.output,
        lane.runtime,
        device,
        str(len(lane.rows)),
        *figures,
        state,
    ]


def _shown_as(report: ParityReport) -> str:
    """Return the key of the columns that show a report."""
    if report.spec.is_reranker:
        return "pairs"
    return "tokens" if report.spec.has_token_heads else "dense"


_COLUMNS = {
    "pairs": (_score_columns, _score_cells),
    "tokens": (_answer_columns, _answer_cells),
    "dense": (_columns, _cells),
}
"""What a report is of -> the columns of its table, and the cells of a lane."""


def _smallest_cells(least: Smallest | None) -> tuple[str, str]:
    return ("", "") if least is None else (cosine_figure(least.cosine), least.row.id)


def _refusals(lane: Lane, verdict: Verdict) -> int:
    """Return how many refusals name a lane."""
    return sum(failure.lane == lane.name for failure in verdict.failures)


def _state(lane: Lane, verdict: Verdict) -> str:
    if count := _refusals(lane, verdict):
        return f"refused ({count})"
    return "within limits" if lane.measured else "not measured"


def _conclusion(report: ParityReport, verdict: Verdict) -> Text:
    measured = sum(lane.measured for lane in report.lanes)
    expected = sum(not _is_absent(lane) for lane in report.lanes)
    counts = f"{measured} of {expected} lanes measured on {report.texts.count} texts"

    if verdict.passed:
        against = " against vectors from a file" if "file" in report.references else ""
        return Text.assemble("\n", ("PASSED", "bold green"), f"{against}: {counts}, every row within its limits.")
    number = len(verdict.failures)
    return Text.assemble("\n", ("REFUSED", "bold red"), f": {counts}, {number} reason{'s' * (number != 1)}.")
