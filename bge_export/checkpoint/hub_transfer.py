"""How much a transfer from the Hub may bring, and how slowly."""

import time
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING

from bge_export.errors import HubError

if TYPE_CHECKING:
    from httpx2 import Response

STALL_SECONDS = 60.0
"""How long a transfer may go on without `LEAST_BYTES`; waiting for another process's lock does not count."""
LEAST_BYTES = 32 * 1024
OTHER_BYTES = 1 << 20
"""What an answer that is not the file itself (an error's page, a redirection) may hold."""


@dataclass
class Transfer:
    """What one call of huggingface_hub may receive, and how it gets on.

    Attributes:
        what: the model and file, for messages.
        most_bytes: the size that the Hub promised, or the limit of the file's kind where it promised none.
        answers: how many times those bytes may be sent, since broken transfers begin again.
    """

    what: str
    most_bytes: int
    answers: int = 1
    stopped: bool = False
    _received: int = 0
    _since_mark: int = 0
    _idle_seconds_spent: float = 0.0
    _busy_since: float | None = None
    _response: "Response | None" = None
    _lock: Lock = field(default_factory=Lock)

    def begin(self) -> None:
        """Note that a request is sent."""
        self.refuse_if_over()
        with self._lock:
            self._pause()
            self._busy_since = time.monotonic()

    def end(self) -> None:
        """Note that an answer has ended."""
        with self._lock:
            self._pause()
            self._response = None

    def receive(self, size: int) -> None:
        """Note bytes that arrived.

        Raises:
            HubError: the transfer was stopped, or sent more than was promised.
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
        """Raise HubError if the transfer was stopped or stalls."""
        if self.stopped or self.stalls():
            raise self.stalled()

    def stalls(self) -> bool:
        """Return whether fewer than `LEAST_BYTES` arrived in `STALL_SECONDS` of waiting for the network."""
        with self._lock:
            running = 0.0 if self._busy_since is None else time.monotonic() - self._busy_since
            return self._idle_seconds_spent + running > STALL_SECONDS

    def watch(self, response: "Response") -> None:
        """Remember the answer whose connection ends when the transfer is stopped."""
        with self._lock:
            self._response = response

    def stop(self) -> None:
        """End the transfer: its thread wakes up, and the library removes its temporary file."""
        with self._lock:
            self.stopped = True
            stream = self._response.extensions.get("network_stream") if self._response is not None else None
        connection = stream.get_extra_info("socket") if stream is not None else None
        if connection is not None:
            try:
                connection.shutdown(2)
            except OSError:
                return  # it has ended by itself

    def stalled(self) -> HubError:
        """Return the error of a transfer that does not get on."""
        return HubError(
            f"{self.what}: the transfer stalled: less than {LEAST_BYTES // 1024} KiB came in {STALL_SECONDS:.0f} "
            "seconds. Check the network, HF_ENDPOINT and the proxy, and run the command again."
        )

    def too_large(self) -> HubError:
        """Return the error of an answer that does not end where it should."""
        return HubError(
            f"{self.what}: the Hub sends more than the {self.most_bytes} bytes it may, so the transfer was stopped. "
            "A proxy or mirror changes the file: check HF_ENDPOINT."
        )

    def _pause(self) -> None:
        if self._busy_since is not None:
            self._idle_seconds_spent += time.monotonic() - self._busy_since
        self._busy_since = None
