"""The texts that variants of a quantized encoder are tried on, before one of them is measured in full.

They are made from the checkpoint's own tokenizer and length and from the calibration texts, never from the texts that
parity measures. Everyday probes are lines that only widened ranges, and short phrases cut from them: of an ordinary
text a short one loses most. Stress probes are what people rarely embed and what leaves the calibrated ranges: single
marks, edge cases, special tokens inside a sentence, and one word repeated up to the longest input.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bge_export.calibration.texts import edge_case_rows, single_marks
from bge_export.texts.tokens import TextTokenizer

Row = tuple[int, ...]

EVERYDAY_LINES = 72
PHRASES = 48
"""How many everyday probes there are of each sort."""

PHRASE_TOKENS = (1, 2, 3)
"""How long phrases are, special tokens aside."""

EVERYDAY_TOKENS = 96
STRESS_TOKENS = 64
"""The longest lines and edge cases that are tried; only repeated words are longer."""

SENTENCES, MOST_SPECIAL = 3, 8
"""How many sentences special tokens are put into, and how many of them: some tokenizers have hundreds."""

REPEATED_WORDS = 3
REPEATED_LENGTHS = (3, 16, 64)
"""How often a word is repeated, besides as often as the longest input holds."""

LONGEST_PROBE = 1024
"""Tokens of the longest probe: attention over more would take gigabytes, and parity has the longest texts anyway."""


@dataclass(frozen=True)
class Probes:
    """Token ids of the texts that variants are tried on, special tokens included, without doubles."""

    everyday: tuple[Row, ...]
    stress: tuple[Row, ...]


def make_probes(tokenizer: TextTokenizer, lines: Sequence[Row], longest: int) -> Probes:
    """Return the probes of a checkpoint; the same every time.

    Args:
        tokenizer: of the checkpoint.
        lines: everyday lines that nothing was chosen on, which may be none.
        longest: how many tokens an input may have.
    """
    draw = random.Random(0)  # noqa: S311 - always the same, no secret
    edge_cases = edge_case_rows(tokenizer)
    ordinary = [row for row in lines if row not in edge_cases and is_ordinary(row)]
    sample = draw.sample(ordinary, min(EVERYDAY_LINES, len(ordinary)))
    phrases = _phrases(ordinary, draw)

    short = [row for row in edge_cases if len(row) <= STRESS_TOKENS]
    stress = [
        *single_marks(tokenizer),
        *sorted(short),
        *_with_special_tokens(sample, tokenizer.special_tokens()[:MOST_SPECIAL], longest),
        *_repeated(sample, longest, draw),
    ]

    everyday = tuple(dict.fromkeys([*sample, *phrases]))
    return Probes(everyday, tuple(row for row in dict.fromkeys(stress) if row not in everyday))


def is_ordinary(row: Row) -> bool:
    """Return whether a line is one that people embed, long enough to cut phrases from it."""
    return 4 < len(row) <= EVERYDAY_TOKENS


def _phrases(lines: Sequence[Row], draw: random.Random) -> Iterator[Row]:
    """Yield the first tokens of lines, half of them with the line's last token, mostly a full stop."""
    for number, row in enumerate(draw.sample(list(lines), min(PHRASES, len(lines)))):
        end = row[-2:] if number % 2 else row[-1:]
        words = row[1 : len(row) - len(end)]
        yield (row[0], *words[: PHRASE_TOKENS[number % len(PHRASE_TOKENS)]], *end)


def _with_special_tokens(lines: Sequence[Row], special: Sequence[int], longest: int) -> Iterator[Row]:
    """Yield sentences with each special token in their middle, and with all of them between their words."""
    for row in [row for row in lines if len(row) + len(special) <= longest][:SENTENCES]:
        middle = len(row) // 2
        for token in special:
            yield (*row[:middle], token, *row[middle:])

        inner = list(row[1:-1])
        for number, token in enumerate(special):
            inner.insert(min(2 * number + 1, len(inner)), token)
        yield (row[0], *inner, row[-1])


def _repeated(lines: Sequence[Row], longest: int, draw: random.Random) -> Iterator[Row]:
    """Yield one token of a line many times, as short as three times and as long as the longest input."""
    for row in draw.sample(list(lines), min(REPEATED_WORDS, len(lines))):
        word = draw.choice(row[1:-1])
        most = min(longest, LONGEST_PROBE) - 2
        for count in (*REPEATED_LENGTHS, most):
            yield (row[0], *[word] * min(count, most), row[-1])
