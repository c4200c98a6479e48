"""The report for people (rich). Nothing is judged here; a file that is slower than fp32 is said to be."""

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bge_export.bench.report import BenchLane, BenchReport, ShapeTimes, Spread
from bge_export.parity.figures import NONE, escaped

RIGHT = ("threads", "MB", "load s", "MiB before", "MiB peak", "time, base 1", "ms", "ms, half of rounds", "base 1",
         "base 1, half of rounds")  # fmt: skip
SLOWER = "slower than fp32"


def render(report: BenchReport) -> RenderableType:
    """Return machine, the table of lanes, and the table of times."""
    environment = report.environment
    head = f"{environment['cpu']}, {environment['instructions'] or 'no instructions known'}"
    how = (
        f"base {report.base}; medians of {report.rounds} rounds in which files take turns; ratios are taken within a "
        "round; full batches (texts x tokens) of random ids"
    )
    return Group(
        Text(escaped(head)), Text(escaped(how)), Text(""), _lanes(report), Text(""), _times(report), *_warnings(report)
    )


def _lanes(report: BenchReport) -> Table:
    """Return size, memory, and the geometric mean of the ratios."""
    table = _table("file", "runtime", "threads", "MB", "load s", "MiB before", "MiB peak", "time, base 1", "")
    sizes = {file.name: file.size_bytes for file in report.files}
    for lane in report.lanes:
        load = lane.load
        table.add_row(
            *_names(lane), f"{sizes[lane.file] / 1e6:.1f}", f"{load.load_seconds:.2f}", _mib(load.before_mib),
            _mib(load.peak_mib), f"{lane.ratio:.2f}", _elsewhere(lane, report),
        )  # fmt: skip
    return table


def _times(report: BenchReport) -> Table:
    """Return the times by shape, so that those that are compared stand below each other."""
    table = _table(
        "shape", "file", "runtime", "threads", "ms", "ms, half of rounds", "base 1", "base 1, half of rounds", ""
    )
    for number, shape in enumerate(report.shapes):
        for lane in report.lanes:
            one = lane.times[number]
            slower = SLOWER if shape in lane.slower_than_fp32 else ""
            table.add_row(shape, *_names(lane), *_figures(one), Text(slower, style="bold yellow"))
    return table


def _warnings(report: BenchReport) -> Iterable[RenderableType]:
    for sentence in report.warnings:
        yield Text("")
        yield Text.assemble(("warning ", "bold yellow"), escaped(sentence))


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in RIGHT else "left", overflow="fold")
    return table


def _names(lane: BenchLane) -> tuple[Text, str, str]:
    return Text(escaped(lane.file)), f"{lane.runtime}:{lane.device}", str(lane.threads)


def _figures(one: ShapeTimes) -> tuple[str, str, str, str]:
    ms = Spread(median=1e3 * one.seconds.median, low=1e3 * one.seconds.low, high=1e3 * one.seconds.high)
    return (_three(ms.median), f"{_three(ms.low)}–{_three(ms.high)}", f"{one.ratio.median:.2f}",
            f"{one.ratio.low:.2f}–{one.ratio.high:.2f}")  # fmt: skip


def _three(value: float) -> str:
    """Return a time with three digits, more where it has more before the point."""
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f}"


def _mib(value: float | None) -> str:
    return NONE if value is None else f"{value:.0f}"


def _elsewhere(lane: BenchLane, report: BenchReport) -> Text:
    """Return which lane the ratios are to, where the base cannot run beside this one."""
    own = next(other for other in report.lanes if other.name == lane.base)
    same = (own.runtime, own.device) == (lane.runtime, lane.device)
    return Text("" if same else f"to {escaped(lane.base)}", style="dim")
