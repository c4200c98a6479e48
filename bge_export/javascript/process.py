"""Runs a client in a child process: one JSON request per line in, one JSON answer per line out, with time limits."""

import json
import queue
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Thread
from typing import Any, Protocol

from bge_export.errors import ClientError

OPEN_SECONDS = 180.0
"""Time limit for a client to start, import its library and load a model."""

ANSWER_SECONDS = 300.0
"""Time limit for one request: a batch of eight of the longest texts takes half a minute in WebAssembly."""


class Link(Protocol):
    """A connection to a running client."""

    def ask(self, op: str, seconds: float = ANSWER_SECONDS, **fields: object) -> Mapping[str, Any]:
        """Return the answer to one request.

        Raises:
            ClientError: the client reported an error, exited, or did not answer in time.
        """

    @property
    def pid(self) -> int:
        """Return the ID of the process that was started."""

    def close(self) -> None:
        """Stop the client."""


class ProcessLink:
    """A client that is driven over the standard streams of a child process."""

    def __init__(self, command: Sequence[str | Path], cwd: Path) -> None:
        """Start the process."""
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - see `close`
        self._process = subprocess.Popen(  # noqa: S603 - commands of `runtimes/transformersjs`
            list(map(str, command)),
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            encoding="utf-8",
        )

        self._lines: queue.Queue[str | None] = queue.Queue()
        self._count = 0
        Thread(target=self._read, daemon=True).start()

    @property
    def pid(self) -> int:
        """Return the ID of the process."""
        return self._process.pid

    def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def ask(self, op: str, seconds: float = ANSWER_SECONDS, **fields: object) -> Mapping[str, Any]:
        """Return the answer to one request; lines that are not answers (a native library's output) are skipped.

        Raises:
            ClientError: the client reported an error, exited, or did not answer in time.
        """
        self._count += 1

        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        try:
            self._process.stdin.write(json.dumps({"id": self._count, "op": op, **fields}) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise self._ended() from None

        while True:
            try:
                line = self._lines.get(timeout=seconds)
            except queue.Empty:
                self.close()
                raise ClientError(f"no answer to {op!r} in {seconds:g} s; the client was ended") from None

            if line is None:
                raise self._ended()

            answer = _answer(line)
            if answer is not None and answer.get("id") in (self._count, None):
                return accepted(answer)

    def _ended(self) -> ClientError:
        status = self._process.wait(10)
        self._errors.seek(0)
        tail = self._errors.read()[-1500:].strip()
        return ClientError(f"the client ended by itself with status {status}: {tail or 'it said nothing'}")

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait(10)

        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                try:
                    stream.close()
                except OSError:  # pending input has no reader any more
                    continue


def _answer(line: str) -> Mapping[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) and "id" in value else None


def accepted(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the answer, unless it reports an error.

    Raises:
        ClientError: the answer reports an error; the message includes the last lines that the library printed.
    """
    if (error := answer.get("error")) is None:
        return answer
    logs = " | ".join(map(str, answer.get("logs") or ()))[-600:]
    raise ClientError(f"{error}" + (f" (it printed: {logs})" if logs else ""))
