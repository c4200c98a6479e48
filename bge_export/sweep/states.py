"""The checkpoint's states of a sweep, and their arrays in a file of reference vectors."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bge_export.sweep.plan import MASKS, SweepBatch, TokenFacts, plan_positions, plan_rows, plan_sample


@dataclass(frozen=True)
class Expected:
    """What the checkpoint gives for one batch.

    Attributes:
        states: [T, D] float32, of the T judged tokens, row by row; [T, 0] of a reranker, whose files give no states.
        pooled: [B, D] float32, the promised pooling of each sequence; the logits [B, 1] of a reranker.
        finite: whether the checkpoint's states are finite at every token, masked ones included.
    """

    states: NDArray[np.float32]
    pooled: NDArray[np.float32]
    finite: bool = True


@dataclass(frozen=True)
class Sweep:
    """The plan of a checkpoint and its states.

    Attributes:
        facts: what the plan depends on.
        sample: one entry for each batch of `plan_sample`; None for one that the checkpoint itself cannot run.
        rows: the same of `plan_rows`; empty if they were not asked for, or read from a file, which lacks them.
        read_positions: returns the same of `plan_positions`; None if the checkpoint is not at hand.
        read_table: returns the checkpoint's token table, [rows, D] float32; None if the checkpoint is not at hand.
    """

    facts: TokenFacts
    sample: tuple[Expected | None, ...]
    rows: tuple[Expected | None, ...] = ()
    read_table: Callable[[], NDArray[np.float32]] | None = None
    read_positions: Callable[[], tuple[Expected | None, ...]] | None = None

    def batches(self, *, rows: bool) -> tuple[tuple[SweepBatch, Expected | None], ...]:
        """Return each batch of the sample, and of the rows if `rows`, with what the checkpoint gives."""
        sample = tuple(zip(plan_sample(self.facts), self.sample, strict=True))
        if not rows or not self.rows:
            return sample
        return sample + tuple(zip(plan_rows(self.facts), self.rows, strict=True))

    def positions(self) -> tuple[tuple[SweepBatch, Expected | None], ...]:
        """Return each batch that shows positions, with what the checkpoint gives; none if it is not at hand."""
        if self.read_positions is None:
            return ()
        return tuple(zip(plan_positions(self.facts), self.read_positions(), strict=True))

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the sample as arrays for `from_arrays`."""
        there = [one for one in self.sample if one is not None]
        return {
            "sweep_defined": np.array([0 if one is None else 1 + one.finite for one in self.sample], dtype=np.int64),
            "sweep_states": np.concatenate([one.states for one in there]),
            "sweep_pooled": np.concatenate([one.pooled for one in there]),
        }


ARRAYS = ("sweep_defined", "sweep_states", "sweep_pooled")


def from_arrays(facts: TokenFacts, arrays: Mapping[str, NDArray[np.generic]], widths: tuple[int, int]) -> Sweep:
    """Return the sweep of a file of reference vectors.

    Args:
        facts: what its plan depends on.
        arrays: the file's arrays.
        widths: the number of values of a state, and of what stands for a sequence.

    Raises:
        ValueError: an array is missing or does not fit the plan.
    """
    defined, states, pooled = (_array(arrays, name) for name in ARRAYS)
    plan = plan_sample(facts)
    if defined.shape != (len(plan),) or not set(defined.tolist()) <= {0, 1, 2}:
        raise ValueError(f"sweep_defined is not one of 0, 1 and 2 for each of {len(plan)} batches")

    if any(batch.kind not in MASKS and not known for batch, known in zip(plan, defined, strict=True)):
        raise ValueError("sweep_defined leaves out more than kinds of mask")

    there = [batch for batch, known in zip(plan, defined, strict=True) if known]
    tokens, texts = [int(batch.judged.sum()) for batch in there], [len(batch.judged) for batch in there]
    expected = (("sweep_states", states, sum(tokens), widths[0]), ("sweep_pooled", pooled, sum(texts), widths[1]))
    for name, array, count, width in expected:
        if array.shape != (count, width) or array.dtype != np.float32 or not np.isfinite(array).all():
            raise ValueError(f"{name} is not {count} finite float32 rows of {width}")

    rows = zip(_split(states, tokens), _split(pooled, texts), strict=True)
    sample = tuple(Expected(*next(rows), finite=bool(known == 2)) if known else None for known in defined)
    return Sweep(facts, sample)


def _split(rows: NDArray[np.generic], counts: Sequence[int]) -> list[NDArray[np.float32]]:
    """Return the rows of each batch."""
    return [part.astype(np.float32) for part in np.split(rows, np.cumsum(counts)[:-1])]


def _array(arrays: Mapping[str, NDArray[np.generic]], name: str) -> NDArray[np.generic]:
    if name not in arrays:
        raise ValueError(f"it holds no {name}")
    return arrays[name]
