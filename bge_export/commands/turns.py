"""Calls from several threads take turns: whatever runs a model has one process to itself while it does.

torch's number of threads, its tracer, its random numbers and Python's warnings have one state for all threads. Two
exports at once could trace each other's state into a graph, and a measurement would run with the threads of another.
"""

from collections.abc import Callable
from functools import wraps
from threading import RLock
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

TURN = RLock()
"""Held while a model runs. The thread that holds it may enter again: one command calls another."""


def in_turn(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function wait until no other thread is inside one that was so made."""

    @wraps(function)
    def waiting(*arguments: P.args, **named: P.kwargs) -> R:
        with TURN:
            return function(*arguments, **named)

    return waiting
