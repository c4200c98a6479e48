"""Serialises commands that are called from several threads, so that only one of them runs a model at a time.

torch's number of threads, its tracer, its random numbers and Python's warnings are global to the process. Two exports
at the same time could trace each other's state into a graph, and a measurement could run with the wrong thread count.
"""

from collections.abc import Callable
from functools import wraps
from threading import RLock
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

TURN = RLock()
"""Held while a model runs. It is reentrant, because one command calls another."""


def in_turn(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator: wait until no other thread is inside a decorated function."""

    @wraps(function)
    def waiting(*arguments: P.args, **named: P.kwargs) -> R:
        with TURN:
            return function(*arguments, **named)

    return waiting
