"""Panics of libraries written in Rust, as exceptions that a reader can catch.

PyO3 raises them as `PanicException`, which is no `Exception` and has no importable name: it would pass every handler
and end the command with a traceback and status 1, which reads as a refusal of the gate.
"""

from collections.abc import Iterator
from contextlib import contextmanager


class LibraryPanicError(RuntimeError):
    """A library gave up in a way that its authors did not foresee."""


@contextmanager
def panics_as_errors() -> Iterator[None]:
    """Turn a panic inside the block into a `LibraryPanicError`; everything else passes."""
    try:
        yield
    except Exception:
        raise
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise LibraryPanicError(f"the library gave up: {str(error).partition(chr(10))[0]}") from error
