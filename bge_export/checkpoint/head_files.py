"""Reads the files of SPLADE and ColBERT models, which give token weights or vectors of tokens.

SPLADE is a masked language model with sentence-transformers' SpladePooling; ColBERT is an encoder with Dense modules on
token states, as PyLate and sentence-transformers' MultiVectorEncoder save it. `m3_files` reads BGE-M3's heads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from bge_export.checkpoint.pooling_files import (
    MODULES,
    PROMPTS,
    TRANSFORMER_SETTINGS,
    SentenceFiles,
    declared_prompts,
    read_sentence_files,
)
from bge_export.checkpoint.weight_files import SINGLE, header_shapes
from bge_export.contracts import Head
from bge_export.errors import CheckpointError
from bge_export.files.json_files import positive_integer, read_object, read_object_if_there, read_objects
from bge_export.heads.multi_vector import MultiVectorHead
from bge_export.heads.sparse import SparseHead

IDENTITY = "Identity"
SPLADE, MASK = "SpladePooling", "MultiVectorMask"
TOKEN_INPUT = "token_embeddings"  # noqa: S105 - a key of sentence-transformers
MULTI_VECTOR_TYPES = ("ColBERT", "MultiVectorEncoder")
LIBRARIES = ("sentence_transformers.", "pylate.")
"""How the import path of a known module begins: what another package computes under the same name is not known."""
AS_EMBEDDING = "To embed texts with its encoder alone, add --as embedding and the pooling (--pooling)."


@dataclass(frozen=True)
class TokenModules:
    """What `modules.json` declares of a SPLADE or ColBERT model.

    Attributes:
        sentence: the declarations that every model has: longest input, prompts, files.
        splade: the settings of its SpladePooling; None of a ColBERT model.
        layers: the folders of its Dense modules, in their order.
        normalize: whether each vector is divided by its norm.
        entries: import path and folder of each module, in their order.
    """

    sentence: SentenceFiles
    splade: Mapping[str, object] | None
    layers: tuple[str, ...]
    normalize: bool
    entries: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class OwnHeads:
    """The heads of a model that gives more than one vector a text, and the files of their own layers.

    Attributes:
        heads: kind -> head; without the dense one.
        weights: kind -> its safetensors files.
    """

    heads: Mapping[str, Head]
    weights: Mapping[str, tuple[str, ...]]


def read_token_modules(root: Path) -> TokenModules | None:
    """Return what `modules.json` declares of a SPLADE or ColBERT model; None for every other model.

    Raises:
        CheckpointError: it declares a module that no file of ours has.
    """
    if not (root / MODULES).is_file():
        return None

    entries = [(str(one.get("type", "")), str(one.get("path", ""))) for one in read_objects(root / MODULES)]
    kinds = [declared.rpartition(".")[2] for declared, _ in entries]
    declared = read_object_if_there(root / PROMPTS)
    late = declared.get("model_type") in MULTI_VECTOR_TYPES or MASK in kinds
    late = late or any(name.startswith("pylate.") for name, _ in entries)
    if SPLADE not in kinds and not late:
        return None

    for name, folder in entries:
        if not name.startswith(LIBRARIES):
            raise CheckpointError(
                f"{root / MODULES} declares the module {name!r}, of neither sentence-transformers nor PyLate: nobody "
                f"knows what it computes. {AS_EMBEDDING}"
            )
        if PurePosixPath(folder).is_absolute() or ".." in PurePosixPath(folder).parts or "\\" in folder:
            raise CheckpointError(
                f"{root / MODULES} names the folder {folder!r}, outside the checkpoint. Do not use it."
            )

    if SPLADE in kinds:
        if kinds not in (["MLMTransformer", SPLADE], ["Transformer", SPLADE]) or entries[0][1]:
            raise _unsupported(root, kinds, f"Transformer and {SPLADE}")
        path = root / entries[1][1] / "config.json"
        files = (f"{entries[1][1]}/config.json",) if path.is_file() else ()
        return TokenModules(_sentence(root, declared, files), read_object_if_there(path), (), False, tuple(entries))

    return _late_interaction(root, entries, kinds, declared)


def read_declarations(root: Path) -> SentenceFiles:
    """Return what the files of sentence-transformers declare, whatever head the model has.

    Raises:
        CheckpointError: a file is malformed, contradicts another, or declares something that no artifact supports.
    """
    modules = read_token_modules(root)
    return read_sentence_files(root) if modules is None else modules.sentence


def _late_interaction(
    root: Path, entries: Sequence[tuple[str, str]], kinds: Sequence[str], declared: Mapping[str, object]
) -> TokenModules:
    """Return what the modules of a ColBERT model declare: Dense on token states, then perhaps a mask and a norm."""
    middle = [kind for kind in kinds[1:] if kind not in (MASK, "Normalize")]
    order = [*kinds[: len(middle) + 1], *sorted(kinds[len(middle) + 1 :])]
    known = ["Transformer", *["Dense"] * len(middle)]
    if order not in (known, [*known, MASK], [*known, MASK, "Normalize"], [*known, "Normalize"]) or entries[0][1]:
        raise _unsupported(root, kinds, f"Transformer, Dense on tokens, {MASK} and Normalize")

    folders = tuple(path for (_, path), kind in zip(entries, kinds, strict=True) if kind == "Dense")
    for folder in folders:
        _refuse_other_dense(root / folder / "config.json", late=declared.get("model_type") in MULTI_VECTOR_TYPES)

    # PyLate normalises when it encodes; sentence-transformers has a module for it.
    by_pylate = declared.get("model_type") == "ColBERT" or any(name.startswith("pylate.") for name, _ in entries)
    norms = [path for (_, path), kind in zip(entries, kinds, strict=True) if kind == "Normalize"]
    normalize = by_pylate or any(map(partial(_of_tokens, root), norms))
    others = [path for (_, path), kind in zip(entries, kinds, strict=True) if kind == MASK]
    files = tuple(f"{folder}/config.json" for folder in (*folders, *norms, *others))
    return TokenModules(_sentence(root, declared, files), None, folders, normalize, tuple(entries))


def _of_tokens(root: Path, folder: str) -> bool:
    """Return whether a Normalize module divides vectors of tokens; by default it reads the vector of a text."""
    return read_object_if_there(root / folder / "config.json").get("module_input_name") == TOKEN_INPUT


def _refuse_other_dense(path: Path, *, late: bool) -> None:
    """Raise CheckpointError for a Dense module that is more than a linear layer on token states."""
    settings = read_object(path)
    activation = str(settings.get("activation_function", IDENTITY)).rpartition(".")[2]
    read = settings.get("module_input_name", TOKEN_INPUT if late else None)

    reason = None
    if activation != IDENTITY:
        reason = f"has the activation {activation}"
    elif settings.get("use_residual") is True:
        reason = "adds its input to its output (use_residual)"
    elif read not in (TOKEN_INPUT, None):
        reason = f"reads {read!r}"
    if reason is not None:
        raise CheckpointError(f"{path}: this Dense {reason}, which no exported graph does. {AS_EMBEDDING}")


def _unsupported(root: Path, kinds: Sequence[str], known: str) -> CheckpointError:
    return CheckpointError(
        f"{root / MODULES} declares the modules {list(kinds)}; supported is the order {known}. {AS_EMBEDDING}"
    )


def _sentence(root: Path, declared: Mapping[str, object], files: tuple[str, ...]) -> SentenceFiles:
    """Return the declarations that every model has. PyLate keeps longest inputs and prefixes beside the prompts."""
    name = next((name for name in TRANSFORMER_SETTINGS if (root / name).is_file()), None)
    settings = read_object(root / name) if name else {}
    lengths = [settings.get(key) for key in ("max_seq_length", "document_length", "query_length")]
    lengths += [declared.get(key) for key in ("document_length", "query_length")]
    known = [length for length in map(positive_integer, lengths) if length is not None]

    prefixes = {use: declared.get(f"{use}_prefix") for use in ("query", "document")}
    texts = {use: text for use, text in prefixes.items() if isinstance(text, str) and text}
    prompts = declared_prompts(root / PROMPTS, declared) or ({"query": "", "document": "", **texts} if texts else {})

    candidates = (MODULES, *files, name, PROMPTS)
    return SentenceFiles(
        pooling=None,
        normalize=True,
        width=None,
        max_seq_length=max(known, default=None),
        lower_case=settings.get("do_lower_case") is True,
        prompts=prompts,
        modules=(),
        truncate_dim=None,
        cross_encoder=False,
        files=tuple(one for one in candidates if one and (root / one).is_file()),
    )


def heads_of_modules(root: Path, modules: TokenModules, config: Mapping[str, object], width: int) -> OwnHeads:
    """Return the head of a SPLADE or ColBERT model.

    Args:
        root: the folder.
        modules: what `modules.json` declares.
        config: `config.json`.
        width: D, the width of the token states.

    Raises:
        CheckpointError: files are missing, or contradict each other.
    """
    if modules.splade is not None:
        return OwnHeads({SparseHead.kind: _splade(root, modules.splade, config)}, {})

    names, size = [], width
    for folder in modules.layers:
        name = f"{folder}/{SINGLE}"
        size = layer_width(root, name, "linear.weight", size)
        names.append(name)

    head = MultiVectorHead(size, skipped=0, normalize=modules.normalize)
    return OwnHeads({MultiVectorHead.kind: head}, {MultiVectorHead.kind: tuple(names)})


def _splade(root: Path, settings: Mapping[str, object], config: Mapping[str, object]) -> SparseHead:
    """Return the head that a SpladePooling declares."""
    architectures = config.get("architectures")
    names = architectures if isinstance(architectures, list) else []
    if not any(str(name).endswith("ForMaskedLM") for name in names):
        raise CheckpointError(
            f"{root} declares a {SPLADE}, but config.json names {names or 'no architecture'} and no "
            f"*ForMaskedLM, whose logits it reads. Correct config.json. {AS_EMBEDDING}"
        )

    pooling, activation = settings.get("pooling_strategy", "max"), settings.get("activation_function", "relu")
    if pooling not in ("max", "sum") or activation not in ("relu", "log1p_relu"):
        raise CheckpointError(
            f"{root}: its {SPLADE} has the pooling {pooling!r} and the activation {activation!r}; supported are max "
            f"and sum, relu and log1p_relu. {AS_EMBEDDING}"
        )

    vocabulary = positive_integer(config.get("vocab_size"))
    if vocabulary is None:
        raise CheckpointError(f"{root / 'config.json'} gives no vocab_size. Correct config.json.")
    return SparseHead("vocabulary", vocabulary, (), "max" if pooling == "max" else "sum", activation == "log1p_relu")


def layer_width(root: Path, name: str, tensor: str, width: int) -> int:
    """Return the output width of a linear layer, [out, in], whose input width is given."""
    if not (root / name).is_file():
        raise CheckpointError(
            f"{root / name} is missing, the weights of a layer. Fetch it, or add --allow-pickle if it is a pickle."
        )

    shape = header_shapes(root / name).get(tensor, ())
    if len(shape) != 2 or shape[1] != width:
        raise CheckpointError(
            f"{root / name}: {tensor!r} is {list(shape)}, and its input is {width} wide. It belongs to another model: "
            "fetch it again."
        )
    return shape[0]
