"""Renders a benchmark report as rich tables; a file that is slower than fp32 is marked, but nothing is judged."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bge_export.bench.report import BenchLane, BenchReport, ShapeTimes, Spread
from bge_export.parity.figures import NONE, escaped

ALL = "÷ base, all shapes"
RIGHT = ("threads", "MB", "load s", "MiB before", "MiB peak", ALL, "ms", "quartiles", "÷ base")
SLOWER = "slower than fp32"


def render(report: BenchReport) -> RenderableType:
    """Return a description of machine and method, the table of lanes, and the table of times."""
    environment = report.environment
    lines = (
        f"{environment['cpu']}, {environment['cores']} cores, {environment['instructions'] or 'nothing special'}; load "
        f"before the run {environment['load']}",
        f"÷ base: time divided by that of {_yardstick(report)} in the same round. Medians of "
        f"{report.rounds} rounds in which the files take turns.",
        "Shapes: texts x tokens, random ids, no padding. MiB: peak of a process of its own, before it opens the file "
        "and after one text; of a JavaScript client, its own process, which starts with the file.",
    )

    return Group(*(Text(escaped(line)) for line in lines), Text(""), _lanes(report), Text(""), _times(report))


def _yardstick(report: BenchReport) -> str:
    """Return the one lane that all are compared with, or the base file if each runtime has its own base lane."""
    bases = {lane.base.partition(",")[0] for lane in report.lanes}
    return bases.pop() if len(bases) == 1 else f"{report.base} in the same runtime"


def _lanes(report: BenchReport) -> Table:
    """Return the table of size, memory, and geometric mean of the ratios."""
    table = _table("file", "runtime", "threads", "MB", "load s", "MiB before", "MiB peak", ALL)
    sizes = {file.name: file.size_bytes for file in report.files}

    for lane in report.lanes:
        load = lane.load
        table.add_row(
            *_names(lane),
            f"{sizes[lane.file] / 1e6:.1f}",
            f"{load.load_seconds:.2f}",
            _mib(load.before_mib),
            _mib(load.peak_mib),
            f"{lane.ratio:.2f}",
        )

    return table


def _times(report: BenchReport) -> Table:
    """Return the table of times, grouped by shape, so that compared times stand below each other."""
    table = _table("shape", "file", "runtime", "threads", "ms", "quartiles", "÷ base", "quartiles", "")

    for number, shape in enumerate(report.shapes):
        for lane in report.lanes:
            one = lane.times[number]
            slower = SLOWER if shape in lane.slower_than_fp32 else ""
            table.add_row(shape, *_names(lane), *_figures(one), Text(slower, style="bold yellow"))

    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in RIGHT else "left", overflow="fold")
    return table


def _names(lane: BenchLane) -> tuple[Text, str, str]:
    return Text(escaped(lane.file)), f"{lane.runtime}:{lane.device}", str(lane.threads)


def _figures(one: ShapeTimes) -> tuple[str, str, str, str]:
    ms = Spread(median=1e3 * one.seconds.median, low=1e3 * one.seconds.low, high=1e3 * one.seconds.high)
    return (
        _three(ms.median),
        f"{_three(ms.low)}–{_three(ms.high)}",
        f"{one.ratio.median:.2f}",
        f"{one.ratio.low:.2f}–{one.ratio.high:.2f}",
    )


def _three(value: float) -> str:
    """Return a time with three significant digits, or all digits before the point if there are more."""
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f}"


def _mib(value: float | None) -> str:
    return NONE if value is None else f"{value:.0f}"
