"""Enforces a size limit and a minimum speed on a transfer from the Hub."""

import time
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING

from bge_export.errors import HubError

if TYPE_CHECKING:
    from httpx2 import Response

STALL_SECONDS = 60.0
"""How long a transfer may run without `LEAST_BYTES` arriving; waiting for another process's lock does not count."""
LEAST_BYTES = 32 * 1024
OTHER_BYTES = 1 << 20
"""The size limit of an answer that is not the file itself (an error page, a redirect)."""


@dataclass
class Transfer:
    """Limits and progress of one call of huggingface_hub.

    Attributes:
        what: the model and file, for messages.
        most_bytes: the size that the Hub promised, or the limit for the file's kind if it promised none.
        answers: how many times those bytes may be sent, since broken transfers start again.
        sending_seconds: how much longer it may wait for an answer, because it sends a file first.
    """

    what: str
    most_bytes: int
    answers: int = 1
    sending_seconds: float = 0.0
    stopped: bool = False
    _received: int = 0
    _since_mark: int = 0
    _idle_seconds_spent: float = 0.0
    _busy_since: float | None = None
    _response: "Response | None" = None
    _lock: Lock = field(default_factory=Lock)

    def begin(self) -> None:
        """Record that a request is sent."""
        self.refuse_if_over()
        with self._lock:
            self._pause()
            self._busy_since = time.monotonic()

    def end(self) -> None:
        """Record that an answer has ended."""
        with self._lock:
            self._pause()
            self._response = None

    def receive(self, size: int) -> None:
        """Record bytes that arrived.

        Raises:
            HubError: the transfer was stopped or has stalled, or more bytes arrived than were promised.
        """
        with self._lock:
            self._received += size
            self._since_mark += size
            if self._since_mark >= LEAST_BYTES:
                self._since_mark, self._idle_seconds_spent, self._busy_since = 0, 0.0, time.monotonic()

        self.refuse_if_over()
        if self._received > self.answers * (self.most_bytes + OTHER_BYTES):
            raise self.too_large()

    def refuse_if_over(self) -> None:
        """Raise HubError if the transfer was stopped or has stalled."""
        if self.stopped or self.stalls():
            raise self.stalled()

    def stalls(self) -> bool:
        """Return whether fewer than `LEAST_BYTES` arrived in `STALL_SECONDS` of waiting for the network."""
        with self._lock:
            running = 0.0 if self._busy_since is None else time.monotonic() - self._busy_since
            return self._idle_seconds_spent + running > STALL_SECONDS + self.sending_seconds

    def watch(self, response: "Response") -> None:
        """Remember the answer whose connection is closed if the transfer is stopped."""
        with self._lock:
            self._response = response

    def stop(self) -> None:
        """End the transfer: its thread wakes up, and the library removes its temporary file."""
        with self._lock:
            self.stopped = True
            stream = self._response.extensions.get("network_stream") if self._response is not None else None

        # Shutting the socket down wakes the thread, which may be blocked in a read.
        connection = stream.get_extra_info("socket") if stream is not None else None
        if connection is not None:
            try:
                connection.shutdown(2)
            except OSError:
                return  # the connection is already closed

    def stalled(self) -> HubError:
        """Return the error for a stalled transfer."""
        seconds = STALL_SECONDS + self.sending_seconds
        return HubError(
            f"{self.what}: the transfer stalled: less than {LEAST_BYTES // 1024} KiB came in {seconds:.0f} seconds. "
            "Check the network, HF_ENDPOINT and the proxy, and run the command again."
        )

    def too_large(self) -> HubError:
        """Return the error for an answer that exceeds its size limit."""
        return HubError(
            f"{self.what}: the Hub sends more than the {self.most_bytes} bytes it may, so the transfer was stopped. "
            "A proxy or mirror changes the file: check HF_ENDPOINT."
        )

    def _pause(self) -> None:
        if self._busy_since is not None:
            self._idle_seconds_spent += time.monotonic() - self._busy_since
        self._busy_since = None
