"""What every consumer of the lab shares: it reads a job, embeds the texts of each lane, and writes the vectors.

A consumer is a file of `lab/consumers`, run in an environment of its own: `NAME.py JOB RESULT`, both JSON files. It
imports nothing of bge_export, so that what it computes is the library's own.
"""

import importlib.metadata
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "TOKENIZERS_PARALLELISM": "false"}

Embed = Callable[[Sequence[str]], Any]
"""Texts -> their vectors, as rows of numbers."""


@dataclass(frozen=True)
class Job:
    """A folder and the texts to embed with it.

    Attributes:
        folder: the folder of bge-export.
        files: target, such as `onnx-int8` -> its model file in the folder.
        prompt: what precedes queries.
        pooling: the pooling that the folder promises.
        dim: the width of a vector.
        max_tokens: the longest input.
        weights: whether the folder holds the PyTorch weights.
        clients: the folder in which the JavaScript clients are installed.
        texts: kind (`documents`, `edge cases`, `queries`) -> texts.
    """

    folder: str
    files: dict[str, str]
    prompt: str
    pooling: str
    dim: int
    max_tokens: int
    weights: bool
    clients: str
    texts: dict[str, list[str]]

    def file(self, target: str) -> str:
        """Return the path of a target's model file."""
        return str(Path(self.folder) / self.files[target])


@dataclass(frozen=True)
class Lane:
    """One way to load the folder.

    Attributes:
        name: what is loaded, in the library's words.
        target: the target whose file must be in the folder; "" for the PyTorch weights.
        setting: what the user must set besides the folder; "" if nothing.
        fault: what is known to be other than the checkpoint's vectors, and why; "" if nothing may be.
        opened: job -> the functions that embed documents and queries.
    """

    name: str
    target: str
    setting: str
    fault: str
    opened: Callable[[Job], tuple[Embed, Embed]]


LANES: list[Lane] = []


def lane(
    name: str, target: str = "", setting: str = "", fault: str = ""
) -> Callable[[Callable[[Job], tuple[Embed, Embed]]], Callable[[Job], tuple[Embed, Embed]]]:
    """Register a function that opens the folder; its fields are those of `Lane`."""

    def register(opened: Callable[[Job], tuple[Embed, Embed]]) -> Callable[[Job], tuple[Embed, Embed]]:
        LANES.append(Lane(name, target, setting, fault, opened))
        return opened

    return register


def main(*packages: str, **others: str) -> None:
    """Run every lane whose file the folder has, and write versions, vectors and errors.

    Args:
        packages: distributions whose versions are written.
        others: name -> version of what is no distribution.
    """
    job_path, result_path = map(Path, sys.argv[1:])
    job = Job(**json.loads(job_path.read_text("utf-8")))
    there = {*job.files, *([""] if job.weights else [])}

    versions = {**{name: importlib.metadata.version(name) for name in packages}, **others}
    lanes = [embedded(one, job) for one in LANES if one.target in there]
    result_path.write_text(json.dumps({"versions": versions, "lanes": lanes}), "utf-8")


def embedded(one: Lane, job: Job) -> dict[str, Any]:
    """Return a lane with the vectors of each kind of text, or the line that prevents them."""
    result: dict[str, Any] = {key: getattr(one, key) for key in ("name", "target", "setting", "fault")}
    try:
        documents, queries = one.opened(job)
    except Exception as error:  # noqa: BLE001 - whatever a library raises is its answer
        return {**result, "error": described(error)}

    for kind, texts in job.texts.items():
        try:
            rows = (queries if kind == "queries" else documents)(texts)
            result[kind] = [[float(value) for value in row] for row in rows]
        except Exception as error:  # noqa: BLE001 - whatever a library raises is its answer
            result[kind] = described(error)
    return result


def described(error: Exception) -> str:
    """Return the first line of an error, and where the library raised it."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = frame.filename.rpartition("site-packages/")[2]
    place = f" ({where}:{frame.lineno})" if "/" in where and not where.startswith("/") else ""
    text = str(error).strip() or type(error).__name__
    return f"{type(error).__name__}: {text.splitlines()[0][:200]}{place}"
