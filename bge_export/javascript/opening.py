"""Starts a client on artifacts, and holds what it loaded of each against the artifact's bytes."""

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bge_export.contracts import Artifact
from bge_export.errors import ArtifactError, ClientError, DeviceUnavailable
from bge_export.files.digest import file_sha256
from bge_export.javascript.browser import ChromiumLink
from bge_export.javascript.clients import Client
from bge_export.javascript.packages import JS, find_deno, find_node, packages_folder
from bge_export.javascript.process import OPEN_SECONDS, Link, ProcessLink
from bge_export.javascript.server import Loopback

DENO = ("run", "--allow-read", "--allow-env", "--allow-ffi", "--allow-sys", "--node-modules-dir=manual",
        "--cached-only", "--no-config")  # fmt: skip
"""No network, no writing: what the client needs is on disk."""

MODEL = "model"
"""What a client is told that a folder is called; further ones have a number behind."""

NO_GPU = ("no WebGPU adapter", "does not support fp16")
"""How a browser without a usable adapter says so; software adapters have no 16-bit shaders."""


def open_client(
    place: str, client: Client, artifacts: Sequence[Artifact], threads: int, stack: ExitStack
) -> tuple[Link, Sequence[Mapping[str, Any]]]:
    """Start one client on staged folders, and hold what it loaded against each artifact; their slots count from 0."""
    requests = [opening_request(client, artifact, threads, slot) for slot, artifact in enumerate(artifacts)]
    package = packages_folder() / client.package
    answers: list[Mapping[str, Any]] = []
    if place in ("node", "deno"):
        link, stage = _native_link(place, artifacts, requests, stack)
        for artifact, request in zip(artifacts, requests, strict=True):
            answers.append(_open_native(link, client, stage, package, request))
            _refuse_other_bytes(artifact, answers[-1]["sessions"])
        return link, answers
    models = {f"models/{request['name']}": item.root for item, request in zip(artifacts, requests, strict=True)}
    server = Loopback({**models, f"lib/{client.name}": package, "js": JS})
    stack.callback(server.close)
    link = _web_link(place, server, package)
    stack.callback(link.close)
    for artifact, request in zip(artifacts, requests, strict=True):
        server.served.clear()
        answers.append(open_web(link, place, client, server, package, request))
        if place == "edge":
            _refuse_other_bytes(artifact, answers[-1]["sessions"])
        refuse_other_file(artifact, server.served, request["name"])
    return link, answers


def opening_request(client: Client, artifact: Artifact, threads: int, slot: int = 0) -> Mapping[str, Any]:
    """Return what every place is told about the artifact.

    Raises:
        ArtifactError: the version has no name for its file.
    """
    options = client.options(artifact.model)
    if options is None:
        raise ArtifactError(f"Transformers.js {client.version} has no name for {artifact.model}")
    spec = artifact.spec
    name = f"{MODEL}{slot or ''}"
    return {"slot": slot, "name": name, "options": dict(options), "pooling": spec.pooling, "normalize": spec.normalize,
            "threads": threads}  # fmt: skip


def _native_link(
    place: str, artifacts: Sequence[Artifact], requests: Sequence[Mapping[str, Any]], stack: ExitStack
) -> tuple[Link, Path]:
    """Start a process for the native ONNX Runtime in a folder of staged ones, with an empty cache beside them."""
    stage = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bge_export-")))
    for artifact, request in zip(artifacts, requests, strict=True):
        (stage / request["name"]).symlink_to(artifact.root.resolve(), target_is_directory=True)
    (stage / "cache").mkdir()
    command = [find_node()] if place == "node" else [find_deno(), *DENO]
    link = ProcessLink([*command, JS / "runner.mjs"], stage)
    stack.callback(link.close)
    return link, stage


def _open_native(
    link: Link, client: Client, stage: Path, package: Path, request: Mapping[str, Any]
) -> Mapping[str, Any]:
    settings = {"env": {"cacheDir": str(stage / "cache")}}
    return link.ask(
        "open", OPEN_SECONDS, library=str(package / client.node), build="native", models=str(stage), settings=settings,
        **request,
    )  # fmt: skip


def _web_link(place: str, server: Loopback, package: Path) -> Link:
    """Start what runs the web build: Node or Deno, or a page in Chromium."""
    if place == "web":
        return ProcessLink([find_node(), JS / "runner.mjs"], package)
    if place == "edge":
        return ProcessLink([find_deno(), *DENO, "--allow-net=127.0.0.1", JS / "runner.mjs"], package)
    return ChromiumLink(server, "js/page.html", webgpu=place == "webgpu")


def open_web(
    link: Link, place: str, client: Client, server: Loopback, package: Path, request: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Open the artifact in the web build: in Node or Deno, which import scripts from disk alone, or in a page.

    Raises:
        ClientError: the client failed.
        DeviceUnavailable: WebGPU was asked for, and there is no usable adapter.
    """
    lib = f"{server.address}lib/{client.name}"
    scripts = package.as_uri() if place in ("web", "edge") else lib
    library = str(package / Client.WEB) if place in ("web", "edge") else f"{scripts}/{Client.WEB}"
    # As from the Hub: version 4 does not look for a tokenizer below a local path that is an address.
    env = {"allowLocalModels": False, "allowRemoteModels": True, "remoteHost": f"{server.address}models/",
           "remotePathTemplate": "{model}/", **({"useWasmCache": False} if place == "web" else {})}  # fmt: skip
    settings = {"wasm": {"wasmPaths": _wasm_paths(client, lib, scripts), "numThreads": 1}, "env": env}
    device = {"webgpu": {"device": "webgpu"}, "edge": {"device": "auto"}}.get(place, {})
    options = {**request["options"], **device}
    try:
        return link.ask(
            "open", OPEN_SECONDS, library=library, build="edge" if place == "edge" else "wasm", models="",
            settings=settings, **{**request, "options": options},
        )  # fmt: skip
    except ClientError as error:
        if place == "webgpu" and any(sign in str(error) for sign in NO_GPU):
            raise DeviceUnavailable(str(error)) from error
        raise


def _wasm_paths(client: Client, lib: str, scripts: str) -> str | dict[str, str]:
    folder, name = client.wasm
    if name is None:
        return f"{lib}/{folder}/"
    return {"mjs": f"{scripts}/{folder}/{name}.mjs", "wasm": f"{lib}/{folder}/{name}.wasm"}


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


def refuse_other_file(artifact: Artifact, served: Sequence[str], folder: str = MODEL) -> None:
    """Raise unless the artifact's file is the one model that was fetched."""
    fetched = {name.removeprefix(f"models/{folder}/") for name in served if name.endswith(".onnx")}
    if fetched != {artifact.model}:
        raise ArtifactError(f"the client fetched {', '.join(sorted(fetched)) or 'no model'}, not {artifact.model}")
