"""Runs a user's program on lines of input, with limits on time and output; it is ended with all its children."""

import contextlib
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Sequence
from tempfile import TemporaryFile
from typing import IO

from bge_export.errors import ClientError, UsageError
from bge_export.files.regular import MIB

MOST_BYTES = 256 * MIB
"""Most that a program may write: 25 vectors of 4,096 components have 3 MiB."""

LOOK_SECONDS = 0.05
"""Time between two looks at a running program."""

LAST_LINES = 12
"""Lines of a program's standard error in a message."""


def split_command(command: str) -> list[str]:
    """Return the program and arguments of a command line, as a shell splits them.

    Raises:
        UsageError: it is empty, or a quotation mark is not closed.
    """
    try:
        parts = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"the command {command!r} cannot be split: {error}. Close the quotation mark.") from error

    if not parts:
        raise UsageError("the command is empty. Give a program that reads texts and prints vectors.")
    return parts


def run_program(command: Sequence[str], lines: Sequence[str], seconds: float) -> str:
    """Return what a program prints when it is given lines on standard input.

    Files stand between both, so neither side can wait for the other.

    Args:
        command: the program and its arguments.
        lines: its input, a line each.
        seconds: the time limit.

    Raises:
        UsageError: there is no such program.
        ClientError: it failed, did not end in time, or wrote too much. The message ends with its standard error.
    """
    with TemporaryFile() as given, TemporaryFile() as printed, TemporaryFile() as errors:
        given.write("".join(f"{line}\n" for line in lines).encode())
        given.seek(0)

        try:
            process = subprocess.Popen(  # noqa: S603 - the user names the program
                command, stdin=given, stdout=printed, stderr=errors, start_new_session=True
            )
        except OSError as error:
            raise UsageError(f"{command[0]} cannot be run: {error.strerror}. Name a program that exists.") from error

        try:
            _wait(process, (printed, errors), seconds)
        finally:
            _end(process)

        if process.returncode != 0:
            raise ClientError(f"{command[0]} ended with exit status {process.returncode}.{_said(errors)}")

        printed.seek(0)
        return printed.read().decode("utf-8", errors="replace")


def _wait(process: subprocess.Popen[bytes], outputs: Sequence[IO[bytes]], seconds: float) -> None:
    """Wait for the end of a program.

    Raises:
        ClientError: it takes too long, or writes too much.
    """
    name, end = str(process.args[0]), time.monotonic() + seconds  # type: ignore[index]  # a list of arguments
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(LOOK_SECONDS)
            return

        if any(os.fstat(file.fileno()).st_size > MOST_BYTES for file in outputs):
            raise ClientError(f"{name} printed more than {MOST_BYTES // MIB} MiB. Print one vector for each text.")

        if time.monotonic() > end:
            raise ClientError(
                f"{name} did not end within {seconds:g} seconds. It has to end at the end of its input; --timeout "
                f"gives it more time.{_said(outputs[-1])}"
            )


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program and all that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()


def _said(errors: IO[bytes]) -> str:
    """Return the last lines of standard error for the end of a message, "" if there are none."""
    size = os.fstat(errors.fileno()).st_size
    errors.seek(max(0, size - 64 * 1024))
    lines = errors.read().decode("utf-8", errors="replace").strip().splitlines()[-LAST_LINES:]
    return "\n".join(["", "It wrote to standard error:", *(f"  {line}" for line in lines)]) if lines else ""
