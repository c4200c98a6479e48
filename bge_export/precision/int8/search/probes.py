"""Makes the texts that variants of a quantized encoder are tried on, before one variant is measured in full.

They come from the checkpoint's tokenizer and length and from the calibration texts, never from the texts that parity
measures. Everyday probes are lines that only widened ranges, and short phrases cut from them, because short texts lose
most. Stress probes are rare inputs that leave the calibrated ranges: single marks, edge cases, special tokens inside a
sentence, and one word repeated up to the longest input.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bge_export.calibration.texts import edge_case_rows, punctuation_rows
from bge_export.texts.tokens import TextTokenizer

Row = tuple[int, ...]

EVERYDAY_LINES = 72
PHRASES = 48
"""Numbers of everyday probes: whole lines, and phrases."""

PHRASE_TOKENS = (1, 2, 3)
"""Lengths of phrases, without special tokens."""

EVERYDAY_TOKENS = 96
STRESS_TOKENS = 64
"""Maximum lengths of lines and of edge cases; only repeated words are longer."""

SENTENCES, MOST_SPECIAL = 3, 8
"""Number of sentences that special tokens are put into, and of special tokens: some tokenizers have hundreds."""

REPEATED_WORDS = 3
REPEATED_LENGTHS = (3, 16, 64)
"""Number of words that are repeated, and how often; each is also repeated up to the longest input."""

LONGEST_PROBE = 1024
"""Tokens of the longest probe: attention over more takes gigabytes, and parity measures the longest texts anyway."""


@dataclass(frozen=True)
class Probes:
    """Token ids of the texts that variants are tried on, with special tokens and without duplicates."""

    everyday: tuple[Row, ...]
    stress: tuple[Row, ...]


def make_probes(tokenizer: TextTokenizer, lines: Sequence[Row], longest: int) -> Probes:
    """Return the probes of a checkpoint; the result is deterministic.

    Args:
        tokenizer: tokenizer of the checkpoint.
        lines: everyday lines that no choice was based on; may be empty.
        longest: maximum number of tokens of an input.
    """
    draw = random.Random(0)  # noqa: S311 - always the same, no secret

    edge_cases = edge_case_rows(tokenizer)
    ordinary = [row for row in lines if row not in edge_cases and is_ordinary(row)]
    sample = draw.sample(ordinary, min(EVERYDAY_LINES, len(ordinary)))
    phrases = _phrases(ordinary, draw)

    short = [row for row in edge_cases if len(row) <= STRESS_TOKENS]
    stress = [
        *punctuation_rows(tokenizer),
        *sorted(short),
        *_with_special_tokens(sample, tokenizer.special_tokens()[:MOST_SPECIAL], longest),
        *_repeated(sample, longest, draw),
    ]

    everyday = tuple(dict.fromkeys([*sample, *phrases]))
    return Probes(everyday, tuple(row for row in dict.fromkeys(stress) if row not in everyday))


def is_ordinary(row: Row) -> bool:
    """Return whether a line is an everyday text, and long enough to cut phrases from it."""
    return 4 < len(row) <= EVERYDAY_TOKENS


def _phrases(lines: Sequence[Row], draw: random.Random) -> Iterator[Row]:
    """Yield the first tokens of lines; half of them keep the line's last token, usually a full stop."""
    for number, row in enumerate(draw.sample(list(lines), min(PHRASES, len(lines)))):
        end = row[-2:] if number % 2 else row[-1:]
        words = row[1 : len(row) - len(end)]
        yield (row[0], *words[: PHRASE_TOKENS[number % len(PHRASE_TOKENS)]], *end)


def _with_special_tokens(lines: Sequence[Row], special: Sequence[int], longest: int) -> Iterator[Row]:
    """Yield sentences with each special token in the middle, and with all of them between the words."""
    for row in [row for row in lines if len(row) + len(special) <= longest][:SENTENCES]:
        middle = len(row) // 2
        for token in special:
            yield (*row[:middle], token, *row[middle:])

        inner = list(row[1:-1])
        for number, token in enumerate(special):
            inner.insert(min(2 * number + 1, len(inner)), token)
        yield (row[0], *inner, row[-1])


def _repeated(lines: Sequence[Row], longest: int, draw: random.Random) -> Iterator[Row]:
    """Yield one token of a line repeated, from three times up to the longest input."""
    for row in draw.sample(list(lines), min(REPEATED_WORDS, len(lines))):
        word = draw.choice(row[1:-1])
        most = min(longest, LONGEST_PROBE) - 2
        for count in (*REPEATED_LENGTHS, most):
            yield (row[0], *[word] * min(count, most), row[-1])
