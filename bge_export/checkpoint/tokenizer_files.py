"""Checks that the tokenizer files of a checkpoint exist and agree with each other."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bge_export.checkpoint.tokenizer_settings import (
    SETTINGS,
    TOKENIZER,
    padding_side,
    refuse_contradictions,
    refuse_left_truncation,
)
from bge_export.contracts import Side
from bge_export.errors import CheckpointError
from bge_export.files.json_files import positive_integer, read_object, read_object_if_there
from bge_export.files.regular import TOKENIZER_BYTES, read_regular_text, refuse_irregular

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
        ids: the highest id of the vocabulary plus one; None if only a SentencePiece model knows it.
        added: the added token with the highest id, and that id; None if there are none.
        max_length: the longest input that the tokenizer declares.
        padding_side: where the tokenizer pads.
    """

    files: tuple[str, ...]
    ids: int | None
    added: tuple[str, int] | None
    max_length: int | None
    padding_side: Side = "right"


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
            f"{root / SETTINGS} asks to run code from the repository (auto_map), which bge-export never does. "
            "Choose a checkpoint whose tokenizer transformers knows."
        )

    refuse_left_truncation(root / SETTINGS, settings.get("truncation_side"))
    max_length = positive_integer(settings.get("model_max_length"))
    if max_length is not None and max_length >= UNBOUNDED:
        max_length = None

    if TOKENIZER not in files:
        return TokenizerFiles(files, _vocabulary_size(root), None, max_length, padding_side(settings, {}))

    tokenizer = read_object(root / TOKENIZER, TOKENIZER_BYTES)
    found = _check_tokenizer(root, settings, tokenizer, lower_case)
    return TokenizerFiles(files, *found, max_length, padding_side(settings, tokenizer))


def refuse_large(root: Path) -> None:
    """Raise CheckpointError if a file is larger than any tokenizer: libraries read these files whole."""
    for name in (*TOKENIZER_FILES, "config.json", "chat_template.jinja"):
        try:
            if (root / name).is_file():
                refuse_irregular(root / name, TOKENIZER_BYTES)
        except OSError as error:
            raise CheckpointError(f"{root / name} cannot be read: {error.strerror}. Fetch the file again.") from error


def _check_tokenizer(
    root: Path, settings: Mapping[str, object], tokenizer: Mapping[str, object], lower_case: bool
) -> tuple[int | None, tuple[str, int] | None]:
    """Compare `tokenizer.json` with the other files; return its highest id plus one and its last added token."""
    path = root / TOKENIZER
    model = tokenizer.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), (dict, list)):
        raise CheckpointError(f"{path} holds no tokenizer model with a vocabulary. Fetch the file again.")

    refuse_contradictions(root, settings, tokenizer, lower_case)
    vocabulary = _ids(path, model["vocab"])
    if model.get("type") == "WordPiece" and (root / "vocab.txt").is_file():
        _refuse_other_vocabulary(root, vocabulary)

    added = _added_ids(tokenizer.get("added_tokens"))
    last = max(added.items(), key=lambda item: item[1], default=None)
    return max(vocabulary.values(), default=-1) + 1, last


def _ids(path: Path, vocabulary: dict[str, object] | list[object]) -> dict[str, int]:
    """Return token -> id; Unigram models list [token, score] pairs in id order."""
    if isinstance(vocabulary, list):
        return {str(pair[0]): i for i, pair in enumerate(vocabulary) if isinstance(pair, list) and pair}

    ids = {token: value for token, value in vocabulary.items() if isinstance(value, int)}
    if len(ids) != len(vocabulary):
        raise CheckpointError(f"{path}: the vocabulary holds ids that are not whole numbers. Fetch the file again.")

    return ids


def _added_ids(added: object) -> dict[str, int]:
    """Return added token -> id."""
    entries = [entry for entry in added if isinstance(entry, dict)] if isinstance(added, list) else []
    return {str(entry.get("content")): entry["id"] for entry in entries if isinstance(entry.get("id"), int)}


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
    """Return token -> id of a `vocab.txt`, read as transformers reads it (of two equal lines the last counts).

    Blank lines at the end, which editors leave, are no tokens: no text contains them.
    """
    try:
        stream = io.StringIO(read_regular_text(path, TOKENIZER_BYTES), newline=None)
        lines = [line.rstrip("\n") for line in stream]
        while lines and not lines[-1].strip():
            lines.pop()
        return {line: number for number, line in enumerate(lines)}
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
