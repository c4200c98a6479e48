"""Runs ONNX files in Transformers.js; a device is a pinned version in Node, Deno, plain Node (web build) or Chromium.

Token ids go through the client's own model class, so that the comparison is of runtimes and not of tokenizers; the
client's tokenizer and pipeline are compared separately (`capabilities.ClientSession`). Nothing is taken on trust: the
bytes that reached ONNX Runtime must be the artifact's, because clients silently fall back to another file or a cache.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from bge_export.contracts import Artifact
from bge_export.errors import DeviceUnavailable
from bge_export.javascript.clients import CLIENTS
from bge_export.javascript.opening import open_client
from bge_export.javascript.packages import find_chromium, find_deno, find_node, packages_folder
from bge_export.javascript.session import ClientsSession
from bge_export.javascript.staging import stage_file

FINDERS = {
    "node": (find_node,),
    "deno": (find_deno,),
    "web": (find_node,),
    "chromium": (find_chromium,),
    "webgpu": (find_chromium,),
    "edge": (find_deno,),
}
DEVICES = (
    *(f"{environment}@{name}" for environment in ("node", "deno", "web", "chromium") for name in CLIENTS),
    *(f"webgpu@{name}" for name, client in CLIENTS.items() if client.major > 2),
    "edge@3",  # as in Supabase's runtime: the web build in Deno, on a native ONNX Runtime from the host
)


class TransformersJs:
    """Opens ONNX artifacts in Transformers.js."""

    name = "transformersjs"
    formats = frozenset({"onnx"})
    library = "bge-export"  # the clients are not a Python distribution; the lane's facts hold their versions
    extra = "all"
    known = DEVICES

    def devices(self) -> Mapping[str, str | None]:
        """Return each environment and version -> None if it can be used, else the reason why not."""
        return {device: _missing(device) for device in DEVICES}

    def reads(self, artifact: Artifact, device: str) -> bool:
        """Return whether the client version can name the artifact's file."""
        client = CLIENTS.get(device.partition("@")[2])
        return client is None or client.options(artifact.model) is not None

    def open(self, artifact: Artifact, device: str, threads: int) -> ClientsSession:
        """Load the artifact in one client.

        Raises:
            ArtifactError: the client loaded other bytes than the artifact's.
            ClientError: the client failed, exited or hung.
            DeviceUnavailable: a program or the clients' packages are missing.
        """
        return self.open_together((artifact,), device, threads)[0]

    def open_together(self, artifacts: Sequence[Artifact], device: str, threads: int) -> Sequence[ClientsSession]:
        """Load several artifacts side by side in one client; closing one session closes all.

        Raises:
            ArtifactError: the client loaded other bytes than an artifact's.
            ClientError: the client failed, exited or hung.
            DeviceUnavailable: a program or the clients' packages are missing.
        """
        if device not in DEVICES:
            raise DeviceUnavailable(f"transformersjs knows no {device!r}; it has {', '.join(DEVICES)}")
        if any(artifact.spec.is_reranker for artifact in artifacts):
            raise DeviceUnavailable(
                "transformersjs gives its clients single texts, and rerankers read pairs: none is measured there yet"
            )
        if any(artifact.spec.has_token_heads for artifact in artifacts):
            raise DeviceUnavailable(
                "transformersjs compares one vector a text, and these files give token weights or vectors of tokens: "
                "none is measured there yet"
            )
        if (why := _missing(device)) is not None:
            raise DeviceUnavailable(f"transformersjs cannot run on {device!r}: {why}")

        environment, _, name = device.partition("@")
        client = CLIENTS[name]

        with ExitStack() as stack:
            link, answers = open_client(environment, client, artifacts, threads, stack)
            held = stack.pop_all()

        sessions = []
        for slot, (artifact, answer) in enumerate(zip(artifacts, answers, strict=True)):
            facts = {
                "transformers.js": str(answer.get("version")),
                "environment": environment,
                "loaded": artifact.model,
            }
            sessions.append(ClientsSession(link, artifact, client, facts, held, slot))
        return sessions

    def stage(self, artifact: Artifact, donors: Sequence[Path], stage: Path) -> Artifact:
        """Return a bare model file as an artifact of a folder that the clients load, made in `stage`.

        Raises:
            UsageError: the file cannot be staged.
        """
        return stage_file(artifact, donors, stage)


def _missing(device: str) -> str | None:
    """Return why a device cannot be used here; None if it can."""
    try:
        packages_folder()
        for find in FINDERS[device.partition("@")[0]]:
            find()
    except DeviceUnavailable as error:
        return str(error)
    return None


RUNTIME = TransformersJs()
