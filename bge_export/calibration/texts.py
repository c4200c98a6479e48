"""The texts that an encoder is calibrated on: the package's own, in languages its tokenizer knows, or a user's.

The package's own are ours, written for this: sentences, short lines, questions, searches with their instruction,
abstracts, passages, and in files of their own odd strings (single marks, one word repeated, code, other scripts). None
of them is among the texts that parity measures; a test compares the two.
"""

import random
import string
from collections.abc import Sequence
from pathlib import Path

from bge_export.texts.corpus import load_corpus
from bge_export.texts.fixtures import fixtures_folder
from bge_export.texts.languages import knows
from bge_export.texts.tokens import TextTokenizer

FOLDER = "calibration"
ODD = "-odd"
"""Ends the name of a language's file of odd strings."""

MAIN_TOKENS = 12_800
"""Tokens that everything is chosen on, the odd strings' all; the other texts only widen ranges."""

JUDGE_EVERY = 5

DRAWN_ROWS = ((0, 1), (0, 3), (0, 12), (0, 40), (1, 4), (1, 30), (2, 30))
"""Kinds of drawn rows: how many tokens differ, 0 for all, and how many there are."""

DRAWN_EACH = 24


def calibration_rows(tokenizer: TextTokenizer, path: Path | None) -> list[tuple[int, ...]]:
    """Return the token ids of the calibration texts, in a drawn order that is always the same; odd strings come first.

    Args:
        tokenizer: of the model.
        path: a user's own `.txt`, `.jsonl` or one-column `.tsv` or `.csv` file; None for the package's own.

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
    """Return the token ids of the package's edge cases: marks, repeated words, code, other scripts."""
    return frozenset(tokenizer.encode([text for file in _languages(tokenizer) for text in _texts(_odd(file))]))


def single_marks(tokenizer: TextTokenizer) -> list[tuple[int, ...]]:
    """Return the token ids of texts that are one mark of ASCII each.

    Of all texts they are the closest to a point where a model tips over, such as a head of attention that looks at
    one token or the other.
    """
    return list(tokenizer.encode(list(string.punctuation)))


def drawn_rows(tokenizer: TextTokenizer, row: tuple[int, ...], longest: int) -> list[tuple[int, ...]]:
    """Return rows of tokens that no text has: any tokens in any order, one repeated, two in turn. Always the same.

    Args:
        tokenizer: of the model.
        row: of a text, whose first and last token they get.
        longest: how many tokens a row may have.
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
    """Return the files of the languages whose tokens the tokenizer knows; all where it knows none."""
    files = sorted(file for file in (fixtures_folder() / FOLDER).glob("*.txt") if not file.stem.endswith(ODD))
    return [file for file in files if knows(tokenizer, _texts(file))] or files


def _odd(file: Path) -> Path:
    return file.with_stem(file.stem + ODD)


def _texts(*files: Path) -> list[str]:
    return [text.text for file in files for text in load_corpus(file).texts]


def divided(rows: Sequence[tuple[int, ...]]) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Return the rows that everything is chosen on, `MAIN_TOKENS` long, and the rest."""
    total, main, rest = 0, list[tuple[int, ...]](), list[tuple[int, ...]]()
    for row in rows:
        (main if total < MAIN_TOKENS else rest).append(row)
        total += len(row)
    return main, rest


def held_back(rows: Sequence[tuple[int, ...]]) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Return the rows to calibrate with, and those that judge the result: every `JUDGE_EVERY`-th, and no other."""
    kept = [row for place, row in enumerate(rows) if place % JUDGE_EVERY]
    return kept, list(rows[::JUDGE_EVERY])
