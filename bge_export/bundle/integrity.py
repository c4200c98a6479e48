"""Checks a bundle against its manifest: no file is changed, missing or added."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath

from bge_export.bundle.contract import CONTRACT
from bge_export.bundle.documents import KINDS, PRIVATE, is_document, strangers
from bge_export.checkpoint.module_files import MODULE_WEIGHTS
from bge_export.checkpoint.pooling_files import MODULES, PROMPTS, TRANSFORMER_SETTINGS
from bge_export.checkpoint.tokenizer_files import TOKENIZER_FILES
from bge_export.checkpoint.weight_files import INDEX
from bge_export.errors import ArtifactError, OutputError
from bge_export.files.digest import file_sha256
from bge_export.formats import belongs_to_a_model
from bge_export.formats.torchscript import BESIDE_ELAND
from bge_export.texts.golden import GOLDEN

MANIFEST = "bge_export.json"
REPORT = "parity.json"
LIMITS = "bge_export.limits.toml"
"""In a folder of refused targets: the limits under which they would pass, for users who knowingly accept the loss."""

CARD = "README.md"
GENERATED_CARD = "<!-- card written by bge-export; remove this line to keep a card of your own -->"
"""A line of every generated card: an export may replace such cards, and no others."""

MODEL_SUFFIXES = frozenset(
    {
        ".ort",
        ".data",
        ".bin",
        ".blob",
        ".pt",
        ".pt2",
        ".pth",
        ".pte",
        ".ptl",
        ".ckpt",
        ".pkl",
        ".pickle",
        ".joblib",
        ".safetensors",
        ".gguf",
        ".ggml",
        ".h5",
        ".keras",
        ".pb",
        ".tflite",
        ".msgpack",
        ".ot",
        ".mlmodel",
        ".engine",
        ".plan",
        ".trt",
        ".mnn",
        ".param",
        ".rknn",
        ".hef",
        ".nemo",
    }
)
"""Suffixes of model files of other formats than ours, which say theirs in `formats/`. Those that a manifest lists are
bge-export's own, not the user's."""

SHARED_NAMES = frozenset({"config.json", MODULES, PROMPTS, *TRANSFORMER_SETTINGS, *TOKENIZER_FILES})
"""Small files that an export may write, and that affect every artifact of a folder."""

ABOUT_MODELS = frozenset({CONTRACT, GOLDEN})
"""Files at the top of a folder that say how its models are used. No embedding depends on them, so they belong to no
artifact's digest; they are held to manifest and checkpoint all the same."""

WEIGHTS_SUFFIX = ".safetensors"

DECIDING_NAMES = SHARED_NAMES | {"adapter_config.json", INDEX, "preprocessor_config.json", "processor_config.json"}
"""Small files that loaders of model folders look for."""


def refuse_names(root: Path, digests: Mapping[str, str], models: Collection[str], weights: Collection[str]) -> None:
    """Raise ArtifactError if the manifest names a file outside the folder, without a digest, or of no known purpose.

    Args:
        root: the folder.
        digests: every file that the manifest lists -> its sha256.
        models: the files of its models.
        weights: the files of the checkpoint's own weights.
    """
    for name in digests:
        parts = PurePosixPath(name).parts
        if not parts or PurePosixPath(name).is_absolute() or ".." in parts or "\0" in name:
            raise ArtifactError(f"{root / MANIFEST} names {name!r}, which is outside the folder. Do not use it.")
        if any(PurePosixPath(name).is_relative_to(folder) for folder in PRIVATE):
            raise ArtifactError(f"{root / MANIFEST} names {name!r}, which Git or the Hub's library may change.")

    if unknown := sorted({*models, *weights} - set(digests)):
        raise ArtifactError(f"{root / MANIFEST} gives no digest of {unknown[0]!r}. Export the folder again.")

    _refuse_misplaced(root, set(digests), set(models), set(weights))


def _refuse_misplaced(root: Path, listed: set[str], models: set[str], weights: set[str]) -> None:
    """Raise ArtifactError if a listed file is of another purpose than the manifest says, or of none."""
    for name in sorted(weights):
        if not (name.endswith(WEIGHTS_SUFFIX) or name == INDEX):
            raise ArtifactError(
                f"{root / MANIFEST} lists {name!r} as weights, which are *{WEIGHTS_SUFFIX} and {INDEX}. "
                "Export the folder again."
            )

    # Loaders read such a file for every target, so it is held to the checkpoint and belongs to no model.
    for name in sorted(models):
        if is_shared(name):
            raise ArtifactError(
                f"{root / MANIFEST} lists {name!r} as a file of a model, but it is one of the settings or documents of "
                "the whole folder. Export the folder again."
            )

    # A model that belongs to no target is measured nowhere.
    for name in sorted(listed - {*models, *weights}):
        if not is_shared(name):
            raise ArtifactError(
                f"{root / MANIFEST} lists {name!r} for no target, so nothing proves it. Export the folder again."
            )


def refuse_unknown_output(path: Path) -> None:
    """Raise OutputError if a file that is to be written would be an unknown one in a bundle, which the gate refuses."""
    if (path.parent / MANIFEST).is_file() and not is_document(PurePosixPath(path.name)):
        raise OutputError(
            f"{path} would be an unknown file in a folder that bge-export wrote, and the gate refuses such a folder. "
            "Write it elsewhere; a report may also be called parity-NAME.json."
        )


def is_shared(name: str) -> bool:
    """Return whether a file may belong to every artifact: settings of tokenizer, model and pooling, or a document."""
    path = PurePosixPath(name)
    settings = path.name in SHARED_NAMES or MODULE_WEIGHTS.fullmatch(name) is not None
    return settings or name in ABOUT_MODELS or name in BESIDE_ELAND or is_document(path)


def refuse_changed(root: Path, digests: Mapping[str, str]) -> None:
    """Raise ArtifactError if a listed file is missing or changed, or if the folder holds anything unknown.

    Args:
        root: the folder.
        digests: every file that the manifest lists -> its sha256.
    """
    refuse_changed_files(root, digests)
    refuse_strangers(root, digests)


def refuse_changed_files(root: Path, digests: Mapping[str, str]) -> None:
    """Raise ArtifactError if one of these files is missing or changed.

    Args:
        root: the folder.
        digests: files of the folder -> their sha256 in the manifest.
    """
    for name, digest in digests.items():
        try:
            found = file_sha256(root / name) if (root / name).is_file() else None
        except OSError as error:
            raise ArtifactError(f"{root / name} cannot be read: {error.strerror}. Export the folder again.") from error

        if found is None:
            raise ArtifactError(f"{root / name} is missing. Export the folder again.")
        if found != digest:
            raise ArtifactError(
                f"{root / name} is not the file that was exported: its bytes differ from {MANIFEST}. "
                "Export the folder again."
            )


def refuse_strangers(root: Path, listed: Collection[str]) -> None:
    """Raise ArtifactError if anything lies in a folder that is neither listed nor a document.

    Args:
        root: the folder.
        listed: the files that bge-export wrote, without the manifest.
    """
    try:
        found = next(strangers(root, {MANIFEST, *listed}), None)
    except OSError as error:
        raise ArtifactError(f"{error.filename} cannot be listed: {error.strerror}. Make it readable.") from error

    if found is not None:
        name, reason = found
        raise ArtifactError(
            f"{root / name} {reason}. Remove it, or export the folder again. Besides what an export writes, a folder "
            f"holds only {KINDS}."
        )


def decides(path: PurePosixPath) -> bool:
    """Return whether a file (name in lower case) is a model file, or one that affects how a model is loaded or used."""
    named = path.name in DECIDING_NAMES or path.as_posix() in (*ABOUT_MODELS, *BESIDE_ELAND)
    return named or path.suffix in MODEL_SUFFIXES or belongs_to_a_model(path)


def files_below(root: Path) -> Iterator[str]:
    """Yield the relative names of a folder's files, sorted; manifest, report and limits are left out."""
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_file() and name not in (MANIFEST, REPORT, LIMITS):
            yield name
