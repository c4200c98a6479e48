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
ODD = "-odd"
"""Suffix of the name of a language's file of edge cases."""

MAIN_TOKENS = 12_800
"""Tokens on which all parameters are chosen, including all edge cases; the remaining texts only widen ranges."""

JUDGE_EVERY = 5
"""One row in this many is held back to judge the calibration."""

DRAWN_ROWS = ((0, 1), (0, 3), (0, 12), (0, 40), (1, 4), (1, 30), (2, 30))
"""Kinds of random rows: number of distinct tokens (0 if all are drawn independently), and number of tokens."""

QUERY_WORDS = 8
"""Words at the beginning of a text that stand for a query."""

DRAWN_EACH = 24
"""Random rows of each kind."""


class PairTokenizer(TextTokenizer):
    """Reads texts as pairs, for a reranker: each after its own beginning, or after that of the text before.

    So half of the pairs belong together. Rerankers are calibrated where their logits are high and where they are low.
    """

    def encode(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Return the tokens of a pair for each text, with token types."""
        queries = [" ".join(text.split()[:QUERY_WORDS]) for text in texts]
        pairs = [(queries[n - n % 2], text) for n, text in enumerate(texts)]
        return list(self.encode_pairs(pairs))


def calibration_tokenizer(checkpoint: Checkpoint) -> TextTokenizer:
    """Return the tokenizer that makes a checkpoint's calibration texts: of pairs for a reranker."""
    kind = PairTokenizer if checkpoint.promise.of_pairs else TextTokenizer
    return kind.load(checkpoint.root, checkpoint.promise.reads.max_tokens)


def calibration_rows(tokenizer: TextTokenizer, path: Path | None) -> list[tuple[int, ...]]:
    """Return the token ids of the calibration texts, shuffled with a fixed seed; edge cases come first.

    Args:
        tokenizer: the model's tokenizer.
        path: a user's `.txt`, `.jsonl` or one-column `.tsv` or `.csv` file; None for the package's texts.

    Raises:
        TextsError: the file cannot be used.
    """
    files = _languages(tokenizer)
    groups = [_texts(path)] if path else [_texts(*(_odd(file) for file in files)), _texts(*files)]

    draw = random.Random(0)  # noqa: S311 - a fixed order, no secret
    rows: list[tuple[int, ...]] = []
    for texts in groups:
        own = list(tokenizer.encode(texts))
        draw.shuffle(own)
        rows += own

    return rows


def edge_case_rows(tokenizer: TextTokenizer) -> frozenset[tuple[int, ...]]:
    """Return the token ids of the package's edge cases: punctuation, repeated words, code, other scripts."""
    return frozenset(tokenizer.encode([text for file in _languages(tokenizer) for text in _texts(_odd(file))]))


def single_marks(tokenizer: TextTokenizer) -> list[tuple[int, ...]]:
    """Return the token ids of texts of one ASCII punctuation mark each.

    These texts come closest to a tipping point of a model, such as an attention head that switches between tokens.
    """
    return list(tokenizer.encode(list(string.punctuation)))


def drawn_rows(tokenizer: TextTokenizer, row: tuple[int, ...], longest: int) -> list[tuple[int, ...]]:
    """Return random rows of tokens with a fixed seed: tokens in any order, one token repeated, two tokens alternating.

    Args:
        tokenizer: the model's tokenizer.
        row: token ids of a text, which provides the first and last token of every row.
        longest: maximum number of tokens per row.
    """
    draw = random.Random(0)  # noqa: S311 - always the same, no secret
    vocabulary = tokenizer.vocabulary()

    rows = []
    for different, length in DRAWN_ROWS:
        for _ in range(DRAWN_EACH):
            tokens = draw.choices(vocabulary, k=different or length)
            inner = (tokens * length)[: min(length, longest - 2)]
            rows.append((row[0], *inner, row[-1]))

    return rows


def _languages(tokenizer: TextTokenizer) -> list[Path]:
    """Return the files of the languages that the tokenizer knows; all files if it knows none."""
    files = sorted(file for file in (fixtures_folder() / FOLDER).glob("*.txt") if not file.stem.endswith(ODD))
    return [file for file in files if knows(tokenizer, _texts(file))] or files


def _odd(file: Path) -> Path:
    return file.with_stem(file.stem + ODD)


def _texts(*files: Path) -> list[str]:
    return [text.text for file in files for text in load_corpus(file).texts]


def divided(rows: Sequence[tuple[int, ...]]) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Return the rows on which all parameters are chosen, about `MAIN_TOKENS` tokens, and the remaining rows."""
    total, main, rest = 0, list[tuple[int, ...]](), list[tuple[int, ...]]()

    for row in rows:
        (main if total < MAIN_TOKENS else rest).append(row)
        total += len(row)

    return main, rest


def held_back(rows: Sequence[tuple[int, ...]]) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Return the rows to calibrate with, and the disjoint rows that judge the result: every `JUDGE_EVERY`-th."""
    kept = [row for index, row in enumerate(rows) if index % JUDGE_EVERY]
    return kept, list(rows[::JUDGE_EVERY])
