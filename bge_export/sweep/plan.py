"""Plans batches of token ids that cover what texts leave out: rows of the token table, lengths, batch sizes and masks.

Texts touch a few percent of a vocabulary, some lengths, and padding on the right. A file may be right there and wrong
elsewhere. The plan depends on `TokenFacts` alone, so every machine makes the same one.

    sizes        batches of `SIZES` short sequences, padded on the right
    longest      one sequence of the longest input, which also reaches every position
    token-types  sequences whose second half has another token type, each type once, where the model has several
    left         padding on the left
    holes        masked tokens within the sequence
    masked-ids   other ids than the padding token's where the mask is 0
    rows         every id of the vocabulary once, in a seeded order, cut into sequences of rising length
    positions    long sequences of which the mask shows the first token and a few neighbours, each position once

All but the last two are the sample that every runtime runs; `rows` is run once for each file. In the longest sequence
the state of each token shows its position. An output without states shows one position among all others too little,
so `positions` is run for such outputs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bge_export.contracts import TokenBatch

SEED = 20261130
SIZES = (1, 2, 3, 17, 32, 64)
"""Batch sizes; texts are measured in batches of 1, 4, 8 and 16."""

SHORT = 6
"""Largest number of tokens of the sequences in `sizes`, without special tokens."""

MASKED = 3
"""Sequences in a batch of each kind of mask, and the least of one of token types."""

MASKED_TOKENS = 12
"""Tokens of these sequences, without special tokens."""

ROW_BATCH = 8
"""Sequences in a batch of `rows`."""

FEWEST_LENGTHS = 66
"""`rows` has every length up to this one, so every residue of 64, even if it needs some ids twice."""

MOST_ROWS = 2**16
"""Largest vocabulary whose ids are all swept; of a larger one, the first ids and a seeded choice. Its other rows are
read from the file (`token_tables`), since sweeping them would take longer than everything else."""

WINDOW = 16
"""Tokens of a sequence of `positions` that the mask shows, beside the first one."""

PLACES = 2**14
"""Most tokens of all sequences of `positions` if each had the longest length; longer inputs have wider windows."""

JUDGED = 2**13
"""Most states of one sequence that are compared, evenly spaced: longer ones would fill a file of vectors."""

SIZED, LONGEST, TOKEN_TYPES, LEFT, HOLES, MASKED_IDS, ROWS, POSITIONS = (
    "sizes", "longest", "token-types", "left", "holes", "masked-ids", "rows", "positions",
)  # fmt: skip
MASKS = (LEFT, HOLES, MASKED_IDS)

UNSURE = (*MASKS, POSITIONS)
"""Kinds of batches whose masks a checkpoint need not define."""


@dataclass(frozen=True)
class TokenFacts:
    """What a plan depends on.

    Attributes:
        rows: rows of the token table, which are the ids from 0.
        token_types: the number of token types; 0 if the model has no such input.
        prefix, suffix: ids of the special tokens around a text.
        pad: the id of the padding token.
        max_tokens: the longest input, with special tokens.
    """

    rows: int
    token_types: int
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    pad: int
    max_tokens: int

    @property
    def room(self) -> int:
        """Return the largest number of tokens between the special tokens, at least 1."""
        return max(1, self.max_tokens - len(self.prefix) - len(self.suffix))


@dataclass(frozen=True)
class SweepBatch:
    """Sequences that are run together.

    Attributes:
        kind: what the batch covers, see above.
        tokens: the batch, [B, S].
        judged: [B, S] bool, the states that are compared: of unmasked tokens, at most `JUDGED` of a sequence.
    """

    kind: str
    tokens: TokenBatch
    judged: NDArray[np.bool_]


def plan_sample(facts: TokenFacts) -> tuple[SweepBatch, ...]:
    """Return the batches that every runtime runs."""
    random = np.random.default_rng([SEED, 1])
    batches: list[SweepBatch] = []

    for size in SIZES:
        lengths = [min(facts.room, 1 + number % SHORT) for number in range(size)]
        batches.append(_batch(SIZED, facts, [_sequence(facts, random.integers(facts.rows, size=n)) for n in lengths]))

    longest = _sequence(facts, random.integers(facts.rows, size=facts.room))
    batches.append(_batch(LONGEST, facts, [longest]))

    kinds = ((TOKEN_TYPES,) if facts.token_types > 1 else ()) + MASKS
    for kind in kinds:
        count = max(MASKED, facts.token_types - 1) if kind == TOKEN_TYPES else MASKED
        lengths = [max(1, min(facts.room, MASKED_TOKENS) - 3 * (number % MASKED)) for number in range(count)]
        rows = [_sequence(facts, random.integers(facts.rows, size=n)) for n in lengths]
        batches.append(_changed(kind, _batch(kind, facts, rows), facts, random))

    return tuple(batches)


def plan_rows(facts: TokenFacts) -> tuple[SweepBatch, ...]:
    """Return the batches of `rows`, shortest sequences first."""
    order = _order(facts)
    sequences = [_sequence(facts, ids) for ids in _cut(order, facts.room)]
    return tuple(
        _batch(ROWS, facts, sequences[start : start + ROW_BATCH]) for start in range(0, len(sequences), ROW_BATCH)
    )


def plan_positions(facts: TokenFacts) -> tuple[SweepBatch, ...]:
    """Return the batches of `positions`, one sequence each, shortest first; together they show every position."""
    random = np.random.default_rng([SEED, 3])
    ids = np.array(_sequence(facts, random.integers(facts.rows, size=facts.room)), dtype=np.int64)
    # An id that is the padding token's would have no position of its own in RoBERTa.
    ids = np.where(ids == facts.pad, (facts.pad + 1) % facts.rows, ids)
    width = max(WINDOW, -(-(len(ids) ** 2) // PLACES))

    batches = []
    for start in range(0, len(ids), width):
        whole = _batch(POSITIONS, facts, [tuple(int(one) for one in ids[: start + width])])
        mask = whole.tokens.attention_mask.copy()
        mask[:, 1:start] = 0  # some pooling is the state of the first token
        tokens = TokenBatch(whole.tokens.input_ids, mask, whole.tokens.token_type_ids)
        batches.append(SweepBatch(POSITIONS, tokens, _judged(mask)))
    return tuple(batches)


def _order(facts: TokenFacts) -> NDArray[np.int64]:
    """Return the ids to sweep, each once, in a seeded order."""
    random = np.random.default_rng([SEED, 2])
    if facts.rows <= MOST_ROWS:
        return random.permutation(facts.rows)

    # Special tokens come first in most vocabularies, and last in some.
    first = np.arange(MOST_ROWS // 16)
    last = np.arange(facts.rows - MOST_ROWS // 16, facts.rows)
    between = np.arange(len(first), facts.rows - len(last))
    chosen = random.choice(between, MOST_ROWS // 2 - len(first) - len(last), replace=False)
    return random.permutation(np.concatenate([first, last, chosen]))


def _cut(order: NDArray[np.int64], room: int) -> Iterator[NDArray[np.int64]]:
    """Yield sequences of 1, 2, 3, … ids, at most `room`, until all ids and all lengths were there; ids may repeat."""
    start, length = 0, 1

    while start < len(order) or length <= min(room, FEWEST_LENGTHS):
        own = min(length, room)
        yield np.take(order, np.arange(start, start + own), mode="wrap")
        start, length = start + own, length + 1


def _sequence(facts: TokenFacts, ids: NDArray[np.int64]) -> tuple[int, ...]:
    return (*facts.prefix, *(int(one) for one in ids), *facts.suffix)[: facts.max_tokens]


def _batch(kind: str, facts: TokenFacts, rows: Sequence[Sequence[int]]) -> SweepBatch:
    """Return sequences as a batch, padded on the right."""
    width = max(map(len, rows))
    ids = np.full((len(rows), width), facts.pad, dtype=np.int64)
    mask = np.zeros_like(ids)

    for number, row in enumerate(rows):
        ids[number, : len(row)] = row
        mask[number, : len(row)] = 1

    return SweepBatch(kind, TokenBatch(ids, mask, np.zeros_like(ids)), _judged(mask))


def _changed(kind: str, given: SweepBatch, facts: TokenFacts, random: np.random.Generator) -> SweepBatch:
    """Return a batch with the token types, the mask or the masked ids of its kind."""
    ids, mask = given.tokens.input_ids.copy(), given.tokens.attention_mask.copy()
    types = np.zeros_like(ids)

    if kind == TOKEN_TYPES:
        types[:, ids.shape[1] // 2 :] = np.arange(len(ids))[:, None] % (facts.token_types - 1) + 1
        types *= mask

    if kind == LEFT:
        for number, length in enumerate(mask.sum(axis=1)):
            ids[number], mask[number] = np.roll(ids[number], -length), np.roll(mask[number], -length)

    if kind == HOLES:
        # The first token stays: some pooling is its state.
        mask[:, 2:-1:3] = 0
        ids = np.where(mask == 1, ids, facts.pad)

    if kind == MASKED_IDS:
        ids = np.where(mask == 1, ids, random.integers(facts.rows, size=ids.shape))

    return SweepBatch(kind, TokenBatch(ids, mask, types), _judged(mask))


def _judged(mask: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which states of each row are compared: those of unmasked tokens, evenly spaced if there are too many."""
    judged = np.zeros(mask.shape, dtype=np.bool_)

    for number, row in enumerate(mask):
        there = np.flatnonzero(row)
        few = np.unique(np.linspace(0, len(there) - 1, min(len(there), JUDGED)).round().astype(np.int64))
        judged[number, there[few]] = True
    return judged
