"""Checks a checkpoint's safetensors files by their headers; reads no weights and never opens a pickle."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bge_export.errors import CheckpointError, MissingLibrary
from bge_export.files.json_files import read_object
from bge_export.files.panics import LibraryPanicError, panics_as_errors
from bge_export.files.regular import TOKENIZER_BYTES, open_regular, refuse_irregular

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLE = "pytorch_model.bin"
PICKLE_INDEX = "pytorch_model.bin.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
EMBEDDINGS = ("word_embeddings.weight", "embed_tokens.weight", "tok_embeddings.weight", "wte.weight")
"""Name endings of the token embedding table, by model family."""

LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class WeightFiles:
    """The weight files on disk.

    Attributes:
        weights: the safetensors files, relative to the folder.
        index: the file that maps each tensor to its file; None for a single file.
        shapes: tensor -> shape, for all tensors.
        embedding: name and shape [vocabulary, D] of the token embedding table; None if no known name matches.
    """

    weights: tuple[str, ...]
    index: str | None
    shapes: Mapping[str, tuple[int, ...]]
    embedding: tuple[str, tuple[int, ...]] | None


def entry_file(names: Collection[str], source: str, *, pickles: bool = False) -> str:
    """Return the file that leads to a checkpoint's weights: the single file, or the index of its shards.

    With `pickles`, the same of weights that are only there as pickles.

    Raises:
        CheckpointError: there are no safetensors files.
    """
    accepted = (SINGLE, INDEX, PICKLE, PICKLE_INDEX) if pickles else (SINGLE, INDEX)
    for name in accepted:
        if name in names:
            return name

    there = sorted(name for name in names if name.endswith(PICKLES) and "/" not in name)
    if there and not pickles:
        raise CheckpointError(
            f"{source}: the weights are only there as {there[0]}, a pickle, and loading a pickle runs whatever code "
            "is in it. To have its tensors read in a process of their own, with torch's weights_only and without "
            "network, add --allow-pickle; or give a checkpoint with safetensors."
        )

    raise CheckpointError(
        f"{source}: there is no {SINGLE} and no {INDEX}. Give a checkpoint with its weights in the safetensors format."
    )


def read_weight_files(root: Path) -> WeightFiles:
    """Find the weights of a folder and check every header against its file.

    Raises:
        CheckpointError: a file is missing, damaged or contradicts the index.
        MissingLibrary: safetensors is not installed.
    """
    names = [path.name for path in root.iterdir()]
    entry = entry_file(names, str(root))
    located = _read_index(root / INDEX) if entry == INDEX else {}

    if {SINGLE, INDEX} <= set(names) and set(_read_index(root / INDEX).values()) != {SINGLE}:
        raise CheckpointError(
            f"{root} holds two sets of weights: {SINGLE}, and the shards that {INDEX} names; libraries differ in which "
            "they load. Delete the set that does not belong to this checkpoint."
        )
    weights = tuple(sorted(set(located.values()))) if located else (SINGLE,)

    shapes: dict[str, tuple[int, ...]] = {}
    for name in weights:
        found = header_shapes(root / name)
        absent = sorted(tensor for tensor, file in located.items() if file == name and tensor not in found)
        if absent:
            raise CheckpointError(f"{root / name} lacks {absent[0]!r}, which {INDEX} places there. Fetch both again.")

        shapes |= found

    tables = sorted((name, shape) for name, shape in shapes.items() if name.endswith(EMBEDDINGS) and len(shape) == 2)
    return WeightFiles(weights, INDEX if located else None, shapes, tables[0] if tables else None)


def _read_index(path: Path) -> Mapping[str, str]:
    """Return tensor -> the shard that holds it."""
    located = read_object(path, TOKENIZER_BYTES).get("weight_map")
    if not isinstance(located, dict) or not located or not all(isinstance(name, str) for name in located.values()):
        raise CheckpointError(f"{path} has no 'weight_map' from tensors to files. Fetch the file again.")

    for name in sorted(set(located.values())):
        # An index can name any path: only a plain file name stays inside the folder.
        if PurePosixPath(name).name != name or "\\" in name:
            raise CheckpointError(f"{path} names {name!r}, which is not a file beside it. Do not use this checkpoint.")
        if not name.endswith(".safetensors"):
            raise CheckpointError(f"{path} names {name!r}, which is not a safetensors file, so it is not loaded.")
        if not (path.parent / name).is_file():
            raise CheckpointError(f"{path.parent / name} is missing, but {path.name} names it. Fetch the shard too.")
    return located


def header_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return tensor -> shape of a safetensors file, which the library checks to be as long as its header says.

    Raises:
        CheckpointError: the file is missing or damaged.
        MissingLibrary: safetensors is not installed.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise MissingLibrary("safetensors", "export", "reading a PyTorch checkpoint") from error

    try:
        refuse_irregular(path)
        with panics_as_errors(), safe_open(path, framework="numpy") as tensors:
            names = list(tensors.keys())  # the file itself cannot be iterated
            return {name: tuple(tensors.get_slice(name).get_shape()) for name in names}
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}. Fetch the file again.") from error
    except (SafetensorError, LibraryPanicError, ValueError) as error:
        raise CheckpointError(_damage(path, error)) from error


def _damage(path: Path, error: Exception) -> str:
    """Return a message that names the damage of a safetensors file."""
    with open_regular(path) as stream:
        if stream.read(len(LFS_POINTER)) == LFS_POINTER:
            return f"{path} is a Git LFS pointer, not the weights. Fetch them with: git lfs pull"

    size = path.stat().st_size
    reason = str(error).removeprefix("Error while deserializing header: ")
    if "not fully covered" in reason:
        reason = "its size is not what its header says, so it is truncated or has bytes too many"

    return f"{path} ({size} bytes) is damaged: {reason}. Fetch the file again."
