"""The small files and weights that a bundle of a checkpoint holds, and those of a bundle that are of another origin.

The layout is deterministic, so it is written anew and compared byte for byte: sealing a manifest again over other
files does not help. The digests are part of the reference, so a machine without the checkpoint compares them too.
Golden vectors alone differ in their last digits between machines: they are compared as numbers (`held_files`). The
contract is not among these files: it follows from the manifest, to which it is held wherever a bundle is read.
"""

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from bge_export.bundle.contract import CONTRACT
from bge_export.bundle.documents import is_document
from bge_export.bundle.elasticsearch import write_elasticsearch_files
from bge_export.bundle.integrity import WEIGHTS_SUFFIX, files_below
from bge_export.bundle.layout import write_layout
from bge_export.bundle.manifest import Manifest
from bge_export.checkpoint.module_files import MODULE_WEIGHTS
from bge_export.checkpoint.static_folder import STATIC
from bge_export.checkpoint.weight_files import INDEX
from bge_export.contracts import Checkpoint
from bge_export.errors import ArtifactError
from bge_export.files.digest import file_digests
from bge_export.files.reading import reading
from bge_export.files.regular import GOLDEN_BYTES, read_regular
from bge_export.formats.torchscript import BESIDE_ELAND, ELAND_FILE
from bge_export.texts.golden import GOLDEN, agree


def weight_names(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Return the names of a checkpoint's weight files, with the index if there is one, and of BGE-M3's two layers.

    Those of a static model are none that the folder's `config.json` describes: libraries would load random weights.
    """
    if checkpoint.model_type == STATIC:
        return ()

    index = [INDEX] if (checkpoint.root / INDEX).is_file() else []
    layers = (name for names in checkpoint.head_weights.values() for name in names if "/" not in name)
    return (*checkpoint.weights, *index, *layers)


def write_weights(checkpoint: Checkpoint, root: Path) -> tuple[str, ...]:
    """Copy a checkpoint's safetensors files unchanged, for libraries that run them in PyTorch; return their names."""
    names = weight_names(checkpoint)
    for name in names:
        if not (root / name).exists():  # else carried over already, from the checkpoint too
            shutil.copyfile(checkpoint.root / name, root / name)
    return names


def files_of(checkpoint: Checkpoint) -> dict[str, str]:
    """Return name -> sha256 of the small files that a checkpoint's bundle holds, and of the weights that it may hold.

    Raises:
        CheckpointError: the checkpoint's tokenizer cannot be turned into `tokenizer.json`.
    """
    with TemporaryDirectory(prefix="bge_export-") as folder:
        root = Path(folder)
        write_layout(checkpoint, root)
        if checkpoint.spec.only_dense:  # other heads have no eland file to stand beside
            write_elasticsearch_files(checkpoint, root)
        small = file_digests(root, files_below(root))

    return small | file_digests(checkpoint.root, weight_names(checkpoint))


def held_files(root: Path, files: Mapping[str, str], golden: bytes) -> dict[str, str]:
    """Return name -> sha256 of the files that a bundle must hold, its own golden file included if that is right.

    Args:
        root: the bundle.
        files: the result of `files_of` for the checkpoint.
        golden: the checkpoint's `golden.jsonl`, empty if it is not known.

    Raises:
        ArtifactError: the bundle's golden file cannot be read.
    """
    if not golden:
        return dict(files)

    path = root / GOLDEN
    with reading(path, ArtifactError, advice="Export the folder again."):
        found = read_regular(path, GOLDEN_BYTES) if path.is_file() else b""

    right = found if agree(found, golden) else golden
    return {**files, GOLDEN: hashlib.sha256(right).hexdigest()}


def other_files(manifest: Manifest, files: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of small files and weights that are missing from a bundle, or not those of its checkpoint.

    Args:
        manifest: the bundle's manifest, whose digests were compared with the bytes.
        files: the result of `held_files` for the checkpoint.
    """
    models = {name for model in manifest.models for name in model.files}
    held = {
        name: digest
        for name, digest in manifest.files.items()
        if name not in models and name != CONTRACT and not is_document(PurePosixPath(name))
    }

    unneeded = () if ELAND_FILE in models else BESIDE_ELAND
    needed = {name for name in files if not (_is_weights(name) or name in unneeded)}
    return tuple(sorted(name for name in needed | held.keys() if held.get(name) != files.get(name)))


def _is_weights(name: str) -> bool:
    """Return whether a file holds the checkpoint's own weights, which a bundle may leave out; not those of a module."""
    return name == INDEX or (name.endswith(WEIGHTS_SUFFIX) and MODULE_WEIGHTS.fullmatch(name) is None)
