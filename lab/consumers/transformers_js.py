"""Transformers.js 4 in Node, as `bge-export setup-js` installs it; its tokenizer is a port of its own."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lane import Embed, Job, lane, main

SCRIPT = Path(__file__).with_suffix(".mjs")
SETTING = "dtype, pooling, normalize; the prompt by hand"
FAULT = "its tokenizer cuts long texts without the final [SEP], and differs on ΟΔΟΣ and 𠀀 (docs/how-to/javascript.md)"


def opened(job: Job, dtype: str) -> tuple[Embed, Embed]:
    """Return functions that embed texts in a process of Node."""
    library = Path(job.clients) / "transformers-4/dist/transformers.node.mjs"
    if not library.is_file():
        raise FileNotFoundError("the clients are not installed: bge-export setup-js")

    def embed(texts: Sequence[str]) -> object:
        asked = {"folder": job.folder, "dtype": dtype, "pooling": job.pooling, "texts": list(texts)}
        with tempfile.TemporaryDirectory() as work:
            path = Path(work) / "asked.json"
            path.write_text(json.dumps(asked), "utf-8")
            command = [shutil.which("node") or "node", SCRIPT, library, path]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        return json.loads(done.stdout.splitlines()[-1])

    return embed, lambda texts: embed([job.prompt + text for text in texts])


@lane("pipeline, fp32", "onnx-fp32", SETTING, FAULT)
def fp32(job: Job) -> tuple[Embed, Embed]:
    """The fp32 file."""
    return opened(job, "fp32")


@lane("pipeline, q8", "onnx-int8", SETTING, FAULT)
def int8(job: Job) -> tuple[Embed, Embed]:
    """The int8 file."""
    return opened(job, "q8")


def version() -> str:
    """Return the version of the installed client; "" if there is none."""
    clients = Path(json.loads(Path(sys.argv[1]).read_text("utf-8"))["clients"])
    package = clients / "transformers-4/package.json"
    return str(json.loads(package.read_text("utf-8"))["version"]) if package.is_file() else ""


if __name__ == "__main__":
    main(**{"Transformers.js": version()})
