"""Score all pairs in one session, each pair alone and in batches, and build the report's rows of them."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bge_export.oracle.vectors import ReferenceVectors
from bge_export.parity.measure.batches import Batch
from bge_export.parity.measure.embedding import Checked, Pad, steps
from bge_export.parity.report import ScoreRow
from bge_export.progress import advance
from bge_export.texts.corpus import Corpus, Kind
from bge_export.texts.tokens import token_types

Scores = tuple[NDArray[np.float32], Sequence[Mapping[str, Sequence[float]]]]
"""The logits of N pairs alone, [N], and for each pair: batch shape -> its logit in every batch of that shape."""


def score_batches(
    checked: Checked, rows: Sequence[Sequence[int]], batches: Sequence[Batch], pad: Pad
) -> Mapping[str, Scores]:
    """Score N pairs alone ([1, S]) and in batches; return output -> logits. Progress counts `steps(N)`.

    Args:
        checked: the session.
        rows: N rows of token ids.
        batches: the batches from `plan_batches`.
        pad: rows of token ids and a length -> padded batch.

    Raises:
        RuntimeContractError: see `Checked.embed`.
    """
    count, outputs = len(rows), checked.artifact.outputs
    alone = {name: np.full(count, np.nan, dtype=np.float32) for name in outputs}
    batched: dict[str, list[dict[str, list[float]]]] = {
        name: [defaultdict(list) for _ in range(count)] for name in outputs
    }

    for pair, ids in enumerate(rows):
        for name, logits in checked.embed(pad([ids], None)).items():
            alone[name][pair] = logits[0, 0]
        advance()

    left = steps(count) - count
    for number, batch in enumerate(batches):
        for name, logits in checked.embed(pad([rows[pair] for pair in batch.texts], batch.length)).items():
            for pair, logit in zip(batch.texts, logits[:, 0], strict=True):
                batched[name][pair][batch.shape].append(float(logit))
        advance(left * (number + 1) // len(batches) - left * number // len(batches))

    return {name: (alone[name], batched[name]) for name in outputs}


def score_rows(
    corpus: Corpus,
    kinds: Sequence[Kind],
    rows: Sequence[Sequence[int]],
    scores: Scores,
    reference: ReferenceVectors,
) -> tuple[ScoreRow, ...]:
    """Return the facts of N pairs in one lane.

    Args:
        corpus: the pairs.
        kinds: the kind of each pair for this checkpoint (`languages.kinds_for`).
        rows: the tokens of each pair from the artifact's tokenizer.
        scores: the logits of each pair, alone and in batches.
        reference: the oracle's logits of the same pairs.
    """
    alone, batched = scores
    types = reference.token_types
    first: dict[str | None, str] = {}
    for pair in corpus.texts:
        first.setdefault(pair.query, pair.id)

    return tuple(
        ScoreRow(
            id=pair.id,
            text=pair.shown,
            query=first[pair.query],
            kind=kinds[n],
            tokens=len(rows[n]),
            tokens_equal=tuple(rows[n]) == reference.token_ids[n]
            and (types is None or token_types(rows[n]) == types[n]),
            logit=_number(alone[n]),
            reference=float(reference.truth[n, 0]),
            batch={shape: _farthest(seen, float(alone[n])) for shape, seen in batched[n].items()},
        )
        for n, pair in enumerate(corpus.texts)
    )


def _farthest(seen: Sequence[float], alone: float) -> float | None:
    """Return the logit that differs most from the logit of the pair alone; None if any is not finite."""
    if not all(map(math.isfinite, seen)):
        return None
    return max(seen, key=lambda logit: abs(logit - alone))


def _number(value: float | np.floating) -> float | None:
    return float(value) if math.isfinite(value) else None
