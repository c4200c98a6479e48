"""Turns texts into token ids: the one tokenizer that every Python runtime shares, read from `tokenizer.json`.

The oracle tokenises through transformers instead, so that a deviating tokenizer file is noticed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from bge_export.contracts import TokenBatch
from bge_export.errors import ArtifactError, CheckpointError, MissingLibrary
from bge_export.files.json_files import read_object
from bge_export.files.panics import panics_as_errors
from bge_export.files.regular import TOKENIZER_BYTES, refuse_irregular
from bge_export.texts.corpus import Corpus

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class EncodesPairs(Protocol):
    """The part of `TextTokenizer` that makes rows of tokens."""

    def encode(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Return the ids of each text, unpadded."""

    def encode_pairs(self, pairs: Sequence[tuple[str, str]]) -> Sequence[tuple[int, ...]]:
        """Return the ids of each pair, unpadded."""


class PairRow(tuple[int, ...]):
    """The token ids of a pair, which also hold the token type of each: 1 in the second text of BERT's, else 0."""

    types: tuple[int, ...]

    @classmethod
    def of(cls, ids: Sequence[int], types: Sequence[int]) -> "PairRow":
        """Return a row; both sequences have one entry a token."""
        row = cls(ids)
        row.types = tuple(types)
        return row


def token_types(row: Sequence[int]) -> tuple[int, ...]:
    """Return the token type of each token: 0 but in a `PairRow`."""
    return row.types if isinstance(row, PairRow) else (0,) * len(row)


class TextTokenizer:
    """The tokenizer of one model folder."""

    def __init__(self, tokenizer: "Tokenizer", pad_id: int) -> None:
        """Wrap a tokenizer that truncates and does not pad; batches are padded with `pad_id`."""
        self._tokenizer = tokenizer
        self._pad_id = pad_id

    @classmethod
    def load(cls, folder: Path, max_tokens: int) -> "TextTokenizer":
        """Read a folder's `tokenizer.json`; texts are truncated to `max_tokens`, including special tokens.

        Raises:
            ArtifactError: the file is missing or not a valid tokenizer, or its padding token is unknown.
            MissingLibrary: `tokenizers` is not installed.
        """
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise MissingLibrary("tokenizers", "onnxruntime", "tokenising") from error

        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ArtifactError(f"{path} is missing. Export the folder again, or copy the tokenizer files into it.")

        try:
            refuse_irregular(path, TOKENIZER_BYTES)
            with panics_as_errors():
                tokenizer = Tokenizer.from_file(str(path))
                # The padding settings are kept for the name of the padding token; `pad` pads the batches.
                padding = tokenizer.padding
                tokenizer.no_padding()
                tokenizer.enable_truncation(max_tokens)
        except Exception as error:
            raise ArtifactError(f"{path} is not a valid tokenizer: {error}. Export the folder again.") from error

        return cls(tokenizer, _pad_id(tokenizer, padding, folder))

    def encode(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Return the token ids of each text, including special tokens, truncated, unpadded."""
        try:
            with panics_as_errors():
                return [tuple(encoding.ids) for encoding in self._tokenizer.encode_batch(list(texts))]
        except Exception as error:
            raise ArtifactError(f"tokenizer.json fails on a text: {error}. Export the folder again.") from error

    @property
    def pad_id(self) -> int:
        """Return the id of the padding token."""
        return self._pad_id

    def name(self, number: int) -> str:
        """Return the token of an id, "" if it has none."""
        return self._tokenizer.id_to_token(number) or ""

    def around(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the ids of the special tokens that precede every text, and of those that follow it."""
        try:
            with panics_as_errors():
                encoding = self._tokenizer.encode("a")
        except Exception as error:
            raise ArtifactError(f"tokenizer.json fails on a text: {error}. Export the folder again.") from error

        ids, added = encoding.ids, encoding.special_tokens_mask
        inner = [place for place, one in enumerate(added) if not one] or [len(ids)]
        return tuple(ids[: inner[0]]), tuple(ids[inner[-1] + 1 :])

    def encode_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[PairRow]:
        """Return the tokens of each query and text, with special tokens; the longer side is truncated first."""
        try:
            with panics_as_errors():
                found = self._tokenizer.encode_batch(list(pairs))
        except Exception as error:
            raise ArtifactError(f"tokenizer.json fails on a pair: {error}. Export the folder again.") from error
        return [PairRow.of(one.ids, one.type_ids) for one in found]

    def vocabulary(self) -> list[int]:
        """Return all token ids that texts can have, except added tokens."""
        return sorted(self._tokenizer.get_vocab(with_added_tokens=False).values())

    def special_tokens(self) -> list[int]:
        """Return the ids of special tokens, such as `[CLS]` and `[PAD]`, which a text may also contain."""
        added = self._tokenizer.get_added_tokens_decoder()
        return sorted(number for number, token in added.items() if token.special)

    def unknown_share(self, texts: Sequence[str]) -> float:
        """Return the share of unknown tokens among the texts' tokens, from 0 to 1."""
        import json

        model = json.loads(self._tokenizer.to_str())["model"]

        # Unigram models give the id of the unknown token, the other models its name.
        name, unknown = model.get("unk_token"), model.get("unk_id")
        if name is not None:
            unknown = self._tokenizer.token_to_id(name)

        ids = [token for row in self.encode(texts) for token in row]
        return ids.count(unknown) / max(1, len(ids))

    def pad(self, rows: Sequence[Sequence[int]], length: int | None = None) -> TokenBatch:
        """Return [B, S] arrays, right-padded to the longest row, or to `length` if it is longer.

        S is at least 1, also where no row has a token: few runtimes take arrays without values.
        """
        width = max([length or 0, 1, *(len(row) for row in rows)])

        ids = np.full((len(rows), width), self._pad_id, dtype=np.int64)
        mask, types = np.zeros_like(ids), np.zeros_like(ids)

        for position, row in enumerate(rows):
            ids[position, : len(row)] = row
            mask[position, : len(row)] = 1
            types[position, : len(row)] = token_types(row)

        return TokenBatch(ids, mask, types)


def _declared(path: Path) -> object:
    """Return the `pad_token` of a settings file."""
    try:
        return read_object(path).get("pad_token")
    except CheckpointError as error:
        raise ArtifactError(f"{error} Export the folder again.") from error


def _pad_id(tokenizer: "Tokenizer", padding: dict[str, object] | None, folder: Path) -> int:
    """Return the id of the padding token; RoBERTa's position ids depend on it, so it must not be guessed."""
    names: list[object] = [padding["pad_token"]] if padding else []

    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / file).is_file():
            declared = _declared(folder / file)
            names.append(declared.get("content") if isinstance(declared, dict) else declared)

    for name in (*names, "[PAD]", "<pad>"):
        identifier = tokenizer.token_to_id(name) if isinstance(name, str) else None
        if identifier is not None:
            return int(identifier)

    raise ArtifactError(f"{folder / 'tokenizer.json'} has no padding token. Name one in tokenizer_config.json.")


def rows_of(tokenizer: EncodesPairs, corpus: Corpus) -> Sequence[tuple[int, ...]]:
    """Return the token ids of each text of a corpus, or of each pair."""
    texts = [(one.query, one.text) for one in corpus.texts]
    pairs = [(query, text) for query, text in texts if query is not None]
    if len(pairs) == len(texts) and pairs:
        return tokenizer.encode_pairs(pairs)
    return tokenizer.encode([text for _, text in texts])
