"""Standard streams that take whatever is printed: escaped where they cannot hold it, dropped where nobody reads it.

A command's exit status is its verdict, which must not depend on who reads the output, and in which encoding.
"""

import codecs
import errno
import io
import os
import sys
from pathlib import Path
from typing import TextIO

ESCAPE = "bge_export.escape"
"""The name of our error handler for characters that an encoding lacks."""

MARKS = {"…": ".", "–": "-", "−": "-", "÷": "/", "×": "x", "“": '"', "”": '"', "’": "'"}
"""Marks of our own pages, and what stands for each: of the same width, so that tables keep their columns."""

UNREAD = {errno.EPIPE, errno.EINVAL}
"""What a system says once the reader has gone: the second is Windows'."""


class StandardStream(io.TextIOWrapper):
    """A standard stream whose writing never fails.

    Attributes:
        failure: why something that has a reader could not be written (a full disk); None if all was.
    """

    failure: OSError | None = None

    def write(self, text: str) -> int:
        """Write a text, or drop it."""
        try:
            return super().write(text)
        except OSError as error:
            self._drop(error)
            return len(text)

    def flush(self) -> None:
        """Hand on what was written, or drop it."""
        try:
            super().flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        """Let everything from here on, and what is still held back, go nowhere."""
        if error.errno not in UNREAD and self.failure is None:
            self.failure = error

        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), self.fileno())


def open_streams() -> None:
    """Put streams that never fail in place of Python's standard output and standard error."""
    codecs.register_error(ESCAPE, _escape)
    sys.stdout = _open(sys.stdout)
    sys.stderr = _open(sys.stderr)


def output_failure() -> OSError | None:
    """Return why standard output could not be written; None if it was, or if nobody reads it."""
    sys.stdout.flush()
    return sys.stdout.failure if isinstance(sys.stdout, StandardStream) else None


def can_hold(text: str, stream: TextIO) -> bool:
    """Return whether a stream's encoding has every character of a text."""
    try:
        text.encode(stream.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _open(stream: TextIO | None) -> TextIO:
    if stream is None:  # it was closed before Python started
        return Path(os.devnull).open("w", encoding="utf-8")
    if not isinstance(stream, io.TextIOWrapper):  # somebody else's, such as an editor's
        return stream

    # A handler that the user chose (PYTHONIOENCODING) stays; these two can fail.
    errors = ESCAPE if stream.errors in ("strict", "surrogateescape", "backslashreplace") else stream.errors
    encoding, line_buffering, write_through = stream.encoding, stream.line_buffering, stream.write_through
    return StandardStream(stream.detach(), encoding, errors, line_buffering=line_buffering, write_through=write_through)


def _escape(error: UnicodeError) -> tuple[str | bytes, int]:
    """Return what stands for characters that an encoding lacks: a mark for a mark, an escape for any other."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    first = error.object[error.start]
    if first in MARKS:
        return MARKS[first], error.start + 1
    return codecs.backslashreplace_errors(
        UnicodeEncodeError(error.encoding, error.object, error.start, error.start + 1, error.reason)
    )
