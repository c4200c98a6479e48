"""Merges a LoRA adapter into its base: a temporary folder holds a plain checkpoint, which everything else reads.

W + α/r · B A is computed in float64 and stored in float32, whatever type the base is stored in. The adapter's own files
lie in the folder too, below `ADAPTER_FOLDER`, so that the checkpoint's digest covers them.
"""

import atexit
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bge_export.checkpoint.adapter_files import PICKLE, SETTINGS, WEIGHTS, Adapter, Change, read_adapter
from bge_export.checkpoint.adapter_names import changes_by_tensor
from bge_export.checkpoint.m3_files import LAYERS, has_own_layers
from bge_export.checkpoint.pooling_files import MODULES, PROMPTS, TRANSFORMER_SETTINGS
from bge_export.checkpoint.stored_tensors import read_stored
from bge_export.checkpoint.tokenizer_files import TOKENIZER_FILES
from bge_export.checkpoint.unpickling import HEAD_PICKLES
from bge_export.checkpoint.weight_files import INDEX, SINGLE, read_weight_files
from bge_export.errors import CheckpointError, HubError
from bge_export.files.digest import tree_digest
from bge_export.heads.layers import Tensors

ADAPTER_FOLDER = "adapter"
ADAPTER_FILES = (f"{ADAPTER_FOLDER}/{SETTINGS}", f"{ADAPTER_FOLDER}/{WEIGHTS}")

CONFIG = "config.json"
SENTENCE_FILES = (MODULES, PROMPTS, *TRANSFORMER_SETTINGS)

_merged: dict[str, Path] = {}
"""Digest of adapter and base -> the folder of this process that holds them merged."""


@dataclass(frozen=True)
class Merged:
    """A checkpoint with its adapter merged.

    Attributes:
        root: the folder that holds it.
        says: what was merged, for manifests and people.
    """

    root: Path
    says: str


def has_adapter(root: Path) -> bool:
    """Return whether a folder holds an adapter, alone or beside weights."""
    return (root / SETTINGS).is_file()


def merge(root: Path, locate: Callable[[str, str | None], tuple[Path, str]]) -> Merged:
    """Merge the adapter of a folder into the weights beside it, or into those of the base that it names.

    Args:
        root: the folder.
        locate: Hub id or folder, and revision -> the folder of a model, and its name in reports.

    Raises:
        CheckpointError: the adapter cannot be merged, or the base is missing or is another model.
    """
    if not (root / WEIGHTS).is_file():
        other = f" {PICKLE} is a pickle, which is not loaded." if (root / PICKLE).is_file() else ""
        raise CheckpointError(
            f"{root / SETTINGS} belongs to an adapter whose weights, {WEIGHTS}, are missing.{other} Save it with a "
            "current peft; if it is not part of this model, delete its files."
        )

    tensors = {name: tensor.astype(np.float32) for name, tensor in read_stored(root / WEIGHTS)}
    broken = next((name for name, tensor in tensors.items() if not np.isfinite(tensor).all()), None)
    if broken is not None:
        raise CheckpointError(
            f"{root / WEIGHTS}: {broken!r} holds values that are not finite. Fetch the adapter again."
        )

    adapter = read_adapter(root, tensors)
    base, name = _base(root, adapter, locate)

    rank = " and ".join(map(str, adapter.ranks))
    says = f"LoRA of rank {rank} on {len(adapter.changes)} matrices, merged into {name}"
    weights = read_weight_files(base).weights
    heads = _heads(root, base)
    digests = (
        tree_digest(root, (SETTINGS, WEIGHTS)),
        tree_digest(base, (CONFIG, *weights)),
        *(tree_digest(path.parent, (path.name,)) for path in heads.values()),
    )
    key = "-".join((*digests, str(root.resolve())))
    if key not in _merged:
        _merged[key] = _written(root, base, adapter, tensors)
    return Merged(_merged[key], says)


def _base(root: Path, adapter: Adapter, locate: Callable[[str, str | None], tuple[Path, str]]) -> tuple[Path, str]:
    """Return the folder of the base, and its name in reports."""
    if any((root / name).is_file() for name in (SINGLE, INDEX)):
        return root, "the weights beside it"

    if adapter.base is None:
        raise CheckpointError(
            f"{root / SETTINGS} names no base (base_model_name_or_path), and there are no weights beside it. Put "
            "config.json and the weights of its base there."
        )
    try:
        base, name = locate(adapter.base, adapter.revision)
    except (CheckpointError, HubError) as error:
        kind = HubError if isinstance(error, HubError) else CheckpointError
        raise kind(f"{root / SETTINGS} belongs to an adapter of {adapter.base}: {error}") from error

    if has_adapter(base):
        raise CheckpointError(f"{root / SETTINGS}: its base {name} has an adapter too. Merge that one first.")
    return base, name


def _written(root: Path, base: Path, adapter: Adapter, tensors: Tensors) -> Path:
    """Return a new folder with the merged checkpoint, which is removed when the process ends."""
    folder = Path(mkdtemp(prefix="bge_export-merged-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)

    for name, source in _small_files(root, base).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, folder / name)
    (folder / ADAPTER_FOLDER).mkdir()
    for name in (SETTINGS, WEIGHTS):
        shutil.copyfile(root / name, folder / ADAPTER_FOLDER / name)

    stored = read_weight_files(base)
    if stored.index is not None:
        shutil.copyfile(base / stored.index, folder / stored.index)

    changes = changes_by_tensor(root, adapter, stored.shapes)
    for name in stored.weights:
        _write_merged(base / name, folder / name, changes, tensors)
    return folder


def _small_files(root: Path, base: Path) -> Mapping[str, Path]:
    """Return name -> source of the files beside the weights: the adapter's own, else the base's."""

    def found(folder: Path, names: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
        yield from ((name, folder / name) for name in names if (folder / name).is_file())

    files = dict(found(base, (CONFIG,)))
    own_tokenizer = any((root / name).is_file() for name in TOKENIZER_FILES)
    files |= found(root if own_tokenizer else base, TOKENIZER_FILES)

    of_modules = root if (root / MODULES).is_file() else base
    files |= found(of_modules, SENTENCE_FILES)
    for path in (*of_modules.glob("[0-9]*_*/config.json"), *of_modules.glob("[0-9]*_*/model.safetensors")):
        files[path.relative_to(of_modules).as_posix()] = path
    return files | _heads(root, base)


def _heads(root: Path, base: Path) -> dict[str, Path]:
    """Return name -> source of BGE-M3's two layers: the adapter's, else the base's; pickles go along, to be refused."""
    folder = root if has_own_layers(root) else base
    return {name: folder / name for name in (*LAYERS, *HEAD_PICKLES) if (folder / name).is_file()}


def _write_merged(source: Path, target: Path, changes: Mapping[str, Change], tensors: Tensors) -> None:
    """Write one weights file with the changes of its tensors; bfloat16, which numpy lacks, becomes float32."""
    from safetensors.numpy import save_file

    stored = dict(read_stored(source))
    for name in changes.keys() & stored.keys():
        stored[name] = _changed(source, name, stored[name], changes[name], tensors)
    save_file(stored, target, metadata={"format": "pt"})


def _changed(source: Path, name: str, stored: NDArray[Any], change: Change, tensors: Tensors) -> NDArray[np.float32]:
    """Return a merged tensor."""
    product = tensors[change.second].astype(np.float64) @ tensors[change.first].astype(np.float64)
    added = change.scale * (product.T if change.transposed else product)
    if stored.shape != added.shape:
        raise CheckpointError(
            f"{source}: {name!r} is {list(stored.shape)}, and the adapter changes {list(added.shape)}. "
            "Give its own base."
        )

    merged = np.ascontiguousarray((stored.astype(np.float64) + added).astype(np.float32))
    if not np.isfinite(merged).all():
        raise CheckpointError(f"{source}: {name!r} is not finite once the adapter is merged. Fetch both again.")
    return merged
