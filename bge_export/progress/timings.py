"""Where the time and the memory of a command go, ambient as progress is: code names its parts.

with timed("opening onnx-int8"):     # in any function
    ...

with timings() as parts:             # once, on the command line
    export(recipe)
"""

import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from bge_export.files.proc import forget_peak, peak_bytes


@dataclass
class Part:
    """A part of a command, and the parts in it.

    Attributes:
        name: what was done.
        seconds: wall time.
        cpu_seconds: processor time of all threads of this process.
        peak_bytes: largest resident memory of this process meanwhile; None if the system does not report it.
        parts: the named parts in it, one for each name.
    """

    name: str
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_bytes: int | None = None
    parts: dict[str, "Part"] = field(default_factory=dict)


_CURRENT: ContextVar[tuple[Part, ...]] = ContextVar("parts", default=())
"""The part that is being measured, last, and those around it."""


@contextmanager
def timings(name: str = "all") -> Generator[Part]:
    """Measure this block and its named parts; the part that is given is complete when the block is left."""
    with _measured(Part(name)) as whole:
        yield whole


def so_far() -> Part | None:
    """Return all that is being measured, with the parts of it that are done; None if nobody asked."""
    return next(iter(_CURRENT.get()), None)


@contextmanager
def timed(name: str) -> Generator[None]:
    """Name a part of what is measured; parts of one name in the same part are added up."""
    around = _CURRENT.get()
    if not around:
        yield
        return

    with _measured(around[-1].parts.setdefault(name, Part(name))):
        yield


@contextmanager
def _measured(part: Part) -> Generator[Part]:
    around = _CURRENT.get()
    _share_peak(around)
    wall, cpu = time.perf_counter(), time.process_time()
    before = _CURRENT.set((*around, part))
    try:
        yield part
    finally:
        _share_peak((*around, part))
        _CURRENT.reset(before)
        part.seconds += time.perf_counter() - wall
        part.cpu_seconds += time.process_time() - cpu


def _share_peak(parts: Sequence[Part]) -> None:
    """Give the peak since the last call to each of the parts that were open meanwhile, and start a new one."""
    peak = peak_bytes()
    if not forget_peak():
        return

    for part in parts:
        part.peak_bytes = max(peak or 0, part.peak_bytes or 0)


def lines_of(whole: Part) -> Sequence[str]:
    """Return a table of a part and of all that is in it, for people."""
    rows = [*_rows(whole, 0)]
    width = max(len(name) for name, _ in rows)
    head = f"{'part':<{width}} {'seconds':>9} {'cpu':>9} {'share':>6} {'GiB':>6}"
    return [head, *(f"{name:<{width}} {_figures(part, whole)}" for name, part in rows)]


def facts_of(part: Part) -> dict[str, object]:
    """Return the parts of a part for machines."""
    return {
        name: {
            "seconds": one.seconds,
            "cpu_seconds": one.cpu_seconds,
            "peak_bytes": one.peak_bytes,
            **({"parts": facts_of(one)} if one.parts else {}),
        }
        for name, one in part.parts.items()
    }


def _figures(part: Part, whole: Part) -> str:
    share = part.seconds / whole.seconds if whole.seconds else 0.0
    peak = "" if part.peak_bytes is None else f"{part.peak_bytes / 2**30:.2f}"
    return f"{part.seconds:9.1f} {part.cpu_seconds:9.1f} {share:6.0%} {peak:>6}"


def _rows(part: Part, depth: int) -> Generator[tuple[str, Part]]:
    yield "  " * depth + part.name, part
    for one in part.parts.values():
        yield from _rows(one, depth + 1)
