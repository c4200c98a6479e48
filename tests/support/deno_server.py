"""Runs an example that is a Deno server, with its imports mapped to the installed clients, and asks it."""

import json
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bge_export.javascript.packages import find_deno

SECONDS = 120


@contextmanager
def served(main: Path, imports: Mapping[str, str], cwd: Path) -> Iterator[str]:
    """Run a Deno server with its imports mapped to the installed clients; yield its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (cwd / "map.json").write_text(json.dumps({"imports": imports}), "utf-8")
    command = [find_deno(), "run", "-A", "--no-config", "--node-modules-dir=manual", "--cached-only",
               f"--import-map={cwd / 'map.json'}", main]  # fmt: skip
    environment = {"DENO_SERVE_ADDRESS": f"tcp:127.0.0.1:{port}", "PATH": "/usr/bin:/bin", "HOME": str(cwd)}
    with (cwd / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=cwd, env=environment, stdout=log, stderr=log)
    try:
        end = time.monotonic() + SECONDS
        while "Listening" not in (cwd / "log").read_text():
            assert process.poll() is None, (cwd / "log").read_text()
            assert time.monotonic() < end, (cwd / "log").read_text()
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.kill()
        process.wait(10)


def answered(address: str, text: str) -> object:
    """Return the embedding that a server of an example answers a text with."""
    body = json.dumps({"input": text}).encode()
    with urllib.request.urlopen(urllib.request.Request(address, body), timeout=SECONDS) as response:
        return json.load(response)["embedding"]
