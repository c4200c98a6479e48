"""Plan the batches of a measurement. A text in a padded batch must have the same embedding as alone.

The comparison reveals hard-coded shapes, attention masks that are not applied, and 8-bit scales that depend on the
other texts. Every text is measured in at least two batch shapes, at varying indices and beside varying neighbours:

    4           every text, in a seeded random order: neighbours have any length, so most texts are padded.
    16-sorted   every text, sorted by length, padded past the longest as `pad_to_multiple_of=8` does. All texts except
                those of maximum length are padded here, at little cost.
    8-long      a sample beside the longest text, padded nearly to the full length, where a leaking mask is worst.
                A batch costs as much as eight of the longest texts, so `LONG_TOKENS` limits the sample: 14 texts at
                512 tokens, about 2 seconds for a 33M-parameter BERT on two cores. A corpus of shorter texts is covered
                completely. The sample holds the shortest text, the first text of as many tags as fit, then a seeded
                choice.

Every batch is full: the last one takes texts from the one before, and a corpus smaller than a batch is repeated. A
batch of one text would compare the text with itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SEED = 20240711
LONG_TOKENS = 16 * 512
EVERY_TEXT = ("4", "16-sorted")
SHAPES = (*EVERY_TEXT, "8-long")


@dataclass(frozen=True)
class Batch:
    """Texts that are embedded together: their indices in the corpus, and a length to pad to beyond the longest."""

    shape: str
    texts: tuple[int, ...]
    length: int | None


def plan_batches(lengths: Sequence[int], tags: Sequence[str], max_tokens: int) -> tuple[Batch, ...]:
    """Return all batches for N texts.

    Args:
        lengths: the number of tokens of each text.
        tags: the tag of each text, which names the case that it tests.
        max_tokens: the longest input of the model; no batch is padded beyond it.
    """
    if not lengths:
        return ()

    shuffled = [int(text) for text in np.random.default_rng(SEED).permutation(len(lengths))]
    ascending = sorted(shuffled, key=lambda text: lengths[text])

    batches = [Batch("4", group, None) for group in _groups(shuffled, 4)]

    for group in _groups(ascending, 16):
        padded = (max(lengths[text] for text in group) // 8 + 1) * 8
        batches.append(Batch("16-sorted", group, min(max_tokens, padded)))

    # One of the eight texts of each batch is the longest; the sample fills the other seven.
    longest = ascending[-1]
    sample = _sample(ascending, shuffled, tags, LONG_TOKENS // max(1, lengths[longest]) * 7 // 8)
    for number, group in enumerate(_groups(sample, 7)):
        position = number % 8
        batches.append(Batch("8-long", (*group[:position], longest, *group[position:]), None))

    return tuple(batches)


def _groups(order: Sequence[int], size: int) -> list[tuple[int, ...]]:
    """Return groups of exactly `size` texts that cover `order`; they are cut from its end, and the last may overlap."""
    repeated = tuple(order) * (-(-size // len(order)) if len(order) < size else 1)
    return [repeated[max(0, end - size) : max(end, size)] for end in range(len(repeated), 0, -size)]


def _sample(ascending: Sequence[int], shuffled: Sequence[int], tags: Sequence[str], count: int) -> list[int]:
    """Return up to max(7, `count`) texts without the longest, or the longest alone if the corpus has no other text."""
    first_of_tag: dict[str, int] = {}
    for text, tag in enumerate(tags):
        first_of_tag.setdefault(tag, text)

    preferred = dict.fromkeys([ascending[0], *first_of_tag.values(), *shuffled])
    others = [text for text in preferred if text != ascending[-1]]
    return others[: max(7, count)] or [ascending[-1]]
