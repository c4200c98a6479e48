"""Turns panics of Rust libraries into exceptions that a reader can catch.

PyO3 raises `PanicException`, which does not derive from `Exception` and has no importable name. It would pass every
handler and end the command with a traceback and status 1, which reads as a refusal by the gate.
"""

from collections.abc import Iterator
from contextlib import contextmanager


class LibraryPanicError(RuntimeError):
    """A library failed in a way that its authors did not foresee."""


@contextmanager
def panics_as_errors() -> Iterator[None]:
    """Turn a panic inside the block into a `LibraryPanicError`; other exceptions pass through."""
    try:
        yield
    except Exception:
        raise
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise LibraryPanicError(f"the library gave up: {str(error).partition(chr(10))[0]}") from error
