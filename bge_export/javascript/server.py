"""A loopback HTTP server for clients that load files and take requests by URL: web builds and pages.

Everything lies below a one-time token, so that no other page or program on the machine can find it. A page fetches its
next request (`next`) and posts the result (`answer`). The server records the files it served, because the bytes that a
client fetched prove what it loaded.
"""

import queue
import secrets
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bge_export.errors import ClientError, MeasurementError
from bge_export.javascript.channel import Channel
from bge_export.javascript.connections import Server
from bge_export.javascript.handler import OWN, Handler
from bge_export.javascript.process import ANSWER_SECONDS, accepted

PAGES = 64
"""Maximum number of pages, so that nobody who has the address can fill the memory."""


class Loopback:
    """The server, which runs from its construction until `close`."""

    def __init__(self, folders: Mapping[str, Path], host: str = "127.0.0.1") -> None:
        """Serve folders below their names.

        Args:
            folders: path below the token, such as `lib` -> folder.
            host: the address to listen on; by default loopback, which no other machine can reach.

        Raises:
            MeasurementError: the address does not belong to this machine.
        """
        self.folders = {name: folder.resolve() for name, folder in folders.items()}
        self.token = secrets.token_urlsafe(16)
        self.served: list[str] = []
        self.greetings: queue.Queue[Mapping[str, Any]] = queue.Queue()

        self._channels = {OWN: Channel()}
        self._greeting = threading.Lock()

        self._host = host
        try:
            self._server = Server(self, host, Handler)
        except OSError as error:
            raise MeasurementError(
                f"cannot listen on {host}: {error.strerror}. Give an address of this machine."
            ) from error

        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def address(self) -> str:
        """Return the base URL of all served paths, with a trailing slash."""
        return f"http://{self._host}:{self._server.server_port}/{self.token}/"

    def channel(self, page: str) -> Channel | None:
        """Return the channel of a page; None if it has not sent a greeting."""
        return self._channels.get(page)

    def greet(self, greeting: Mapping[str, Any]) -> None:
        """Register a page that identifies itself."""
        page = greeting.get("page")
        with self._greeting:
            if isinstance(page, str) and page not in self._channels and len(self._channels) < PAGES:
                self._channels[page] = Channel()
                self.greetings.put(greeting)

    def file_at(self, name: str) -> Path | None:
        """Return the file behind a path below the token; None if no such file exists, or it lies outside its folder."""
        for prefix, folder in self.folders.items():
            if name.startswith(f"{prefix}/"):
                try:
                    path = (folder / name.removeprefix(f"{prefix}/")).resolve()
                    if path.is_relative_to(folder) and path.is_file():
                        return path
                except (OSError, ValueError):  # not a valid file name: too long, or with a null byte
                    return None
        return None

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()


class PageLink:
    """A page that fetches its requests from a `Loopback`."""

    def __init__(self, loopback: Loopback, page: str = OWN) -> None:
        """Wrap one page of the server."""
        channel = loopback.channel(page)
        assert channel is not None  # noqa: S101 - the page has sent its greeting before
        self._channel = channel
        self._count = 0

    @property
    def pid(self) -> int:
        """Return the ID of the browser's process; 0 if it was not started here."""
        return 0

    def ended(self) -> str | None:
        """Return why no further answer can arrive; None while the page may be alive."""
        return None

    def ask(self, op: str, seconds: float = ANSWER_SECONDS, **fields: object) -> Mapping[str, Any]:
        """Return the answer to one request.

        Raises:
            ClientError: the page reported an error, its browser exited, or it did not answer in time.
        """
        self._count += 1
        self._channel.requests.put({"id": self._count, "op": op, **fields})

        # Wait in short steps, to notice early that the browser has exited.
        last = time.monotonic() + seconds
        while time.monotonic() < last:
            try:
                answer = self._channel.answers.get(timeout=0.5)
            except queue.Empty:
                if (why := self.ended()) is not None:
                    raise ClientError(why) from None
                continue

            if answer.get("id") in (self._count, None):
                return accepted(answer)

        self.close()
        raise ClientError(f"no answer to {op!r} in {seconds:g} s; the browser was ended")

    def close(self) -> None:
        """Do nothing; `ChromiumLink` stops the browser that it started."""
