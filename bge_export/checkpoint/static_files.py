"""Reads static embeddings: one row of a table a token, as sentence-transformers' StaticEmbedding and model2vec save it.

Both libraries average the rows of a text's tokens, without special tokens. model2vec leaves unknown tokens out of the
mean and reads 512 tokens; StaticEmbedding averages them too, and reads texts of any length. Which of the two a folder
is of, the name of its table says.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bge_export.checkpoint.config_file import CONFIG
from bge_export.checkpoint.module_files import KINDS as FOLLOWING
from bge_export.checkpoint.pooling_files import MODULES
from bge_export.checkpoint.static_table import EMBEDDINGS, read_table
from bge_export.checkpoint.static_tokenizer import StaticTokenizer, read_static_tokenizer
from bge_export.checkpoint.tokenizer_settings import TOKENIZER
from bge_export.checkpoint.weight_files import SINGLE, header_shapes
from bge_export.errors import CheckpointError
from bge_export.files.json_files import positive_integer, read_object_if_there, read_objects

MODULE = "StaticEmbedding"
MODEL2VEC = "model2vec"
MODEL2VEC_TOKENS = 512
"""Tokens that model2vec reads of a text, if config.json says no other number (max_length)."""

MOST_TOKENS = 32_768
"""Tokens that a folder's tokenizer keeps of a text if the library reads texts of any length."""


@dataclass(frozen=True)
class StaticFiles:
    """A static model.

    Attributes:
        weights: the file of its table.
        tokenizer: its tokenizer.
        rows: V, the number of token ids that have a row.
        dim: D, the width of the table.
        max_tokens: the longest input.
        unbounded: whether its library reads longer texts whole.
        dropped: the id of the unknown token, if it is left out of the mean.
        following: class and folder of the modules after it, as `modules.json` names them.
    """

    weights: Path
    tokenizer: StaticTokenizer
    rows: int
    dim: int
    max_tokens: int
    unbounded: bool
    dropped: int | None
    following: tuple[tuple[str, str], ...]

    @property
    def divided(self) -> bool:
        """Return whether the mean is divided by its norm at once, so that its length means nothing."""
        return bool(self.following) and self.following[0][0].endswith(".Normalize")


def read_static_files(root: Path) -> StaticFiles | None:
    """Return the static model of a folder; None if it holds another.

    Raises:
        CheckpointError: a file is missing or malformed, or contradicts another.
    """
    listed = _listed(root)
    config = read_object_if_there(root / CONFIG)
    if listed is None and config.get("model_type") != MODEL2VEC and not _holds_embeddings(root, config):
        return None

    entries = listed or [(f"sentence_transformers.models.{MODULE}", "")]
    folder = root / entries[0][1]
    for path in (folder / SINGLE, folder / TOKENIZER):
        if not path.is_file():
            raise CheckpointError(f"{path} is missing, a part of this static embedding. Fetch it too.")

    tokenizer = read_static_tokenizer(folder / TOKENIZER)
    table = read_table(folder / SINGLE)
    if tokenizer.ids > table.rows:
        raise CheckpointError(
            f"{folder / SINGLE} has vectors of {table.rows} tokens, but {TOKENIZER} has {tokenizer.ids} ids. One of "
            "them belongs to another model: fetch both again."
        )

    following = tuple(entries[1:])
    if not table.model2vec:
        longest, dropped = tokenizer.truncation, None
    else:
        longest, dropped = _max_length(root / CONFIG, config), tokenizer.unknown
        following = _normalized(root, config, following, listed=listed is not None)

    return StaticFiles(
        weights=folder / SINGLE,
        tokenizer=tokenizer,
        rows=table.rows,
        dim=table.dim,
        max_tokens=min(longest or MOST_TOKENS, MOST_TOKENS),
        unbounded=longest is None or longest > MOST_TOKENS,
        dropped=dropped,
        following=following,
    )


def _listed(root: Path) -> list[tuple[str, str]] | None:
    """Return class and folder of each module of a static model; None if `modules.json` declares none."""
    path = root / MODULES
    if not path.is_file():
        return None

    entries = [(str(one.get("type", "")), str(one.get("path", ""))) for one in read_objects(path)]
    kinds = [kind.rpartition(".")[2] for kind, _ in entries]
    ours = all(kind.startswith("sentence_transformers.") for kind, _ in entries)
    if not ours or kinds[:1] != [MODULE]:
        return None

    if set(kinds[1:]) - set(FOLLOWING):
        raise CheckpointError(
            f"{path} declares the modules {kinds}; after one {MODULE} only {', '.join(FOLLOWING)} are supported. "
            "Choose a checkpoint without the others."
        )
    for _, folder in entries:
        if PurePosixPath(folder).is_absolute() or ".." in PurePosixPath(folder).parts or "\\" in folder:
            raise CheckpointError(f"{path} names the folder {folder!r}, outside the checkpoint. Do not use it.")
    return entries


def _holds_embeddings(root: Path, config: Mapping[str, object]) -> bool:
    """Return whether a folder without `modules.json` holds model2vec's tensors; newer ones name no model_type."""
    if "model_type" in config or not (root / CONFIG).is_file() or not (root / SINGLE).is_file():
        return False
    return EMBEDDINGS in header_shapes(root / SINGLE)


def _max_length(path: Path, config: Mapping[str, object]) -> int | None:
    """Return the number of tokens that model2vec reads; None for all."""
    declared = config.get("max_length", MODEL2VEC_TOKENS)
    number = positive_integer(declared)
    if number is None and declared is not None:
        raise CheckpointError(f"{path}: max_length is {declared!r}, not a positive whole number. Correct the file.")
    return number


def _normalized(
    root: Path, config: Mapping[str, object], following: tuple[tuple[str, str], ...], *, listed: bool
) -> tuple[tuple[str, str], ...]:
    """Return the modules after model2vec's table, with the division by the norm that config.json declares."""
    divides = any(kind.endswith(".Normalize") for kind, _ in following)
    said = config.get("normalize")
    if said is not None and not isinstance(said, bool):
        raise CheckpointError(f"{root / CONFIG}: normalize is {said!r}, not true or false. Correct the file.")

    declared = said is True if (root / CONFIG).is_file() else divides
    if listed and declared != divides:
        raise CheckpointError(
            f"{root / CONFIG} says normalize: {str(declared).lower()}, but {MODULES} lists {'a' if divides else 'no'} "
            "Normalize: model2vec and sentence-transformers would give vectors of different length. Correct one."
        )
    return following if listed or not declared else (("sentence_transformers.models.Normalize", "1_Normalize"),)
