"""The texts that an encoder is calibrated on: the package's own, in languages its tokenizer knows, or a user's.

The package's own are ours, written for this: sentences, short lines, questions, searches with their instruction,
abstracts, passages, and odd strings (single marks, one word repeated, code, other scripts). None of them is among the
texts that parity measures; a test compares the two.
"""

import random
from collections.abc import Sequence
from pathlib import Path

from bge_export.corpus import load_corpus
from bge_export.fixtures import fixtures_folder
from bge_export.tokens import TextTokenizer

FOLDER = "calibration"

MOST_UNKNOWN = 0.05
"""A language is left out where its tokens are unknown to the tokenizer more often: they would calibrate nothing."""

MAIN_TOKENS = 12_000
"""Tokens that everything is chosen on; the other texts only widen ranges."""

JUDGE_EVERY = 5


def calibration_rows(tokenizer: TextTokenizer, path: Path | None) -> list[tuple[int, ...]]:
    """Return the token ids of the calibration texts, in a drawn order that is always the same.

    Args:
        tokenizer: of the model.
        path: a user's own `.txt`, `.jsonl` or one-column `.tsv` file; None for the package's own.

    Raises:
        TextsError: the file cannot be used.
    """
    files = [path] if path else sorted((fixtures_folder() / FOLDER).glob("*.txt"))
    texts = [[text.text for text in load_corpus(file).texts] for file in files]
    if path is None:
        known = [some for some in texts if tokenizer.unknown_share(some) <= MOST_UNKNOWN]
        texts = known or texts
    rows = [row for some in texts for row in tokenizer.encode(some)]
    random.Random(0).shuffle(rows)  # noqa: S311 - a fixed order, no secret
    return rows


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
