"""Progress of long work, ambient: code says how far it is, and the caller decides who sees it. By default nobody does.

with stage("embedding", 120):        # in any function
advance(1)

with shown_by(display):              # once, on the command line or in a notebook
export(recipe)
"""

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar

from bge_export.progress.timings import timed

Advance = Callable[[int], None]
"""Moves a stage forward by a number of steps."""

Display = Callable[[str, int], AbstractContextManager[Advance]]
"""Opens a stage by name and number of steps, and shows it until it is closed."""


@contextmanager
def _hidden(_name: str, _total: int) -> Generator[Advance]:
    """Show nothing."""
    yield _unseen


def _unseen(_count: int) -> None:
    """Ignore a step that no stage counts."""


# Context variables, because commands may run in several threads, each with a display of its own.
_DISPLAY: ContextVar[Display] = ContextVar("display", default=_hidden)
_ADVANCE: ContextVar[Advance] = ContextVar("advance", default=_unseen)


@contextmanager
def shown_by(display: Display) -> Generator[None]:
    """Show the stages that are opened in this block."""
    before = _DISPLAY.set(display)
    try:
        yield
    finally:
        _DISPLAY.reset(before)


@contextmanager
def stage(name: str, total: int) -> Generator[None]:
    """Open a stage of `total` steps, which is timed. Stages do not nest."""
    with timed(name), _DISPLAY.get()(name, total) as shown:
        before = _ADVANCE.set(shown)
        try:
            yield
        finally:
            _ADVANCE.reset(before)


def advance(count: int = 1) -> None:
    """Move the current stage forward; without a stage nothing happens."""
    _ADVANCE.get()(count)
