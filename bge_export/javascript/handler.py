"""Request handler of the loopback server: files, requests for pages, their greetings and their answers.

A malformed request gets an HTTP status, never a traceback on the terminal of the person who waits for a browser.
"""

import json
import os
import queue
import secrets
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from bge_export.javascript.connections import REQUEST_SECONDS, Server

TYPES: Mapping[str, str] = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".json": "application/json",
    ".wasm": "application/wasm",
    ".css": "text/css",
}
OWN = "own"
"""The page without a name: the only one, in a browser that was started for it."""

POLL_SECONDS = 20.0
PIECE_BYTES = 1 << 20
ANSWER_BYTES = 64 << 20
GREETING_BYTES = 64 << 10


class Handler(BaseHTTPRequestHandler):
    """Handles one connection: files, the page's next request, its greeting, its answers."""

    protocol_version = "HTTP/1.1"
    timeout = REQUEST_SECONDS  # per call, in case the system does not wake it when the connection is shut down
    server: Server
    raw_requestline: bytes

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the library's
        """Print nothing."""

    def parse_request(self) -> bool:
        """Parse the request if its first line contains the token, else refuse it."""
        words = self.raw_requestline.split()
        self.path = words[1].decode("latin-1") if len(words) > 1 else ""
        if self._name() is None:
            self.command, self.requestline, self.request_version = "", "", self.protocol_version
            self._refuse(404)
            return False

        self.server.allow(self.connection)
        whole = super().parse_request()
        return self.server.allow(self.connection) and whole  # a truncated head parses as complete

    def handle_one_request(self) -> None:
        """Handle one request; the next one gets a new deadline."""
        super().handle_one_request()
        if not self.server.allow(self.connection):
            self.close_connection = True

    def _name(self) -> str | None:
        """Return the path below the token; None if the token is missing or wrong."""
        path = self.path.partition("?")[0].lstrip("/")
        token, _, name = path.partition("/")
        return name if secrets.compare_digest(token.encode(), self.server.loopback.token.encode()) else None

    def _page(self) -> str:
        """Return the name of the requesting page."""
        return parse_qs(self.path.partition("?")[2]).get("page", [OWN])[0]

    def do_HEAD(self) -> None:
        """Report whether a file exists."""
        self.do_GET()

    def do_GET(self) -> None:
        """Send a file, or the page's next request."""
        name = self._name() or ""
        channel = self.server.loopback.channel(self._page())
        if name == "next" and channel is not None:
            self.server.allow(self.connection, POLL_SECONDS)
            try:
                body = json.dumps(channel.requests.get(timeout=POLL_SECONDS)).encode()
            except queue.Empty:
                self._send(204)
            else:
                self._send(200, "application/json", body)
            return

        path = self.server.loopback.file_at(name)
        if path is None:
            self._send(404)
        else:
            self._send_file(name, path)

    def do_POST(self) -> None:
        """Accept an answer or a greeting of a page."""
        name, channel = self._name(), self.server.loopback.channel(self._page())
        limit = {"hello": GREETING_BYTES, "answer": ANSWER_BYTES if channel else 0}.get(name or "", 0)
        if not limit:
            self._refuse(404)
            return

        size = _size(self.headers.get("Content-Length"))
        if not 0 < size <= limit:
            self._refuse(413 if size > limit else 400)
            return

        value = self._read_object(size)
        if value is None:
            self._refuse(400)
        elif name == "answer" and channel is not None:
            try:
                channel.answers.put_nowait(value)
            except queue.Full:  # more answers than requests
                self._send(503)
            else:
                self._send(204)
        else:
            self.server.loopback.greet(value)
            self._send(204)

    def _read_object(self, size: int) -> dict[str, Any] | None:
        """Return the JSON object in the body; None if the body is truncated or not a JSON object."""
        body = self.rfile.read(size)
        try:
            value = json.loads(body) if len(body) == size else None
        except (ValueError, RecursionError):
            return None
        return value if isinstance(value, dict) else None

    def _send_file(self, name: str, path: Path) -> None:
        """Send a file in chunks, and record that it was fetched."""
        try:
            file = path.open("rb")
        except OSError:  # it was deleted in the meantime
            self._send(404)
            return

        with file:
            if self.command == "GET" and name not in self.server.loopback.served:
                self.server.loopback.served.append(name)

            self._send_head(200, TYPES.get(path.suffix, "application/octet-stream"), os.fstat(file.fileno()).st_size)
            while self.command == "GET" and (piece := file.read(PIECE_BYTES)):
                self.server.allow(self.connection)
                self.wfile.write(piece)

    def _refuse(self, status: int) -> None:
        """Send a status and close the connection, whatever else arrives on it."""
        self.close_connection = True
        self._send(status)

    def _send(self, status: int, kind: str = "text/plain", body: bytes = b"") -> None:
        self._send_head(status, kind, len(body))
        if self.command != "HEAD":
            self.wfile.write(body)

    def _send_head(self, status: int, kind: str, size: int) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(size))
        self.send_header("Cache-Control", "no-store")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()


def _size(text: str | None) -> int:
    """Return the declared length of the body in bytes; -1 if it is missing or malformed."""
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 19 else -1
