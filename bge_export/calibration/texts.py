"""Provides the calibration texts of an encoder: a user's file, or the package's, in languages the tokenizer knows.

The package's texts were written for this purpose: sentences, short lines, questions, queries with their instruction,
abstracts, passages and, in separate files, edge cases (single punctuation marks, one word repeated, code, other
scripts). They are disjoint from the texts that parity measures; a test compares the two.
"""

import random
import string
from collections.abc import Sequence
from pathlib import Path

from bge_export.contracts import Checkpoint
from bge_export.texts.corpus import load_corpus
from bge_export.texts.fixtures import fixtures_folder
from bge_export.texts.languages import knows
from bge_export.texts.tokens import TextTokenizer

FOLDER = "calibration"
EDGE_CASES = "-odd"
"""Suffix of the name of a language's file of edge cases."""

MAIN_TOKENS = 12_800
"""Tokens of the main calibration set, on which all parameters are chosen; later texts give ranges alone."""

HOLDOUT_EVERY = 5
"""Every fifth row is held out to judge the calibration."""

RANDOM_KINDS = ((0, 1), (0, 3), (0, 12), (0, 40), (1, 4), (1, 30), (2, 30))
"""Kinds of random rows: the number of tokens that are drawn (0 for as many as the row has) and repeated, and the row's
length without its first and last token."""

QUERY_WORDS = 8
"""Words at the beginning of a passage that serve as its query."""

ROWS_PER_KIND = 24
"""Random rows of each kind."""


class PairTokenizer(TextTokenizer):
    """Builds pairs of a query and a passage from texts, for a reranker.

    The query is the beginning of the passage, or that of the passage before: half of the pairs are relevant, half are
    not, so that calibration sees high and low logits.
    """

    def encode(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Return the tokens of a pair for each text, with token types."""
        queries = [" ".join(text.split()[:QUERY_WORDS]) for text in texts]
        pairs = [(queries[n - n % 2], text) for n, text in enumerate(texts)]
        return list(self.encode_pairs(pairs))


def calibration_tokenizer(checkpoint: Checkpoint) -> TextTokenizer:
    """Return the tokenizer that makes a checkpoint's calibration texts: of pairs for a reranker."""
    tokenizer_class = PairTokenizer if checkpoint.spec.is_reranker else TextTokenizer
    return tokenizer_class.load(checkpoint.root, checkpoint.spec.inputs.max_tokens)


def calibration_rows(tokenizer: TextTokenizer, path: Path | None) -> list[tuple[int, ...]]:
    """Return the token ids of the calibration texts, shuffled with a fixed seed.

    The package's edge cases come before its other texts. A user's file replaces all of them.

    Args:
        tokenizer: the model's tokenizer.
        path: a user's `.txt`, `.jsonl` or one-column `.tsv` or `.csv` file; None for the package's texts.

    Raises:
        TextsError: the file cannot be used.
    """
    files = _languages(tokenizer)
    groups = [_texts(path)] if path else [_texts(*(_edge_cases_of(file) for file in files)), _texts(*files)]

    draw = random.Random(0)  # noqa: S311 - a fixed order, no secret
    rows: list[tuple[int, ...]] = []
    for texts in groups:
        own = list(tokenizer.encode(texts))
        draw.shuffle(own)
        rows += own

    return rows


def edge_case_rows(tokenizer: TextTokenizer) -> frozenset[tuple[int, ...]]:
    """Return the token ids of the package's edge cases: punctuation, repeated words, code, other scripts."""
    return frozenset(
        tokenizer.encode([text for file in _languages(tokenizer) for text in _texts(_edge_cases_of(file))])
    )


def punctuation_rows(tokenizer: TextTokenizer) -> list[tuple[int, ...]]:
    """Return the token ids of each ASCII punctuation mark alone.

    Small errors change the embeddings of these texts most, since an attention head may switch to another token.
    """
    return list(tokenizer.encode(list(string.punctuation)))


def random_rows(tokenizer: TextTokenizer, row: tuple[int, ...], longest: int) -> list[tuple[int, ...]]:
    """Return random rows of tokens with a fixed seed: tokens in any order, one token repeated, two tokens alternating.

    A reranker's random rows have no token types.

    Args:
        tokenizer: the model's tokenizer.
        row: token ids of a text, whose first and last id ([CLS] and [SEP], for example) enclose every row.
        longest: maximum number of tokens per row.
    """
    draw = random.Random(0)  # noqa: S311 - always the same, no secret
    vocabulary = tokenizer.vocabulary()

    rows = []
    for different, length in RANDOM_KINDS:
        for _ in range(ROWS_PER_KIND):
            tokens = draw.choices(vocabulary, k=different or length)
            inner = (tokens * length)[: min(length, longest - 2)]
            rows.append((row[0], *inner, row[-1]))

    return rows


def _languages(tokenizer: TextTokenizer) -> list[Path]:
    """Return the files of the languages that the tokenizer knows; all files if it knows none."""
    files = sorted(file for file in (fixtures_folder() / FOLDER).glob("*.txt") if not file.stem.endswith(EDGE_CASES))
    return [file for file in files if knows(tokenizer, _texts(file))] or files


def _edge_cases_of(file: Path) -> Path:
    return file.with_stem(file.stem + EDGE_CASES)


def _texts(*files: Path) -> list[str]:
    return [text.text for file in files for text in load_corpus(file).texts]


def split_main(rows: Sequence[tuple[int, ...]]) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Return (main rows, about `MAIN_TOKENS` tokens, on which all parameters are chosen; the remaining rows)."""
    total, main, rest = 0, list[tuple[int, ...]](), list[tuple[int, ...]]()

    for row in rows:
        (main if total < MAIN_TOKENS else rest).append(row)
        total += len(row)

    return main, rest


def split_holdout(rows: Sequence[tuple[int, ...]]) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Return (calibration rows, held-out rows): every `HOLDOUT_EVERY`-th row is held out."""
    calibration = [row for index, row in enumerate(rows) if index % HOLDOUT_EVERY]
    return calibration, list(rows[::HOLDOUT_EVERY])
