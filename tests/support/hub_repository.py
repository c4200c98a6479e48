"""A Hub on the loopback interface that repositories can be published to: commits, pull requests, faults on demand.

It speaks what huggingface_hub 2.4 asks for one model after another: create, look, pre-upload, LFS batch and PUT,
validate-yaml, commit, whoami, discussions, and tree and resolve for what is read back.
"""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from threading import RLock, Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from hub_server import QuietServer, git_hash, sha256

TOKEN = "hf_SecretTokenThatNobodyMaySee"
USER = "somebody"
LARGE = (".onnx", ".bin", ".safetensors", ".xml", ".pt")
"""Suffixes of files that this Hub stores apart from git."""
LOST, DROPPED = "lost", "dropped"
"""Faults: the work is done and the answer is lost; or the connection is closed before anything is done."""
ROUTES = {
    "whoami": ("GET", r"/api/whoami-v2"),
    "create": ("POST", r"/api/repos/create"),
    "validate": ("POST", r"/api/validate-yaml"),
    "info": ("GET", r"/api/models/(?P<id>[^/]+/[^/]+)/revision/(?P<revision>[^/]+)"),
    "tree": ("GET", r"/api/models/(?P<id>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)"),
    "discussions": ("GET", r"/api/models/(?P<id>[^/]+/[^/]+)/discussions"),
    "preupload": ("POST", r"/api/models/(?P<id>[^/]+/[^/]+)/preupload/(?P<revision>[^/]+)"),
    "commit": ("POST", r"/api/models/(?P<id>[^/]+/[^/]+)/commit/(?P<revision>[^/]+)"),
    "batch": ("POST", r"/(?P<id>[^/]+/[^/]+)\.git/info/lfs/objects/batch"),
    "put": ("PUT", r"/storage/(?P<oid>[0-9a-f]{64})"),
    "storage": ("(GET|HEAD)", r"/storage/(?P<oid>[0-9a-f]{64})"),
    "resolve": ("(GET|HEAD)", r"/(?P<id>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)"),
}
OPEN_TO_ALL = frozenset({"info", "tree", "resolve", "storage", "put", "validate"})
"""Requests that need no token; storage is another host, which must never see one."""
Files = Mapping[str, bytes]


@dataclass
class Repository:
    """One model: `commits` holds the files of each, `refs` the head of each branch, `messages` what commits say."""

    commits: dict[str, Files] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    pulls: list[dict[str, Any]] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    def add(self, files: Files, ref: str = "main") -> str:
        """Make a commit by hand, as somebody else would; return its name."""
        oid = hashlib.sha1(f"{len(self.commits)} {ref} {sorted(files)}".encode()).hexdigest()
        self.commits[oid], self.refs[ref] = dict(files), oid
        return oid

    def at(self, revision: str) -> Files | None:
        return self.commits.get(self.refs.get(revision, revision))

    @property
    def head(self) -> Files:
        return self.commits[self.refs["main"]]


@dataclass
class WritableHub:
    """All repositories, and what goes wrong.

    Attributes:
        repositories: id -> repository.
        faults: request -> what happens at its next calls: a status, `LOST` or `DROPPED`; None for nothing.
        always: request -> the status of every answer to it.
        lies: file -> the digest that is given of it.
        ignored: files that this Hub's .gitignore leaves out.
        before: request -> what happens just before its next call.
        requests: the requests so far, each with its Authorization header.
        stored: sha256 -> bytes.
        front_matter: what is wrong with every card, if anything.
    cards: repository -> what its front matter says.
    """

    repositories: dict[str, Repository] = field(default_factory=dict)
    faults: dict[str, list[int | str | None]] = field(default_factory=dict)
    always: dict[str, int] = field(default_factory=dict)
    lies: dict[str, str] = field(default_factory=dict)
    ignored: set[str] = field(default_factory=set)
    before: dict[str, Callable[[], object]] = field(default_factory=dict)
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    stored: dict[str, bytes] = field(default_factory=dict)
    front_matter: str | None = None
    cards: dict[str, Mapping[str, object]] = field(default_factory=dict)
    endpoint: str = ""
    storage: str = ""
    lock: RLock = field(default_factory=RLock)

    def asked(self, name: str) -> int:
        """Return how often a request came."""
        return sum(one == name for one, _ in self.requests)


class Refusal(Exception):
    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: WritableHub

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        pass

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        address = urlsplit(self.path)
        matches = {name: re.fullmatch(pattern, address.path) for name, (_, pattern) in ROUTES.items()}
        fitting = [name for name, match in matches.items() if match and re.fullmatch(ROUTES[name][0], self.command)]
        if not fitting:
            self._send(404, b"{}", {})
            return
        name, match = fitting[0], matches[fitting[0]]

        hub, token = self.hub, self.headers.get("Authorization")
        values = {key: unquote(value) for key, value in match.groupdict().items()}
        values |= {key: one[-1] for key, one in parse_qs(address.query).items()}
        with hub.lock:
            hub.requests.append((name, token))
            if happens := hub.before.pop(name, None):
                happens()
            fault = hub.always.get(name) or (hub.faults.get(name) or [None]).pop(0)
            if fault == DROPPED:
                self.close_connection = True
                return
            try:
                if isinstance(fault, int):
                    raise Refusal(fault, message=f"you sent {token}")
                if name not in OPEN_TO_ALL and token != f"Bearer {TOKEN}":
                    raise Refusal(401, message="Invalid credentials in Authorization header")
                answer = getattr(self, f"_{name}")(values, body)
            except Refusal as refusal:
                headers = {"X-Error-Code": refusal.code} if refusal.code else {}
                headers |= {"X-Error-Message": refusal.message} if refusal.message else {}
                answer = refusal.status, {"error": refusal.message}, headers
        if fault == LOST:
            self.close_connection = True
            return
        status, content, headers = answer
        packed = content if isinstance(content, bytes) else json.dumps(content).encode()
        self._send(status, packed, headers)

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _found(self, values: Mapping[str, str]) -> Repository:
        repository = self.hub.repositories.get(values["id"])
        if repository is None:
            raise Refusal(404, "RepoNotFound", "Repository not found")
        return repository

    def _files(self, values: Mapping[str, str]) -> tuple[str, Files]:
        repository, revision = self._found(values), values["revision"]
        files = repository.at(revision)
        if files is None:
            raise Refusal(404, "RevisionNotFound", "Invalid rev id")
        return repository.refs.get(revision, revision), files

    def _whoami(self, values: Mapping[str, str], body: bytes) -> tuple[int, object, Mapping[str, str]]:
        return 200, {"name": USER, "type": "user"}, {}

    def _create(self, values: Mapping[str, str], body: bytes) -> tuple[int, object, Mapping[str, str]]:
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.hub.repositories:
            raise Refusal(409, message="You already created this model repo")
        self.hub.repositories[name] = Repository()
        self.hub.repositories[name].add({".gitattributes": b"*.onnx filter=lfs\n"})
        return 200, {"url": f"{self.hub.endpoint}/{name}"}, {}

    def _validate(self, values: Mapping[str, str], body: bytes) -> tuple[int, object, Mapping[str, str]]:
        if self.hub.front_matter:
            return 400, {"errors": [{"message": self.hub.front_matter}], "warnings": []}, {}
        return 200, {"errors": [], "warnings": []}, {}

    def _info(self, values: Mapping[str, str], body: bytes) -> tuple[int, object, Mapping[str, str]]:
        oid, files = self._files(values)
        siblings = []
        for name, content in files.items():
            sibling: dict[str, object] = {"rfilename": name, "size": len(content)}
            sibling["blobId"] = self.hub.lies.get(name, git_hash(content))
            if name.endswith(LARGE):
                digest = self.hub.lies.get(name, sha256(content))
                sibling["lfs"] = {"size": len(content), "sha256": digest, "pointerSize": 130}
            siblings.append(sibling)
        name = values["id"]
        card = {"cardData": dict(self.hub.cards[name])} if name in self.hub.cards else {}
        return 200, {"_id": "1", "id": name, "modelId": name, "sha": oid, "siblings": siblings, **card}, {}

    def _tree(self, values: Mapping[str, str], body: bytes) -> tuple[int, object, Mapping[str, str]]:
        entries = []
        for name, content in self._files(values)[1].items():
            lfs = {"oid": sha256(content), "size": len(content), "pointerSize": 130} if name.endswith(LARGE) else None
            entries.append({"type": "file", "path": name, "size": len(content), "oid": git_hash(content), "lfs": lfs})
        return 200, entries, {}

    def _discussions(self, values: Mapping[str, str], body: bytes) -> tuple[int, object, Mapping[str, str]]:
        pulls = [one for one in self._found(values).pulls if one["author"]["name"] == values.get("author")]
        return 200, {"count": len(pulls), "start": 0, "discussions": pulls}, {}

    def _preupload(self, values: Mapping[str, str], body: bytes) -> tuple[int, object, Mapping[str, str]]:
        _, there = self._files(values)
        files = []
        for one in json.loads(body)["files"]:
            name = one["path"]
            large = name.endswith(LARGE)
            known = there.get(name)
            digest = None if known is None else sha256(known) if large else git_hash(known)
            mode = "lfs" if large else "regular"
            files.append({"path": name, "uploadMode": mode, "shouldIgnore": name in self.hub.ignored, "oid": digest})
        return 200, {"files": files}, {}

    def _batch(self, values: Mapping[str, str], body: bytes) -> tuple[int, object, Mapping[str, str]]:
        self._found(values)
        objects = []
        for one in json.loads(body)["objects"]:
            upload = {"upload": {"href": f"{self.hub.storage}/storage/{one['oid']}"}}
            objects.append(one if one["oid"] in self.hub.stored else one | {"actions": upload})
        return 200, {"transfer": "basic", "objects": objects}, {}

    def _put(self, values: Mapping[str, str], body: bytes) -> tuple[int, object, Mapping[str, str]]:
        if sha256(body) != values["oid"]:
            raise Refusal(400, message="other bytes than their name says")
        self.hub.stored[values["oid"]] = body
        return 200, {}, {}

    def _commit(self, values: Mapping[str, str], body: bytes) -> tuple[int, object, Mapping[str, str]]:
        repository = self._found(values)
        head, *items = [json.loads(line) for line in body.splitlines()]
        parent = head["value"]["parentCommit"]
        proposes = values.get("create_pr") == "1"
        if not proposes and repository.refs.get(values["revision"]) != parent:
            raise Refusal(412, message="A commit has happened since. Please refresh and try again.")
        files = dict(repository.commits[parent])
        for item in items:
            kind, value = item["key"], item["value"]
            if kind == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif kind == "lfsFile":
                if value["oid"] not in self.hub.stored:
                    raise Refusal(400, message="LFS pointer pointed to a file that does not exist")
                files[value["path"]] = self.hub.stored[value["oid"]]
            else:
                assert kind == "deletedFile"
                del files[value["path"]]
        repository.messages.append(head["value"]["description"])
        number = len(repository.pulls) + 1
        oid = repository.add(files, f"refs/pr/{number}" if proposes else values["revision"])
        answer = {"commitUrl": f"{self.hub.endpoint}/{values['id']}/commit/{oid}", "commitOid": oid}
        if proposes:
            repository.pulls.append(pull(values["id"], number, head["value"]["summary"]))
            answer["pullRequestUrl"] = f"{self.hub.endpoint}/{values['id']}/discussions/{number}"
        return 200, answer, {}

    def _resolve(self, values: Mapping[str, str], body: bytes) -> tuple[int, object, Mapping[str, str]]:
        oid, files = self._files(values)
        name = values["file"]
        if name not in files:
            raise Refusal(404, "EntryNotFound", "Entry not found")
        content, headers = files[name], {"X-Repo-Commit": oid}
        if not name.endswith(LARGE):
            return 200, content, headers | {"ETag": f'"{git_hash(content)}"'}
        self.hub.stored[sha256(content)] = content
        headers |= {"X-Linked-ETag": f'"{sha256(content)}"', "X-Linked-Size": str(len(content))}
        return 302, b"", headers | {"Location": f"{self.hub.storage}/storage/{sha256(content)}"}

    def _storage(self, values: Mapping[str, str], body: bytes) -> tuple[int, object, Mapping[str, str]]:
        return 200, self.hub.stored[values["oid"]], {}


def pull(repository: str, number: int, title: str, author: str = USER) -> dict[str, Any]:
    """Return a pull request as the Hub tells of it."""
    return {
        "title": title, "num": number, "author": {"name": author}, "createdAt": "2026-01-01T00:00:00.000Z",
        "status": "open", "repo": {"name": repository, "type": "model"}, "isPullRequest": True,
    }  # fmt: skip


@contextmanager
def serve_writable(hub: WritableHub) -> Iterator[WritableHub]:
    """Run the API and, on another port as on another host, the storage."""
    handler = type("WritableHubHandler", (Handler,), {"hub": hub})
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
