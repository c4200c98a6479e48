"""Reads the tokenizer of a static embedding: `tokenizer.json` alone, used without the special tokens that it has."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bge_export.errors import CheckpointError
from bge_export.files.json_files import positive_integer, read_object
from bge_export.files.regular import TOKENIZER_BYTES

PADS = ("[PAD]", "<pad>")


@dataclass(frozen=True)
class StaticTokenizer:
    """What a static model's `tokenizer.json` says.

    Attributes:
        path: the file.
        ids: the highest id plus one.
        unknown: the id of the unknown token; None if there is none.
        pad: a token to fill batches with. The mask leaves it out, so any will do that text rarely holds.
        truncation: the length to which it cuts texts; None if it does not.
    """

    path: Path
    ids: int
    unknown: int | None
    pad: str
    truncation: int | None


def read_static_tokenizer(path: Path) -> StaticTokenizer:
    """Read a `tokenizer.json`.

    Raises:
        CheckpointError: it holds no vocabulary, or no token that could fill a batch.
    """
    tokenizer = read_object(path, TOKENIZER_BYTES)
    model = tokenizer.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), (dict, list)):
        raise CheckpointError(f"{path} holds no tokenizer model with a vocabulary. Fetch the file again.")

    vocabulary = _vocabulary(model["vocab"])
    added = tokenizer.get("added_tokens")
    entries = [one for one in added if isinstance(one, dict)] if isinstance(added, list) else []
    special = {str(one.get("content")): one["id"] for one in entries if isinstance(one.get("id"), int)}
    known = vocabulary | special

    truncation = tokenizer.get("truncation")
    longest = positive_integer(truncation.get("max_length")) if isinstance(truncation, dict) else None
    unknown = _unknown(path, model, known)
    return StaticTokenizer(
        path=path,
        ids=max(known.values(), default=-1) + 1,
        unknown=unknown,
        pad=_pad(path, tokenizer, known, special, unknown),
        truncation=longest,
    )


def _vocabulary(vocabulary: dict[str, object] | list[object]) -> dict[str, int]:
    """Return token -> id; Unigram models list [token, score] pairs in id order."""
    if isinstance(vocabulary, list):
        return {str(pair[0]): number for number, pair in enumerate(vocabulary) if isinstance(pair, list) and pair}
    return {token: number for token, number in vocabulary.items() if isinstance(number, int)}


def _unknown(path: Path, model: Mapping[str, object], known: Mapping[str, int]) -> int | None:
    """Return the id that the tokenizer gives to what it does not know: Unigram models name its id, others its text."""
    vocabulary = model["vocab"]
    if not isinstance(vocabulary, list):
        name = model.get("unk_token")
        return known.get(name) if isinstance(name, str) else None

    number = model.get("unk_id")
    if number is None or (type(number) is int and 0 <= number < len(vocabulary)):
        return number
    raise CheckpointError(f"{path}: unk_id is {number!r}, no id of its {len(vocabulary)} tokens. Fetch the file again.")


def _pad(
    path: Path,
    tokenizer: Mapping[str, object],
    known: Mapping[str, int],
    special: Mapping[str, int],
    unknown: int | None,
) -> str:
    """Return the token to fill batches with: the tokenizer's own, else one that no ordinary text holds."""

    def candidates() -> Iterator[str]:
        padding = tokenizer.get("padding")
        yield str(padding.get("pad_token")) if isinstance(padding, dict) else ""
        yield from PADS
        yield from special
        yield from (token for token, number in known.items() if number == unknown)

    found = next((token for token in candidates() if token in known), None)
    if found is None:
        raise CheckpointError(
            f"{path} names no token to fill batches with, and no special or unknown one. Add a [PAD] token to it."
        )
    return found
