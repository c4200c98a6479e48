"""Checks that the tokenizer files of a checkpoint exist and agree with each other."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bge_export.errors import CheckpointError
from bge_export.files.json_files import positive_integer, read_object, read_object_if_there
from bge_export.files.regular import TOKENIZER_BYTES, read_regular_text, refuse_irregular

TOKENIZER = "tokenizer.json"
SETTINGS = "tokenizer_config.json"
VOCABULARIES = (
    "vocab.txt",
    "vocab.json",
    "sentencepiece.bpe.model",
    "sentencepiece.model",
    "spiece.model",
    "spm.model",
    "tokenizer.model",
)
"""Files from which transformers can build the tokenizer if `tokenizer.json` is missing."""

TOKENIZER_FILES = (
    TOKENIZER,
    SETTINGS,
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    *VOCABULARIES,
)
UNBOUNDED = 1_000_000
"""transformers writes a `model_max_length` of 1e30 for a tokenizer without a limit."""


@dataclass(frozen=True)
class TokenizerFiles:
    """Declarations of the tokenizer files.

    Attributes:
        files: the existing files, relative to the folder.
        ids: the highest token id plus one; None if only a SentencePiece model knows it.
        max_length: the longest input that the tokenizer declares.
    """

    files: tuple[str, ...]
    ids: int | None
    max_length: int | None


def read_tokenizer_files(root: Path, lower_case: bool) -> TokenizerFiles:
    """Read the tokenizer files; `lower_case` is the setting of the sentence-transformers files.

    Raises:
        CheckpointError: files are missing or malformed, or one contradicts another.
    """
    files = tuple(name for name in TOKENIZER_FILES if (root / name).is_file())
    if not {TOKENIZER, *VOCABULARIES} & set(files):
        raise CheckpointError(
            f"{root / TOKENIZER} is missing, and so is every vocabulary it could be built from "
            f"({', '.join(VOCABULARIES)}). Fetch the tokenizer's files too."
        )

    refuse_large(root)
    settings = read_object_if_there(root / SETTINGS)
    if settings.get("auto_map"):
        raise CheckpointError(
            f"{root / SETTINGS} asks to run code from the repository (auto_map), which is never done here. "
            "Choose a checkpoint whose tokenizer transformers knows."
        )

    max_length = positive_integer(settings.get("model_max_length"))
    ids = _check_tokenizer(root, settings, lower_case) if TOKENIZER in files else _vocabulary_size(root)
    return TokenizerFiles(files, ids, max_length if max_length and max_length < UNBOUNDED else None)


def refuse_large(root: Path) -> None:
    """Raise CheckpointError if a file is larger than any tokenizer: libraries read these files whole."""
    for name in (*TOKENIZER_FILES, "config.json", "chat_template.jinja"):
        try:
            if (root / name).is_file():
                refuse_irregular(root / name, TOKENIZER_BYTES)
        except OSError as error:
            raise CheckpointError(f"{root / name} cannot be read: {error.strerror}. Fetch the file again.") from error


def _check_tokenizer(root: Path, settings: Mapping[str, object], lower_case: bool) -> int | None:
    """Compare `tokenizer.json` with the other files; return its highest id plus one."""
    path = root / TOKENIZER
    tokenizer = read_object(path, TOKENIZER_BYTES)
    model = tokenizer.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), (dict, list)):
        raise CheckpointError(f"{path} holds no tokenizer model with a vocabulary. Fetch the file again.")

    lowers = _lowers(tokenizer.get("normalizer"))
    declared = settings.get("do_lower_case")
    if isinstance(declared, bool) and declared != lowers:
        raise CheckpointError(
            f"{root / SETTINGS} says do_lower_case: {str(declared).lower()}, but the normalizer of {path.name} "
            f"{'lowercases' if lowers else 'does not lowercase'}: readers of one file would get other embeddings than "
            "readers of the other. Correct one of them after the model's card."
        )

    if lower_case and not lowers:
        raise CheckpointError(
            f"{root}: the sentence-transformers settings lowercase texts (do_lower_case: true), {path.name} does not. "
            "Correct one of them after the model's card."
        )

    vocabulary = _ids(path, model["vocab"])
    if model.get("type") == "WordPiece" and (root / "vocab.txt").is_file():
        _refuse_other_vocabulary(root, vocabulary)

    return max([*vocabulary.values(), *_added_ids(tokenizer.get("added_tokens"))], default=-1) + 1


def _lowers(normalizer: object) -> bool:
    """Return whether a normalizer of `tokenizer.json`, or one of its parts, lowercases texts."""
    if not isinstance(normalizer, dict):
        return False

    parts = normalizer.get("normalizers")
    if isinstance(parts, list):
        return any(_lowers(part) for part in parts)

    return normalizer.get("type") == "Lowercase" or normalizer.get("lowercase") is True


def _ids(path: Path, vocabulary: dict[str, object] | list[object]) -> dict[str, int]:
    """Return token -> id; Unigram models list [token, score] pairs in id order."""
    if isinstance(vocabulary, list):
        return {str(pair[0]): i for i, pair in enumerate(vocabulary) if isinstance(pair, list) and pair}

    ids = {token: value for token, value in vocabulary.items() if isinstance(value, int)}
    if len(ids) != len(vocabulary):
        raise CheckpointError(f"{path}: the vocabulary holds ids that are not whole numbers. Fetch the file again.")

    return ids


def _added_ids(added: object) -> list[int]:
    entries = added if isinstance(added, list) else []
    return [entry["id"] for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), int)]


def _refuse_other_vocabulary(root: Path, vocabulary: Mapping[str, int]) -> None:
    """Raise CheckpointError, with the first difference, unless `vocab.txt` maps the same tokens to the same ids."""
    listed = {number: token for token, number in _read_vocabulary(root / "vocab.txt").items()}
    built = {number: token for token, number in vocabulary.items()}
    if listed == built:
        return

    number = min(i for i in listed.keys() | built.keys() if listed.get(i) != built.get(i))
    raise CheckpointError(
        f"{root}: vocab.txt and {TOKENIZER} disagree, first at id {number}: {listed.get(number)!r} in vocab.txt, "
        f"{built.get(number)!r} in {TOKENIZER}. Delete the one that does not belong to these weights."
    )


def _read_vocabulary(path: Path) -> dict[str, int]:
    """Return token -> id of a `vocab.txt`, read as transformers reads it (of two equal lines the last counts)."""
    try:
        lines = io.StringIO(read_regular_text(path, TOKENIZER_BYTES), newline=None)
        return {line.rstrip("\n"): number for number, line in enumerate(lines)}
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} is not UTF-8 text: {error}. Fetch the file again.") from error


def _vocabulary_size(root: Path) -> int | None:
    """Return the highest id plus one of a checkpoint that has only a vocabulary."""
    if (root / "vocab.txt").is_file():
        return len(_read_vocabulary(root / "vocab.txt"))
    if (root / "vocab.json").is_file():
        path = root / "vocab.json"
        return max(_ids(path, read_object(path, TOKENIZER_BYTES)).values(), default=-1) + 1
    return None
