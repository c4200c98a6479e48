"""Turns a checkpoint's pickles into safetensors, in a folder of its own, where the user allows it.

Loading a pickle can run any code. With `--allow-pickle` a child process that is confined (`_unpickle`) reads each with
torch's `weights_only`, and this process reads only the safetensors that come out.
"""

import atexit
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bge_export.checkpoint import _unpickle
from bge_export.checkpoint.weight_files import INDEX, PICKLE, PICKLE_INDEX, SINGLE
from bge_export.errors import CheckpointError
from bge_export.files.json_files import read_object
from bge_export.files.regular import SETTINGS_BYTES, TOKENIZER_BYTES, refuse_irregular
from bge_export.progress import advance, stage

HEAD_PICKLES = ("sparse_linear.pt", "colbert_linear.pt")
"""BGE-M3's two heads, which FlagEmbedding saves beside the encoder."""

SHARD = re.compile(r"pytorch_model(-\d+-of-\d+)\.bin", re.ASCII)
SMALL = (".json", ".txt", ".model", ".jinja")
"""Endings of the files that are copied: settings, tokenizers and vocabularies."""

WALL_FACTOR = 10
"""How much longer than its CPU time the child may take, on a machine with other work."""


@dataclass(frozen=True)
class Unpickled:
    """A folder with a checkpoint's files, where safetensors stand for its pickles.

    Attributes:
        root: the folder, which exists until this process ends; the checkpoint's own if it has no pickles to read.
        pickles: the pickles that were read, relative to the checkpoint's folder.
    """

    root: Path
    pickles: tuple[str, ...] = ()


_made: dict[tuple[Path, tuple[tuple[str, int, int], ...]], Unpickled] = {}
"""Folder and state of its pickles -> what was made of them; opening a checkpoint twice reads its pickles once."""


def unpickled(root: Path) -> Unpickled:
    """Return a checkpoint's folder with safetensors in place of its pickles.

    Raises:
        CheckpointError: a pickle holds something else than tensors, or needs more memory or time than weights do.
    """
    wanted = pickles_of(root)
    if not wanted:
        return Unpickled(root)

    states = [(name, (root / name).stat()) for name in wanted]
    key = root.resolve(), tuple((name, state.st_size, state.st_mtime_ns) for name, state in states)
    if key not in _made:
        _made[key] = Unpickled(_converted(root, wanted), tuple(wanted))

    return _made[key]


def _converted(root: Path, wanted: Mapping[str, str]) -> Path:
    """Return a new folder with a checkpoint's files, where safetensors stand for its pickles.

    Raises:
        CheckpointError: a pickle was refused; the folder is gone then.
    """
    folder = tempfile.TemporaryDirectory(prefix="bge_export-weights-")
    target = Path(folder.name)

    with ExitStack() as undo:
        undo.callback(folder.cleanup)
        _copy_small(root, target)
        with stage("reading pickles", len(wanted)):
            for name, safe in wanted.items():
                _convert(root / name, target / safe)
                advance()
        undo.pop_all()

    atexit.register(folder.cleanup)
    return target


def pickles_of(root: Path) -> Mapping[str, str]:
    """Return pickle -> the safetensors file that stands for it, for each pickle that has none beside it."""
    found: dict[str, str] = {}
    if not any((root / name).is_file() for name in (SINGLE, INDEX)):
        if (root / PICKLE).is_file():
            found[PICKLE] = SINGLE
        elif (root / PICKLE_INDEX).is_file():
            found |= {path.name: _safe_shard(path.name) for path in sorted(root.glob("pytorch_model-*-of-*.bin"))}

    found |= {name: _head(name) for name in HEAD_PICKLES if (root / name).is_file()}
    for path in sorted(root.glob(f"[0-9]*_*/{PICKLE}")):
        found[path.relative_to(root).as_posix()] = f"{path.parent.name}/{SINGLE}"

    return {name: safe for name, safe in found.items() if not (root / safe).is_file()}


def _safe_shard(name: str) -> str:
    return SHARD.sub(r"model\1.safetensors", name)


def _head(name: str) -> str:
    return f"{Path(name).stem}.safetensors"


def _copy_small(root: Path, target: Path) -> None:
    """Copy settings and tokenizer, and link the weights that are safetensors already."""
    for path in (*root.iterdir(), *root.glob("[0-9]*_*/*")):
        if not path.is_file():
            continue

        own = target / path.relative_to(root)
        own.parent.mkdir(exist_ok=True)
        if path.suffix == ".safetensors":
            refuse_irregular(path)
            own.symlink_to(path.resolve())
        elif path.suffix in SMALL and path.name != PICKLE_INDEX:
            refuse_irregular(path, TOKENIZER_BYTES)
            shutil.copyfile(path, own)

    if (root / PICKLE_INDEX).is_file() and not (root / INDEX).is_file():
        _write_index(root / PICKLE_INDEX, target / INDEX)


def _write_index(source: Path, target: Path) -> None:
    """Write the index of the shards under their new names; reading the weights checks it."""
    index = read_object(source, SETTINGS_BYTES)
    located = index.get("weight_map")
    if isinstance(located, dict):
        index["weight_map"] = {tensor: _safe_shard(str(name)) for tensor, name in located.items()}
    target.write_text(json.dumps(index), "utf-8")


def _convert(source: Path, target: Path) -> None:
    """Write the tensors of one pickle, read by a child process.

    Raises:
        CheckpointError: the child refused the file, or was ended.
    """
    refuse_irregular(source)
    seconds = _unpickle.LEAST_SECONDS + source.stat().st_size // _unpickle.BYTES_A_SECOND

    # Isolated, so that neither a file in the current folder nor a variable decides what it imports.
    command = [sys.executable, "-I", _unpickle.__file__, str(source.absolute()), str(target)]
    try:
        done = subprocess.run(  # noqa: S603 - our own program, and paths
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=WALL_FACTOR * seconds, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise CheckpointError(_refused(source, "reading it does not end")) from error

    if done.returncode == 0:
        return

    target.unlink(missing_ok=True)
    said = done.stdout.decode("utf-8", "replace").strip().splitlines()
    if done.returncode == _unpickle.REFUSED and said:
        raise CheckpointError(_refused(source, said[-1]))
    if done.returncode < 0:
        reason = "reading it needs more memory or time than weights of its size do"
        raise CheckpointError(_refused(source, reason))

    last = (said or done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason given"])[-1]
    raise CheckpointError(f"{source}: the process that reads pickles failed: {last}.")


def _refused(source: Path, reason: str) -> str:
    return (
        f"{source} is not loaded, with --allow-pickle neither: {reason}. Only a plain table of tensors is read from a "
        "pickle. Do not use this file, or save its weights as safetensors where you trust it."
    )
