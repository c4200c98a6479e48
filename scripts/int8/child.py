"""Runs a command in a process of its own and says what it took."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

BYTES_PER_UNIT = 1 if sys.platform == "darwin" else 1024
"""What `ru_maxrss` counts in."""


@dataclass(frozen=True)
class Ran:
    """How a command ended, and what it took.

    Attributes:
        status: exit status; negative where a signal ended it.
        wall_seconds: from its start to its end.
        cpu_seconds: of the process and the processes that it waited for.
        peak_bytes: resident memory of the largest of them.
        stdout, stderr: what it printed.
    """

    status: int
    wall_seconds: float
    cpu_seconds: float
    peak_bytes: int
    stdout: str
    stderr: str


def run(command: Sequence[str | Path], folder: Path) -> Ran:
    """Run a command; what it prints is kept in `folder`."""
    outputs = folder / "stdout.txt", folder / "stderr.txt"

    with outputs[0].open("wb") as out, outputs[1].open("wb") as err:
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=out, stderr=err)
        _, status, usage = os.wait4(process.pid, 0)
        wall_seconds = time.monotonic() - started

    # The process is gone: without this, Popen would wait for it once more.
    process.returncode = os.waitstatus_to_exitcode(status)
    return Ran(
        status=process.returncode,
        wall_seconds=wall_seconds,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        peak_bytes=usage.ru_maxrss * BYTES_PER_UNIT,
        stdout=outputs[0].read_text("utf-8", errors="replace"),
        stderr=outputs[1].read_text("utf-8", errors="replace"),
    )
