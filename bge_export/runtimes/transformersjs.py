"""Transformers.js in Node, Deno, its web build in plain Node, and Chromium: each pinned version is a device.

Token ids go through the client's own model class, so that runtimes and not tokenizers are compared; the client's own
tokenizer and pipeline are asked besides (`capabilities.ClientSession`). Nothing is taken on trust: the bytes that
reached ONNX Runtime must be the artifact's, because clients fall back to another file or to a cache without a word.
"""

import base64
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bge_export.contracts import SENTENCE_EMBEDDING, Artifact, Session, TokenBatch
from bge_export.digest import file_sha256
from bge_export.errors import ArtifactError, ClientError, DeviceUnavailable
from bge_export.javascript.browser import ChromiumLink
from bge_export.javascript.clients import CLIENTS, Client
from bge_export.javascript.packages import JS, find_chromium, find_deno, find_node, packages_folder
from bge_export.javascript.process import OPEN_SECONDS, Link, ProcessLink, peak_bytes
from bge_export.javascript.server import Loopback
from bge_export.pooling import normalize

DENO = ("run", "--allow-read", "--allow-env", "--allow-ffi", "--allow-sys", "--node-modules-dir=manual",
        "--cached-only", "--no-config")  # fmt: skip
"""No network, no writing: what the client needs is on disk."""

FINDERS = {
    "node": (find_node,),
    "deno": (find_deno,),
    "web": (find_node,),
    "chromium": (find_chromium,),
    "webgpu": (find_chromium,),
    "edge": (find_deno,),
}
NO_GPU = ("no WebGPU adapter", "does not support fp16")
"""How a browser without a usable adapter says so; software adapters have no 16-bit shaders."""

DEVICES = (
    *(f"{place}@{name}" for place in ("node", "deno", "web", "chromium") for name in CLIENTS),
    *(f"webgpu@{name}" for name, client in CLIENTS.items() if client.major > 2),
    "edge@3",  # as in Supabase's runtime: the web build in Deno, on a native ONNX Runtime that the host brings
)


class ClientsSession:
    """One model file in one client."""

    def __init__(
        self, link: Link, artifact: Artifact, client: Client, facts: Mapping[str, str], resources: ExitStack
    ) -> None:
        """Wrap an opened client; `resources` end with it."""
        self._link = link
        self._artifact = artifact
        self._client = client
        self._resources = resources
        self.facts = facts

    def embed(self, batch: TokenBatch) -> Mapping[str, NDArray[np.float32]]:
        """Return the embeddings by output, [B, D] float32; the client pooled, and they are normalised here.

        Raises:
            ArtifactError: an output is not float32, which clients pool as if it were.
            ClientError: the client failed.
        """
        arrays = batch.feed(("input_ids", "attention_mask", "token_type_ids"))
        answer = self._link.ask(
            "run", names=list(self._artifact.inputs), outputs=list(self._artifact.outputs),
            dims=list(batch.input_ids.shape), arrays={name: array.ravel().tolist() for name, array in arrays.items()},
        )  # fmt: skip
        return {name: self._rows(name, answer["outputs"][name], len(batch.input_ids)) for name in answer["outputs"]}

    def _rows(self, name: str, given: Mapping[str, Any], count: int) -> NDArray[np.float32]:
        if given["type"] != "float32":
            raise ArtifactError(
                f"{self._artifact.model} gives {name} as {given['type']}, which clients pool as if it were float32. "
                "Export it again with float32 outputs."
            )
        rows = _decoded(given["rows"]).reshape(count, -1)
        wanted = self._artifact.spec.normalize and name != SENTENCE_EMBEDDING
        return normalize(rows) if wanted else rows

    def tokenize(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Return the ids that the client's own tokenizer makes of each text."""
        return [tuple(ids) for ids in self._link.ask("tokenize", texts=list(texts))["ids"]]

    def embed_text(self, text: str) -> NDArray[np.float32]:
        """Return what the client's own pipeline makes of a text, [D] float32."""
        return _decoded(self._link.ask("embed", text=text, by_hand=not self._client.cls)["row"])

    def usage(self) -> tuple[float, int | None]:
        """Return the CPU seconds that the client has used since it started, and its peak memory in bytes if known."""
        cpu = float(self._link.ask("usage")["cpu_seconds"])
        return cpu, peak_bytes(self._link.pid)

    def close(self) -> None:
        """End the client."""
        self._resources.close()


class TransformersJs:
    """Opens ONNX artifacts in Transformers.js."""

    name = "transformersjs"
    formats = frozenset({"onnx"})
    library = "bge-export"  # the clients are no Python distribution; their versions are facts of the lane
    extra = "all"

    def devices(self) -> Mapping[str, str | None]:
        """Return each place and version -> None, or why it cannot be used."""
        return {device: _missing(device) for device in DEVICES}

    def reads(self, artifact: Artifact, device: str) -> bool:
        """Return whether the version has a name for the artifact's file."""
        client = CLIENTS.get(device.partition("@")[2])
        return client is None or client.options(artifact.model) is not None

    def open(self, artifact: Artifact, device: str, threads: int) -> Session:
        """Load the artifact in one client.

        Raises:
            ArtifactError: the client loaded other bytes than the artifact's.
            ClientError: the client failed, ended or hung.
            DeviceUnavailable: a program or the clients' packages are missing.
        """
        if device not in DEVICES:
            raise DeviceUnavailable(f"transformersjs knows no {device!r}; it has {', '.join(DEVICES)}")
        if (why := _missing(device)) is not None:
            raise DeviceUnavailable(f"transformersjs cannot run on {device!r}: {why}")
        place, _, name = device.partition("@")
        client = CLIENTS[name]
        with ExitStack() as stack:
            link, answer = _opened(place, client, artifact, threads, stack)
            facts = {"transformers.js": str(answer.get("version")), "place": place, "loaded": artifact.model}
            return ClientsSession(link, artifact, client, facts, stack.pop_all())


def _missing(device: str) -> str | None:
    """Return why a device cannot be used here, None where it can."""
    try:
        packages_folder()
        for find in FINDERS[device.partition("@")[0]]:
            find()
    except DeviceUnavailable as error:
        return str(error)
    return None


def _opened(
    place: str, client: Client, artifact: Artifact, threads: int, stack: ExitStack
) -> tuple[Link, Mapping[str, Any]]:
    """Start a client on a staged folder, and hold what it loaded against the artifact."""
    options = client.options(artifact.model)
    if options is None:
        raise ArtifactError(f"Transformers.js {client.version} has no name for {artifact.model}")
    spec = artifact.spec
    request = {"options": dict(options), "pooling": spec.pooling, "normalize": spec.normalize, "threads": threads}
    package = packages_folder() / client.package
    if place in ("node", "deno"):
        link, answer = _open_native(place, client, artifact, package, request, stack)
        _refuse_other_bytes(artifact, answer["sessions"])
    else:
        server = Loopback({"models/model": artifact.root, "lib": package, "js": JS})
        stack.callback(server.close)
        link, answer = _open_web(place, client, server, package, request, stack)
        if place == "edge":
            _refuse_other_bytes(artifact, answer["sessions"])
        _refuse_other_file(artifact, server.served)
    return link, answer


def _open_native(
    place: str, client: Client, artifact: Artifact, package: Path, request: Mapping[str, Any], stack: ExitStack
) -> tuple[Link, Mapping[str, Any]]:
    """Open the artifact in a process with the native ONNX Runtime, with an empty cache beside the staged folder."""
    stage = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bge_export-")))
    (stage / "model").symlink_to(artifact.root.resolve(), target_is_directory=True)
    (stage / "cache").mkdir()
    command = [find_node()] if place == "node" else [find_deno(), *DENO]
    link = ProcessLink([*command, JS / "runner.mjs"], stage)
    stack.callback(link.close)
    settings = {"env": {"cacheDir": str(stage / "cache")}}
    answer = link.ask(
        "open", OPEN_SECONDS, library=str(package / client.node), build="native", models=str(stage), settings=settings,
        **request,
    )  # fmt: skip
    return link, answer


def _open_web(
    place: str, client: Client, server: Loopback, package: Path, request: Mapping[str, Any], stack: ExitStack
) -> tuple[Link, Mapping[str, Any]]:
    """Open the artifact in the web build: in Node or Deno, which import scripts from disk alone, or in a page."""
    link: Link
    in_page = place in ("chromium", "webgpu")
    scripts = server.address + "lib" if in_page else package.as_uri()
    library = f"{scripts}/{Client.WEB}" if in_page else str(package / Client.WEB)
    if place == "web":
        link = ProcessLink([find_node(), JS / "runner.mjs"], package)
    elif place == "edge":
        link = ProcessLink([find_deno(), *DENO, "--allow-net=127.0.0.1", JS / "runner.mjs"], package)
    else:
        link = ChromiumLink(server, "js/page.html", webgpu=place == "webgpu")
    stack.callback(link.close)
    # As from the Hub: version 4 does not look for a tokenizer below a local path that is an address.
    env = {"allowLocalModels": False, "allowRemoteModels": True, "remoteHost": f"{server.address}models/",
           "remotePathTemplate": "{model}/", **({"useWasmCache": False} if place == "web" else {})}  # fmt: skip
    settings = {"wasm": {"wasmPaths": _wasm_paths(client, server, scripts), "numThreads": 1}, "env": env}
    device = {"webgpu": {"device": "webgpu"}, "edge": {"device": "auto"}}.get(place, {})
    options = {**request["options"], **device}
    try:
        answer = link.ask(
            "open", OPEN_SECONDS, library=library, build="edge" if place == "edge" else "wasm", models="",
            settings=settings, **{**request, "options": options},
        )  # fmt: skip
    except ClientError as error:
        if place == "webgpu" and any(sign in str(error) for sign in NO_GPU):
            raise DeviceUnavailable(str(error)) from error
        raise
    return link, answer


def _wasm_paths(client: Client, server: Loopback, scripts: str) -> str | dict[str, str]:
    folder, name = client.wasm
    if name is None:
        return f"{server.address}lib/{folder}/"
    return {"mjs": f"{scripts}/{folder}/{name}.mjs", "wasm": f"{server.address}lib/{folder}/{name}.wasm"}


def _refuse_other_bytes(artifact: Artifact, sessions: Sequence[Mapping[str, str]]) -> None:
    """Raise unless the native ONNX Runtime opened the artifact's bytes, once, and nothing took its place."""
    if len(sessions) != 1:
        raise ArtifactError(f"the native ONNX Runtime opened {len(sessions)} sessions for {artifact.model}, not one")
    if sessions[0]["provider"] != "cpu":
        raise DeviceUnavailable(f"the client fell back to {sessions[0]['provider']} for {artifact.model}")
    if sessions[0]["sha256"] != file_sha256(artifact.root / artifact.model):
        raise ArtifactError(
            f"the client loaded another file than {artifact.model}: one that an unknown dtype falls back to, or one "
            "of an earlier export in its cache"
        )


def _refuse_other_file(artifact: Artifact, served: Sequence[str]) -> None:
    """Raise unless the artifact's file is the one model that was fetched."""
    fetched = {name.removeprefix("models/model/") for name in served if name.endswith(".onnx")}
    if fetched != {artifact.model}:
        raise ArtifactError(f"the client fetched {', '.join(sorted(fetched)) or 'no model'}, not {artifact.model}")


def _decoded(text: object) -> NDArray[np.float32]:
    """Return the float32 values of an answer.

    Raises:
        ClientError: it holds none.
    """
    try:
        return np.frombuffer(base64.b64decode(str(text), validate=True), dtype="<f4").astype(np.float32)
    except ValueError as error:
        raise ClientError(f"the client's answer holds no float32 values: {error}") from error


RUNTIME = TransformersJs()
