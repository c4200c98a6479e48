"""Reads the sentence-transformers files of a checkpoint, in the old and the new (>= 5.4) schema."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bge_export.checkpoint.module_files import KINDS as FOLLOWING
from bge_export.checkpoint.module_files import Module, read_modules
from bge_export.contracts import Pooling
from bge_export.errors import CheckpointError
from bge_export.files.json_files import positive_integer, read_object, read_object_if_there, read_objects

MODULES = "modules.json"
PROMPTS = "config_sentence_transformers.json"
TRANSFORMER_SETTINGS = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
"""Settings files of the Transformer module; sentence-transformers reads the first one that exists."""

SUPPORTED: Mapping[str, Pooling] = {
    "cls": "cls",
    "mean": "mean",
    "lasttoken": "last",
    "max": "max",
    "mean_sqrt_len_tokens": "mean_sqrt_len",
    "weightedmean": "weightedmean",
}
"""Mode in the files -> pooling."""

FLAGS: Mapping[str, str] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
MEAN_FLAG = "pooling_mode_mean_tokens"
KINDS = ("Transformer", "Pooling", *FOLLOWING)

DOCUMENT_PROMPTS = ("document", "passage", "corpus")
"""Names under which sentence-transformers looks for the prompt of documents, in this order."""


@dataclass(frozen=True)
class SentenceFiles:
    """Declarations of the sentence-transformers files.

    Attributes:
        pooling: the declared pooling; None if there is none.
        normalize: whether the embedding is divided by its norm; True if there is no `modules.json`.
        width: the declared width of the token states.
        max_seq_length: the declared longest input in tokens.
        lower_case: whether texts are lowercased before they are tokenised.
        prompts: the declared prompts of `query` and `document`; empty if both are.
        modules: the modules after pooling, Normalize among them.
        truncate_dim: the declared number of leading dimensions that the embedding keeps; None for all.
        cross_encoder: whether they declare a reranker (a CrossEncoder) in place of an embedding.
        files: the files that were read, relative to the folder.
    """

    pooling: Pooling | None
    normalize: bool
    width: int | None
    max_seq_length: int | None
    lower_case: bool
    prompts: Mapping[str, str]
    modules: tuple[Module, ...]
    truncate_dim: int | None
    cross_encoder: bool
    files: tuple[str, ...]


def read_sentence_files(root: Path) -> SentenceFiles:
    """Read `modules.json` and the files of its modules.

    Raises:
        CheckpointError: a file is malformed, contradicts another, or declares something that no artifact supports.
    """
    listed = _read_modules(root)
    pooling_file = f"{listed[1][1]}/config.json" if len(listed) > 1 else None
    modules = read_modules(root, listed[2:])
    settings_file = next((name for name in TRANSFORMER_SETTINGS if (root / name).is_file()), None)
    pooling, width = _read_pooling(root / pooling_file) if pooling_file else (None, None)

    declared = read_object_if_there(root / PROMPTS)
    settings = read_object(root / settings_file) if settings_file else {}
    task = settings.get("transformer_task", "feature-extraction")
    cross_encoder = declared.get("model_type") == "CrossEncoder" or task == "sequence-classification"
    if task not in ("feature-extraction", "sequence-classification"):
        raise CheckpointError(
            f"{root / str(settings_file)} declares the task {task!r}; only 'feature-extraction' gives token states, "
            "and 'sequence-classification' scores. Choose an embedding model or a reranker."
        )

    candidates = (MODULES, pooling_file, settings_file, PROMPTS, *(name for one in modules for name in one.files))
    return SentenceFiles(
        pooling=pooling,
        normalize=not listed or (bool(modules) and modules[-1].kind == "normalize"),
        width=width,
        max_seq_length=positive_integer(settings.get("max_seq_length")),
        lower_case=settings.get("do_lower_case") is True,
        prompts=declared_prompts(root / PROMPTS, declared),
        modules=modules,
        truncate_dim=positive_integer(declared.get("truncate_dim")),
        cross_encoder=cross_encoder,
        files=tuple(name for name in candidates if name and (root / name).is_file()),
    )


def _read_modules(root: Path) -> list[tuple[str, str]]:
    """Return kind and folder of each module, in the order of `modules.json`; nothing if the file does not exist."""
    path = root / MODULES
    if not path.is_file():
        if (root / "1_Pooling").is_dir():
            raise CheckpointError(f"{path} is missing beside 1_Pooling: the checkpoint is incomplete. Fetch it again.")
        return []

    kinds = [_kind(path, entry) for entry in read_objects(path)]
    folders = [str(entry.get("path", "")) for entry in read_objects(path)]
    if kinds[:2] not in (["Transformer"], ["Transformer", "Pooling"]) or set(kinds[2:]) - set(FOLLOWING):
        raise CheckpointError(
            f"{path} declares the modules {kinds}; supported is the order Transformer, Pooling and then any of "
            f"{', '.join(FOLLOWING)}. Correct the order, or choose a checkpoint without other modules."
        )

    if folders[0]:
        raise CheckpointError(
            f"{path} keeps the transformer in {folders[0]!r}; it must be in the checkpoint's own folder. "
            "Save the checkpoint again with a current sentence-transformers."
        )

    for folder in folders:
        if PurePosixPath(folder).is_absolute() or ".." in PurePosixPath(folder).parts or "\\" in folder:
            raise CheckpointError(f"{path} names the folder {folder!r}, outside the checkpoint. Do not use it.")

    return list(zip(kinds, folders, strict=True))


def _kind(path: Path, entry: Mapping[str, object]) -> str:
    """Return the class of a module, such as Pooling; its import path differs between versions."""
    declared = str(entry.get("type", ""))
    kind = declared.rpartition(".")[2]
    if not declared.startswith("sentence_transformers.") or kind not in KINDS:
        raise CheckpointError(
            f"{path} declares the module {declared!r}, which the artifacts would leave out and so give other "
            f"embeddings. Supported modules: {', '.join(KINDS)}. Choose a checkpoint without it."
        )

    return kind


def _read_pooling(path: Path) -> tuple[Pooling | None, int | None]:
    """Return the declared pooling and the declared width of the token states."""
    config = read_object(path)
    if config.get("include_prompt", True) is not True:
        raise CheckpointError(
            f"{path} leaves the prompt's tokens out of pooling (include_prompt: false), which no exported graph does. "
            "Choose a checkpoint that pools every token."
        )

    # The new schema names the modes, the old one has a flag for each. A file with both must agree.
    flagged = [mode for flag, mode in FLAGS.items() if config.get(flag) is True]
    named = _named_modes(path, config.get("pooling_mode"))
    if named and any(flag in config for flag in FLAGS) and sorted(named) != sorted(flagged):
        raise CheckpointError(
            f"{path} contradicts itself: pooling_mode says {named}, the pooling_mode_* flags say {flagged}. "
            "Correct the file after the model's card."
        )

    modes = named or flagged
    if len(modes) > 1 or not set(modes) <= set(SUPPORTED):
        raise CheckpointError(
            f"{path} declares the pooling {' + '.join(modes)}; supported is one of {', '.join(SUPPORTED)}. "
            "Choose a checkpoint that uses one of them."
        )

    width = positive_integer(config.get("embedding_dimension", config.get("word_embedding_dimension")))
    return _mode(path, config, named, flagged), width


def _mode(path: Path, config: Mapping[str, object], named: Sequence[str], flagged: Sequence[str]) -> Pooling | None:
    """Return the pooling of a file whose modes are supported; None if it rules every mode out.

    Versions of sentence-transformers read a missing flag for the mean differently: as true up to 5.2, later as true
    only if no flag is there at all.
    """
    if named:
        return SUPPORTED[named[0]]

    flags = [flag for flag in FLAGS if flag in config]
    if flags and MEAN_FLAG not in config:
        raise CheckpointError(
            f"{path} has {', '.join(flags)} without {MEAN_FLAG}: sentence-transformers up to 5.2 then adds the mean, "
            f"later versions do not. Add {MEAN_FLAG} after the model's card, as false if it uses one pooling."
        )

    if not flags:
        return "mean"
    return SUPPORTED[flagged[0]] if flagged else None


def _named_modes(path: Path, value: object) -> list[str]:
    """Return the modes in the new schema's `pooling_mode`: a string or a list of strings."""
    modes = [value] if isinstance(value, str) else value
    if modes is None:
        return []

    if not isinstance(modes, list) or not all(isinstance(mode, str) for mode in modes):
        raise CheckpointError(f"{path}: pooling_mode {value!r} is not a known pooling. Correct the file.")
    return modes


def declared_prompts(path: Path, config: Mapping[str, object]) -> dict[str, str]:
    """Return the prompts of queries and documents; raise CheckpointError if a prompt is put before every text.

    A prompt that is null is none, as in sentence-transformers.
    """
    prompts = config.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(prompt, str | None) for prompt in prompts.values()):
        raise CheckpointError(f"{path}: 'prompts' must map names to texts. Correct the file.")

    default = config.get("default_prompt_name")
    if default is not None and prompts.get(default):
        raise CheckpointError(
            f"{path} puts the prompt {default!r} before every text by default, which no exported graph does. "
            "Set default_prompt_name to null and give the prompt with the texts."
        )

    # `encode_document` takes the first of these names that is declared, even if its prompt is empty.
    document = next((prompts[name] for name in DOCUMENT_PROMPTS if name in prompts), None)
    found = {"query": prompts.get("query") or "", "document": document or ""}
    return found if any(found.values()) else {}
