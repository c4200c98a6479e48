"""A Hub on the loopback interface: the endpoints that huggingface_hub 2.4 calls for a model, and faults on demand.

As on the Hub, small files come from the API's host with git's blob hash as ETag, and large ones (`*.safetensors`) are
redirected to another host, with their sha256 in `X-Linked-ETag`.
"""

import gzip
import hashlib
import json
import re
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from time import sleep
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" * 6 + "beef"
MOST_SECONDS = 20
"""How long a silent connection stays open."""
ENDLESS_BYTES = 64 << 20
"""Where a file without end ends after all."""
API = re.compile(r"/api/models/(?P<id>.+?)/revision/(?P<revision>[^/]+)")
FILE = re.compile(r"/(?:storage|.+?/resolve/[^/]+)/(?P<file>.+)")
RESOLVE = re.compile(r"/(?P<id>.+?)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")


@dataclass
class Hub:
    """One model on the server, and what goes wrong with it.

    Attributes:
        model_id: the only model there is.
        files: name -> content.
        cut: name -> how many bytes are sent before the first connection for it ends in an orderly way.
        reset: name -> how many bytes are sent before the first connection for it is reset.
        served: name -> other bytes to send than those that were promised.
        etags: name -> the ETag to give instead of the digest.
        commit: the commit that answers about files name.
        endless: names of files that do not end: their bytes are sent again and again, without a length.
        drip: name -> how many bytes are sent before the connection only drips, a byte every tenth of a second.
        silent: name -> how many bytes are sent before the connection stays open and says nothing more.
        packed: names of files that are sent packed with gzip, whatever the client accepts.
        sent: name -> how many bytes of it were sent in all.
        refusal: status, error code and message of every answer, if any.
        refuse_files: whether only files are refused, as for gated models.
        endpoint: where the API is; set by `serve`.
        storage: where large files are; set by `serve`.
        requests: method, path, Range header and Authorization header of each request so far.
    """

    model_id: str
    files: Mapping[str, bytes]
    cut: dict[str, int] = field(default_factory=dict)
    reset: dict[str, int] = field(default_factory=dict)
    served: dict[str, bytes] = field(default_factory=dict)
    etags: dict[str, str] = field(default_factory=dict)
    commit: str = COMMIT
    endless: set[str] = field(default_factory=set)
    drip: dict[str, int] = field(default_factory=dict)
    silent: dict[str, int] = field(default_factory=dict)
    packed: set[str] = field(default_factory=set)
    sent: dict[str, int] = field(default_factory=dict)
    refusal: tuple[int, str, str] | None = None
    refuse_files: bool = False
    endpoint: str = ""
    storage: str = ""
    requests: list[tuple[str, str, str | None, str | None]] = field(default_factory=list)

    def info(self) -> dict[str, object]:
        """Return what the API says of the model with `blobs=True`."""
        siblings = []
        for name, content in self.files.items():
            sibling: dict[str, object] = {"rfilename": name, "size": len(content), "blobId": git_hash(content)}
            if is_large(name):
                sibling["lfs"] = {"size": len(content), "sha256": sha256(content), "pointerSize": 130}
            siblings.append(sibling)
        return {"_id": "1", "id": self.model_id, "modelId": self.model_id, "sha": COMMIT, "siblings": siblings}

    def fetched(self) -> set[str]:
        """Return the names of files whose bytes were asked for."""
        paths = [path for method, path, _, _ in self.requests if method == "GET"]
        names = [FILE.fullmatch(path) for path in paths]
        return {name["file"] for name in names if name}


def is_large(name: str) -> bool:
    return name.endswith(".safetensors")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        pass

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        headers = self.headers
        self.hub.requests.append((self.command, path, headers.get("Range"), headers.get("Authorization")))
        if path.startswith("/storage/"):
            self._send_content(path.removeprefix("/storage/"))
        elif match := API.fullmatch(path):
            if self._is_refused(match, is_file=False):
                return
            self._send(200, json.dumps(self.hub.info()).encode(), {"Content-Type": "application/json"})
        elif match := RESOLVE.fullmatch(path):
            if not self._is_refused(match, is_file=True):
                self._resolve(match["file"])
        else:
            self._send(404, b"{}", {})

    def _is_refused(self, match: re.Match[str], *, is_file: bool) -> bool:
        refusal = self.hub.refusal if is_file or not self.hub.refuse_files else None
        if refusal is None and match["id"] != self.hub.model_id:
            refusal = (404, "RepoNotFound", "Repository not found")
        elif refusal is None and match["revision"] not in ("main", COMMIT):
            refusal = (404, "RevisionNotFound", "Invalid rev id")
        elif refusal is None and is_file and match["file"] not in self.hub.files:
            refusal = (404, "EntryNotFound", "Entry not found")
        if refusal is None:
            return False
        status, code, message = refusal
        headers = {"X-Error-Code": code, "X-Error-Message": message} if code else {"X-Error-Message": message}
        self._send(status, json.dumps({"error": message}).encode(), headers)
        return True

    def _resolve(self, name: str) -> None:
        content = self.hub.files[name]
        headers = {"X-Repo-Commit": self.hub.commit}
        etag = self.hub.etags.get(name, sha256(content) if is_large(name) else git_hash(content))
        if not is_large(name):
            self._send_content(name, headers | {"ETag": f'"{etag}"'})
            return
        headers |= {"X-Linked-ETag": f'"{etag}"', "X-Linked-Size": str(len(content))}
        self._send(302, b"", headers | {"Location": f"{self.hub.storage}/storage/{name}"})

    def _send_content(self, name: str, headers: Mapping[str, str] | None = None) -> None:
        content = self.hub.served.get(name, self.hub.files[name])
        if self.command == "GET" and name in {*self.hub.endless, *self.hub.drip, *self.hub.silent, *self.hub.packed}:
            self._misbehave(name, content)
            return
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        body, headers = content[start:], dict(headers or {})
        status = 206 if start else 200
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        sends = self.command == "GET"
        stop = self.hub.cut.pop(name, None) if sends else None
        reset = self.hub.reset.pop(name, None) if sends else None
        end = stop if stop is not None else reset
        self._send(status, body, headers, end)
        if end is not None:
            self.wfile.flush()
            self.close_connection = True
        if reset is not None:
            # A linger time of zero makes close() send RST instead of FIN.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def _misbehave(self, name: str, content: bytes) -> None:
        """Send a file in a way that no Hub would, until the client has enough or the test ends."""
        self.close_connection = True
        self.send_response(200)
        if name in self.hub.packed:
            content = gzip.compress(content)
            self.send_header("Content-Encoding", "gzip")
        if name not in self.hub.endless:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        first = self.hub.drip.get(name, self.hub.silent.get(name, len(content)))
        self._count(name, content[:first])
        for position in range(first, len(content)):
            sleep(MOST_SECONDS if name in self.hub.silent else 0.1)
            self._count(name, content[position : position + 1])
        while name in self.hub.endless and self.hub.sent[name] < ENDLESS_BYTES:
            self._count(name, content)

    def _count(self, name: str, content: bytes) -> None:
        self.wfile.write(content)
        self.hub.sent[name] = self.hub.sent.get(name, 0) + len(content)

    def _send(self, status: int, body: bytes, headers: Mapping[str, str], end: int | None = None) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:end])


class QuietServer(ThreadingHTTPServer):
    block_on_close = False  # a connection that stays silent must not hold up the end of a test
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing about connections that end early: that is the matter of the tests."""


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Run the API and, on another port as on another host, the storage."""
    handler = type("HubHandler", (Handler,), {"hub": hub})
    with QuietServer(("127.0.0.1", 0), handler) as api, QuietServer(("127.0.0.1", 0), handler) as storage:
        hub.endpoint = f"http://127.0.0.1:{api.server_address[1]}"
        hub.storage = f"http://127.0.0.1:{storage.server_address[1]}"
        threads = [Thread(target=server.serve_forever, args=(0.05,), daemon=True) for server in (api, storage)]
        for thread in threads:
            thread.start()
        try:
            yield hub
        finally:
            for server in (api, storage):
                server.shutdown()
            for thread in threads:
                thread.join()
