"""Run the sweep of token ids in one session, and compare token states with the checkpoint's. Nothing is judged here.

An output that holds the states of all tokens is compared state by state, so that one spoilt row of the token table is
seen. Of an output that holds one vector a text, the vectors are compared; of a reranker's, the logits; of
token weights, the weights. Directions and lengths are both compared, since no cosine shows a length.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bge_export.contracts import LOGITS, ModelSpec
from bge_export.heads.dense import POOLED, DenseHead, normalize
from bge_export.heads.multi_vector import MultiVectorHead
from bge_export.heads.sparse import SparseHead
from bge_export.parity.measure.embedding import Checked
from bge_export.parity.measure.metrics import agreements, norm_errors
from bge_export.parity.report import SweepPart, SweepRecord
from bge_export.progress import advance
from bge_export.sweep.packing import token_columns
from bge_export.sweep.plan import HOLES, LEFT, MASKED_IDS, MASKS, POSITIONS, SIZED, SweepBatch
from bge_export.sweep.states import Expected, Sweep

Outputs = Mapping[str, NDArray[np.float32]]


def run_sweep(checked: Checked, sweep: Sweep, *, rows: bool) -> dict[str, SweepRecord]:
    """Return output -> what the sweep covered and found. Progress counts batches.

    Args:
        checked: the session.
        sweep: the plan and the checkpoint's states.
        rows: whether to sweep every id of the vocabulary, or the sample alone.

    Raises:
        RuntimeContractError: see `Checked.outputs`.
    """
    planned = sweep.batches(rows=rows)
    seen = {output: _Seen(output, checked.artifact.spec) for output in checked.artifact.outputs}
    repeated = True

    for batch, expected in planned:
        if expected is not None:
            given = checked.outputs(batch.tokens)
            if batch.kind == SIZED:
                before = {name: values.tobytes() for name, values in given.items()}
                repeated = repeated and before == {
                    name: values.tobytes() for name, values in checked.outputs(batch.tokens).items()
                }

            vectors = checked.pooled(given, batch.tokens)
            for name, one in seen.items():
                one.add(batch, expected, given[name], vectors[name])
        advance()

    run = [batch for batch, expected in planned if expected is not None]
    undefined = tuple(kind for kind in MASKS if kind not in {batch.kind for batch in run})
    records = {name: _record(one, run, undefined, repeated=repeated) for name, one in seen.items()}
    without = [one for one in seen.values() if not one.by_token]
    if not rows or not without:
        return records
    return records | _with_positions(checked, sweep, without, records)


def _with_positions(
    checked: Checked, sweep: Sweep, without: "Sequence[_Seen]", records: Mapping[str, SweepRecord]
) -> dict[str, SweepRecord]:
    """Return the records of outputs that have nothing for a single token, with the positions that masks showed."""
    planned = sweep.positions()
    shown: set[int] = set()

    for batch, expected in planned:
        if expected is None:
            continue
        given = checked.outputs(batch.tokens)
        vectors = checked.pooled(given, batch.tokens)
        for one in without:
            one.add(batch, expected, given[one.output], vectors[one.output])
        shown |= set(np.flatnonzero(batch.tokens.attention_mask[0]).tolist())

    undefined = (POSITIONS,) if planned and not shown else ()
    return {
        one.output: records[one.output].model_copy(
            update={
                "positions": len(shown),
                "undefined": records[one.output].undefined + undefined,
                "parts": tuple(_part(kind, part) for kind, part in one.parts.items()),
            }
        )
        for one in without
    }


def sweep_steps(sweep: Sweep, *, rows: bool) -> int:
    """Return the progress of `run_sweep`."""
    return len(sweep.batches(rows=rows))


def ids_swept(sweep: Sweep) -> int:
    """Return how many ids a run with `rows` covers."""
    return _ids([batch for batch, expected in sweep.batches(rows=True) if expected is not None])


@dataclass
class _Smallest:
    """What one kind of batch found so far; a NaN stays."""

    sequences: int = 0
    finite: bool = True
    token_cosine: float = math.inf
    token: int = -1
    sequence_cosine: float = math.inf
    length: int = 0
    difference: float | None = None
    norm_error: float | None = None

    def note_difference(self, largest: float) -> None:
        """Keep the largest difference of all batches; a NaN stays."""
        self.difference = largest if self.difference is None else float(np.max([self.difference, largest]))

    def note_norm_error(self, largest: float) -> None:
        """Keep the largest relative error of a norm of all batches; a NaN stays."""
        self.norm_error = largest if self.norm_error is None else float(np.max([self.norm_error, largest]))


@dataclass
class _Seen:
    """One output in all batches."""

    output: str
    spec: ModelSpec
    states: bool = True
    by_token: bool = True
    parts: dict[str, _Smallest] = field(default_factory=dict)

    def add(
        self, batch: SweepBatch, expected: Expected, given: NDArray[np.float32], vectors: NDArray[np.float32]
    ) -> None:
        """Compare one batch.

        Args:
            batch: the batch.
            expected: what the checkpoint gives for it.
            given: the output as it is.
            vectors: [B, D], the head's vectors of it.
        """
        part = self.parts.setdefault(batch.kind, _Smallest())
        ids, mask = batch.tokens.input_ids, batch.tokens.attention_mask
        part.sequences += len(ids)
        part.finite = part.finite and not (expected.finite and not np.isfinite(given).all())

        if self.output == LOGITS:
            self.states = self.by_token = False
            part.note_difference(float(np.max(np.abs(vectors.astype(np.float64) - expected.pooled))))
            return

        head = self.spec.head_of(self.output)
        if isinstance(head, SparseHead):
            self.states, self.by_token = False, head.per == "token"
            part.note_difference(self._weights(head, batch, expected, given))
            return

        self.states = self.output not in POOLED and (isinstance(head, MultiVectorHead) or given.shape[:2] == ids.shape)
        self.by_token = self.states
        if isinstance(head, MultiVectorHead):
            values, lengths, tokens, counts = self._vectors(head, batch, expected, given)
            if not len(values):
                return
        elif self.states:
            own, wanted = given[batch.judged], expected.states
            values, lengths = agreements(own, wanted), norm_errors(own, wanted)
            tokens, counts = ids[batch.judged], batch.judged.sum(axis=1)
        else:
            values, lengths = agreements(vectors, expected.pooled), self._lengths(vectors, expected)
            tokens, counts = ids[:, 0], np.ones(len(ids), dtype=np.int64)
        part.note_norm_error(float(np.max(lengths)))

        # argmin gives the first NaN if there is one.
        worst = int(np.argmin(values))
        if not values[worst] >= part.token_cosine:
            part.token_cosine, part.token = float(values[worst]), int(tokens[worst])

        # A sequence of nothing but a token without a vector has no mean.
        split = [own for own in np.split(values, np.cumsum(counts)[:-1]) if len(own)]
        mask = mask[counts > 0]
        means = np.array([own.mean() for own in split])
        worst = int(np.argmin(means))
        if not means[worst] >= part.sequence_cosine:
            part.sequence_cosine, part.length = float(means[worst]), int(mask[worst].sum())

    def _lengths(self, vectors: NDArray[np.float32], expected: Expected) -> NDArray[np.float64]:
        """Return the norm errors of the vectors of sequences, [B]; the expected ones are not divided by their norm."""
        head = self.spec.head_of(self.output)
        if isinstance(head, DenseHead) and head.normalize:
            return norm_errors(vectors, normalize(expected.pooled))
        return norm_errors(vectors, expected.pooled)

    def _weights(self, head: SparseHead, batch: SweepBatch, expected: Expected, given: NDArray[np.float32]) -> float:
        """Return the largest difference of a judged token's weight, or of one of the vocabulary."""
        wanted = expected.pooled
        if head.per == "token":
            given, wanted = given[batch.judged], expected.states[:, token_columns(self.spec, head.kind)][:, 0]
        return float(np.max(np.abs(given.astype(np.float64) - wanted)))

    def _vectors(
        self, head: MultiVectorHead, batch: SweepBatch, expected: Expected, given: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
        """Return cosines and norm errors of the judged tokens' vectors, their ids, and how many each sequence has.

        A token that has no vector is left out, on both sides.
        """
        places = batch.judged.copy()
        places[:, : head.skipped] = False
        kept = places[batch.judged]

        wanted = expected.states[:, token_columns(self.spec, head.kind)][kept]
        own = given[places[:, head.skipped :]]
        return agreements(own, wanted), norm_errors(own, wanted), batch.tokens.input_ids[places], places.sum(axis=1)


def _record(seen: _Seen, run: Sequence[SweepBatch], undefined: tuple[str, ...], *, repeated: bool) -> SweepRecord:
    masks = [batch.tokens.attention_mask for batch in run]
    lengths = {int(length) for mask in masks for length in mask.sum(axis=1)}
    types = {int(one) for batch in run for one in np.unique(batch.tokens.token_type_ids)}

    return SweepRecord(
        ids=_ids(run),
        lengths=len(lengths),
        longest=max(lengths),
        positions=max(lengths) if seen.by_token else 0,
        token_types=len(types),
        sizes=tuple(sorted({len(batch.judged) for batch in run})),
        undefined=undefined,
        states=seen.states,
        repeated=repeated,
        parts=tuple(_part(kind, part) for kind, part in seen.parts.items()),
    )


def _ids(run: Sequence[SweepBatch]) -> int:
    """Return the number of ids whose own states were compared."""
    ids = [batch.tokens.input_ids[batch.judged] for batch in run if batch.kind not in (HOLES, LEFT, MASKED_IDS)]
    return len(np.unique(np.concatenate(ids)))


def _part(kind: str, found: _Smallest) -> SweepPart:
    return SweepPart(
        kind=kind,
        sequences=found.sequences,
        finite=found.finite,
        token_cosine=_number(found.token_cosine),
        token=found.token,
        sequence_cosine=_number(found.sequence_cosine),
        length=found.length,
        difference=None if found.difference is None else _number(found.difference),
        norm_error=None if found.norm_error is None else _number(found.norm_error),
    )


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
