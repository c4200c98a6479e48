"""Starts a Transformers.js client on artifacts, and verifies that it loaded exactly their bytes."""

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bge_export.contracts import Artifact
from bge_export.errors import ArtifactError, ClientError, DeviceUnavailable
from bge_export.files.digest import file_sha256
from bge_export.heads.dense import dense_head
from bge_export.javascript.browser import ChromiumLink
from bge_export.javascript.clients import Client
from bge_export.javascript.packages import JS, find_deno, find_node, packages_folder
from bge_export.javascript.process import OPEN_SECONDS, Link, ProcessLink
from bge_export.javascript.server import Loopback

DENO = (
    "run",
    "--allow-read",
    "--allow-env",
    "--allow-ffi",
    "--allow-sys",
    "--node-modules-dir=manual",
    "--cached-only",
    "--no-config",
)
"""No network and no write access: every file that the client needs is on disk."""

MODEL = "model"
"""The name under which a client loads a folder; from slot 1 on, the slot number is appended."""

NO_GPU = ("no WebGPU adapter", "does not support fp16")
"""Error messages of a browser without a usable adapter; software adapters lack 16-bit shaders."""


def open_client(
    environment: str, client: Client, artifacts: Sequence[Artifact], threads: int, stack: ExitStack
) -> tuple[Link, Sequence[Mapping[str, Any]]]:
    """Start one client on staged folders, and verify what it loaded for each artifact; slots count from 0."""
    requests = [opening_request(client, artifact, threads, slot) for slot, artifact in enumerate(artifacts)]
    package = packages_folder() / client.package
    answers: list[Mapping[str, Any]] = []

    if environment in ("node", "deno"):
        link, stage = _native_link(environment, artifacts, requests, stack)
        for artifact, request in zip(artifacts, requests, strict=True):
            answers.append(_open_native(link, client, stage, package, request))
            _refuse_other_bytes(artifact, answers[-1]["sessions"])
        return link, answers

    # Web builds load by URL, so the server sees which files they fetch.
    models = {f"models/{request['name']}": item.root for item, request in zip(artifacts, requests, strict=True)}
    server = Loopback({**models, f"lib/{client.name}": package, "js": JS})
    stack.callback(server.close)
    link = _web_link(environment, server, package)
    stack.callback(link.close)

    for artifact, request in zip(artifacts, requests, strict=True):
        server.served.clear()
        answers.append(open_web(link, environment, client, server, package, request))
        if environment == "edge":
            _refuse_other_bytes(artifact, answers[-1]["sessions"])
        refuse_other_file(artifact, server.served, request["name"])
    return link, answers


def opening_request(client: Client, artifact: Artifact, threads: int, slot: int = 0) -> Mapping[str, Any]:
    """Return the fields of the `open` request that are the same in every environment.

    Raises:
        ArtifactError: this version of the client cannot name the artifact's file.
    """
    options = client.options(artifact.model)
    if options is None:
        raise ArtifactError(f"Transformers.js {client.version} has no name for {artifact.model}")

    head = dense_head(artifact.spec)
    name = f"{MODEL}{slot or ''}"
    return {
        "slot": slot,
        "name": name,
        "options": dict(options),
        "pooling": head.pooling,
        "normalize": head.normalize,
        "threads": threads,
    }


def _native_link(
    environment: str, artifacts: Sequence[Artifact], requests: Sequence[Mapping[str, Any]], stack: ExitStack
) -> tuple[Link, Path]:
    """Start Node or Deno with the native ONNX Runtime in a stage: links to the folders, and an empty cache."""
    stage = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bge_export-")))
    for artifact, request in zip(artifacts, requests, strict=True):
        (stage / request["name"]).symlink_to(artifact.root.resolve(), target_is_directory=True)
    (stage / "cache").mkdir()

    command = [find_node()] if environment == "node" else [find_deno(), *DENO]
    link = ProcessLink([*command, JS / "runner.mjs"], stage)
    stack.callback(link.close)
    return link, stage


def _open_native(
    link: Link, client: Client, stage: Path, package: Path, request: Mapping[str, Any]
) -> Mapping[str, Any]:
    settings = {"env": {"cacheDir": str(stage / "cache")}}
    return link.ask(
        "open",
        OPEN_SECONDS,
        library=str(package / client.node),
        build="native",
        models=str(stage),
        settings=settings,
        **request,
    )


def _web_link(environment: str, server: Loopback, package: Path) -> Link:
    """Start the environment that runs the web build: Node, Deno, or a page in Chromium."""
    if environment == "web":
        return ProcessLink([find_node(), JS / "runner.mjs"], package)
    if environment == "edge":
        return ProcessLink([find_deno(), *DENO, "--allow-net=127.0.0.1", JS / "runner.mjs"], package)
    return ChromiumLink(server, "js/page.html", webgpu=environment == "webgpu")


def open_web(
    link: Link, environment: str, client: Client, server: Loopback, package: Path, request: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Open the artifact in the web build: in Node or Deno, which import scripts only from disk, or in a page.

    Raises:
        ClientError: the client failed.
        DeviceUnavailable: WebGPU was requested, and no usable adapter is present.
    """
    lib = f"{server.address}lib/{client.name}"
    scripts = package.as_uri() if environment in ("web", "edge") else lib
    library = str(package / Client.WEB) if environment in ("web", "edge") else f"{scripts}/{Client.WEB}"

    # Pose as the Hub: version 4 does not look for a tokenizer if the local model path is a URL.
    env = {
        "allowLocalModels": False,
        "allowRemoteModels": True,
        "remoteHost": f"{server.address}models/",
        "remotePathTemplate": "{model}/",
        **({"useWasmCache": False} if environment == "web" else {}),
    }
    settings = {"wasm": {"wasmPaths": _wasm_paths(client, lib, scripts), "numThreads": 1}, "env": env}
    device = {"webgpu": {"device": "webgpu"}, "edge": {"device": "auto"}}.get(environment, {})
    options = {**request["options"], **device}

    try:
        return link.ask(
            "open",
            OPEN_SECONDS,
            library=library,
            build="edge" if environment == "edge" else "wasm",
            models="",
            settings=settings,
            **{**request, "options": options},
        )
    except ClientError as error:
        if environment == "webgpu" and any(sign in str(error) for sign in NO_GPU):
            raise DeviceUnavailable(str(error)) from error
        raise


def _wasm_paths(client: Client, lib: str, scripts: str) -> str | dict[str, str]:
    folder, name = client.wasm
    if name is None:
        return f"{lib}/{folder}/"
    return {"mjs": f"{scripts}/{folder}/{name}.mjs", "wasm": f"{lib}/{folder}/{name}.wasm"}


def _refuse_other_bytes(artifact: Artifact, sessions: Sequence[Mapping[str, str]]) -> None:
    """Raise unless the native ONNX Runtime opened exactly the artifact's bytes, once, on its CPU provider."""
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
    """Raise unless the client fetched the artifact's file and no other model."""
    fetched = {name.removeprefix(f"models/{folder}/") for name in served if name.endswith(".onnx")}
    if fetched != {artifact.model}:
        raise ArtifactError(f"the client fetched {', '.join(sorted(fetched)) or 'no model'}, not {artifact.model}")
