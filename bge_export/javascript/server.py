"""A server on loopback for clients that take files and requests by address: web builds and pages.

Everything lies below a one-time token, so that no other page or program of the machine finds it. A page fetches its
next request (`next`) and sends back what it found (`answer`); what was served is kept, because the bytes that a client
fetched are the proof of what it loaded.
"""

import json
import queue
import secrets
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from bge_export.errors import ClientError, MeasurementError
from bge_export.javascript.process import ANSWER_SECONDS, accepted

TYPES: Mapping[str, str] = {
    ".html": "text/html; charset=utf-8", ".js": "text/javascript", ".mjs": "text/javascript",
    ".json": "application/json", ".wasm": "application/wasm", ".css": "text/css",
}  # fmt: skip
POLL_SECONDS = 20.0
ANSWER_BYTES = 64 << 20


OWN = "own"
"""The page that has no name: the only one, in a browser that was started for it."""

PAGES = 64
"""How many pages may come, so that nobody who has the address fills the memory."""


@dataclass(frozen=True)
class Channel:
    """What goes to one page, and what comes from it."""

    requests: "queue.Queue[Mapping[str, Any]]" = field(default_factory=queue.Queue)
    answers: "queue.Queue[Mapping[str, Any]]" = field(default_factory=queue.Queue)


class Loopback:
    """The server, from its making until `close`."""

    def __init__(self, folders: Mapping[str, Path], host: str = "127.0.0.1") -> None:
        """Serve folders below their names.

        Args:
            folders: path below the token, such as `lib` -> folder.
            host: the address to listen on; loopback, so that no other machine reaches it, unless the user says so.

        Raises:
            MeasurementError: the address is not one of this machine's.
        """
        self.folders = {name: folder.resolve() for name, folder in folders.items()}
        self.token = secrets.token_urlsafe(16)
        self.served: list[str] = []
        self.greetings: queue.Queue[Mapping[str, Any]] = queue.Queue()
        self._channels = {OWN: Channel()}
        self._host = host
        try:
            self._server = _Server((host, 0), partial(_Handler, self))
        except OSError as error:
            raise MeasurementError(
                f"cannot listen on {host}: {error.strerror}. Give an address of this machine."
            ) from error
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def address(self) -> str:
        """Return the address below which everything lies, with its slash."""
        return f"http://{self._host}:{self._server.server_port}/{self.token}/"

    def channel(self, page: str) -> Channel | None:
        """Return the channel of a page; None for one that did not greet."""
        return self._channels.get(page)

    def greet(self, greeting: Mapping[str, Any]) -> None:
        """Take in a page that says who it is."""
        page = greeting.get("page")
        if isinstance(page, str) and page not in self._channels and len(self._channels) < PAGES:
            self._channels[page] = Channel()
            self.greetings.put(greeting)

    def file_at(self, name: str) -> Path | None:
        """Return the file behind a path below the token; None where there is none, or it lies outside its folder."""
        for prefix, folder in self.folders.items():
            if name.startswith(f"{prefix}/"):
                path = (folder / name.removeprefix(f"{prefix}/")).resolve()
                if path.is_relative_to(folder) and path.is_file():
                    return path
        return None

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing where a client ends a connection: version 4 does after each look whether a file is there."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    """One request: a file, the page's next task, or its answer."""

    protocol_version = "HTTP/1.1"

    def __init__(self, loopback: Loopback, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - http.server's own
        self._loopback = loopback
        super().__init__(*args, **kwargs)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the library's
        """Print nothing."""

    def _name(self) -> str | None:
        """Return the path below the token; None without it."""
        path = self.path.partition("?")[0].removeprefix("/")
        token, _, name = path.partition("/")
        return name if secrets.compare_digest(token.encode(), self._loopback.token.encode()) else None

    def _page(self) -> str:
        """Return the name of the page that asks."""
        return parse_qs(urlsplit(self.path).query).get("page", [OWN])[0]

    def do_HEAD(self) -> None:
        """Say whether a file is there."""
        self.do_GET()

    def do_GET(self) -> None:
        """Send a file or the next request."""
        name = self._name()
        channel = self._loopback.channel(self._page())
        if name == "next" and channel is not None:
            try:
                body = json.dumps(channel.requests.get(timeout=POLL_SECONDS)).encode()
                self._send(200, "application/json", body)
            except queue.Empty:
                self._send(204, "application/json", b"")
            return
        path = None if name is None else self._loopback.file_at(name)
        if name is None or path is None:
            self._send(404, "text/plain", b"")
            return
        if self.command == "GET":
            self._loopback.served.append(name)
        self._send(200, TYPES.get(path.suffix, "application/octet-stream"), path.read_bytes())

    def do_POST(self) -> None:
        """Take an answer, or a page that greets."""
        size = int(self.headers.get("Content-Length") or 0)
        name, channel = self._name(), self._loopback.channel(self._page())
        known = name == "hello" or (name == "answer" and channel is not None)
        if not known or not 0 < size <= ANSWER_BYTES:
            self.close_connection = True
            self._send(404, "text/plain", b"")
            return
        try:
            value = json.loads(self.rfile.read(size))
        except ValueError:
            value = None
        if not isinstance(value, dict):
            self._send(400, "text/plain", b"")
            return
        if name == "answer" and channel is not None:
            channel.answers.put(value)
        else:
            self._loopback.greet(value)
        self._send(204, "text/plain", b"")

    def _send(self, status: int, kind: str, body: bytes) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)
        except OSError:  # the client is gone; whoever waits for its answer says so
            self.close_connection = True


class PageLink:
    """The page that fetches its requests from a `Loopback`."""

    def __init__(self, loopback: Loopback, page: str = OWN) -> None:
        """Wrap the server and one of its pages."""
        channel = loopback.channel(page)
        assert channel is not None  # noqa: S101 - pages are greeted before
        self._channel = channel
        self._count = 0

    @property
    def pid(self) -> int:
        """Return the number of the browser's process; 0 where it was not started here."""
        return 0

    def ended(self) -> str | None:
        """Return why no answer can come any more; None while the page may live."""
        return None

    def ask(self, op: str, seconds: float = ANSWER_SECONDS, **fields: object) -> Mapping[str, Any]:
        """Return the answer to one request.

        Raises:
            ClientError: the page said no, its browser ended, or it did not answer in time.
        """
        self._count += 1
        self._channel.requests.put({"id": self._count, "op": op, **fields})
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
        """Forget the page."""
