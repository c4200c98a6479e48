"""A machine whose Hub is on the loopback interface, for tests of what is fetched from there."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hub_server import Hub, serve
from tiny_checkpoint import EMBEDDING, TOKENS, WIDTH, write_checkpoint, write_weights

MODEL = "someone/tiny-model"
CLIENT_CHUNK_BYTES = 10 * 1024 * 1024
TOKEN = "hf_SecretTokenThatNobodyMaySee"
OPEN = """
import json, sys, time
from bge_export.checkpoint.opening import open_checkpoint
from bge_export.errors import BgeExportError
start = time.monotonic()
try:
    checkpoint = open_checkpoint(sys.argv[1], revision=sys.argv[2] or None)
    result = {"error": None, "message": "", "root": str(checkpoint.root), "revision": checkpoint.revision,
              "source": checkpoint.source, "digest": checkpoint.digest}
except BgeExportError as error:
    result = {"error": type(error).__name__, "kinds": [kind.__name__ for kind in type(error).__mro__],
              "message": str(error)}
print(json.dumps(result | {"seconds": time.monotonic() - start}))
"""


@dataclass
class Machine:
    """A machine with an empty Hub cache; `before` is Python that runs before a model is opened."""

    home: Path
    endpoint: str
    before: str = ""

    def open(self, model: str = MODEL, revision: str = "", **environment: str) -> dict[str, object]:
        """Open a model in a new process; return what came of it, and how long the process took."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))}
        clean = {key: value for key, value in clean.items() if not key.lower().endswith("_proxy")}
        values = {"HF_HOME": str(self.home), "HF_ENDPOINT": self.endpoint} | environment
        start = time.monotonic()
        command = [sys.executable, "-W", "error", "-c", self.before + OPEN, model, revision]
        done = subprocess.run(command, env=clean | values, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) | {"wall": time.monotonic() - start, "stderr": done.stderr}

    def cached(self, pattern: str) -> list[Path]:
        return list((self.home / "hub").rglob(pattern))


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    root = write_checkpoint(tmp_path / "original")
    files = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    unwanted = ("pytorch_model.bin", "tf_model.h5", "onnx/model.onnx", "onnx/config.json", "README.md",
                "sub/model.safetensors", "adapter_model.safetensors")  # fmt: skip
    with serve(Hub(MODEL, files | dict.fromkeys(unwanted, b"not wanted"))) as running:
        yield running


@pytest.fixture
def machine(tmp_path: Path, hub: Hub) -> Machine:
    return Machine(tmp_path / "home", hub.endpoint)


def refused(result: dict[str, object], kind: str, *parts: str) -> None:
    assert kind in result.get("kinds", ()), result
    for part in parts:
        assert part in str(result["message"])


def large_weights(path: Path) -> bytes:
    """Return weights of more than one of the client's chunks, which is the least it resumes after."""
    write_weights(path, {EMBEDDING: (len(TOKENS), WIDTH), "encoder.weight": (CLIENT_CHUNK_BYTES // 4, 1)})
    return path.read_bytes()
