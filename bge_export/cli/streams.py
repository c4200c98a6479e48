"""Standard streams that never fail: characters they cannot encode are escaped, output that nobody reads is dropped.

A command's exit status is its verdict, which must not depend on the reader or the encoding of its output.
"""

import codecs
import errno
import io
import os
import sys
from pathlib import Path
from typing import TextIO

ESCAPE = "bge_export.escape"
"""Name of the codec error handler for characters that an encoding lacks."""

MARKS = {"…": ".", "–": "-", "−": "-", "÷": "/", "×": "x", "“": '"', "”": '"', "’": "'"}
"""Punctuation in our output -> ASCII replacement of the same width, so that tables keep their columns."""

UNREAD = {errno.EPIPE, errno.EINVAL}
"""Error numbers of a stream whose reader is gone; EINVAL on Windows."""


class StandardStream(io.TextIOWrapper):
    """A standard stream whose writes never raise OSError.

    Attributes:
        failure: the first write error, such as a full disk; None if there was none, or if only the reader was gone.
    """

    failure: OSError | None = None

    def write(self, text: str) -> int:
        """Write a text, or drop it if it cannot be written."""
        try:
            return super().write(text)
        except OSError as error:
            self._drop(error)
            return len(text)

    def flush(self) -> None:
        """Flush the buffered text, or drop it if it cannot be written."""
        try:
            super().flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        """Redirect the stream, including its buffered text, to the null device."""
        if error.errno not in UNREAD and self.failure is None:
            self.failure = error

        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), self.fileno())


def open_streams() -> None:
    """Replace standard output and standard error with streams that never fail."""
    codecs.register_error(ESCAPE, _escape)
    sys.stdout = _open(sys.stdout)
    sys.stderr = _open(sys.stderr)


def output_failure() -> OSError | None:
    """Return the error of writing standard output; None if all was written, or if nobody reads it."""
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
    if stream is None:  # closed before Python started
        return Path(os.devnull).open("w", encoding="utf-8")
    if not isinstance(stream, io.TextIOWrapper):  # replaced by another program, such as an editor
        return stream

    # Keep an error handler that the user chose (PYTHONIOENCODING), except those that can fail or are the default.
    errors = ESCAPE if stream.errors in ("strict", "surrogateescape", "backslashreplace") else stream.errors
    encoding, line_buffering, write_through = stream.encoding, stream.line_buffering, stream.write_through
    return StandardStream(stream.detach(), encoding, errors, line_buffering=line_buffering, write_through=write_through)


def _escape(error: UnicodeError) -> tuple[str | bytes, int]:
    """Return the replacement of a character that an encoding lacks: its ASCII mark, else a backslash escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error

    first = error.object[error.start]
    if first in MARKS:
        return MARKS[first], error.start + 1

    return codecs.backslashreplace_errors(
        UnicodeEncodeError(error.encoding, error.object, error.start, error.start + 1, error.reason)
    )
