"""Run all texts in one session of a model with several heads or heads on tokens, alone and in batches, and compare.

All outputs come from one run of the model, so all are compared at once. A text's answers alone are kept, since each
batch is compared with them.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bge_export.contracts import TokenBatch
from bge_export.heads.multi_vector import MultiVectorHead, vectors_head
from bge_export.heads.sparse import SparseHead, sparse_head
from bge_export.oracle.vectors import ReferenceVectors
from bge_export.parity.measure.batches import Batch
from bge_export.parity.measure.embedding import Checked, Embeddings, InBatch, Pad, steps
from bge_export.parity.measure.metrics import cosines, norm_errors, norms
from bge_export.parity.report import SparseRow, VectorsRow
from bge_export.progress import advance
from bge_export.texts.corpus import Corpus, Kind

Float = NDArray[np.float32]

CHUNK = 512
"""Number of tokens whose similarities with all tokens of another text are computed at once."""


@dataclass(frozen=True)
class VectorsInBatch:
    """A text's vectors in a batch against those of the text alone: smallest cosine, largest relative norm error."""

    cosine: float
    norm_error: float


Figure = float | InBatch | VectorsInBatch


@dataclass
class Answers:
    """One output for N texts.

    Attributes:
        alone: the answers of each text by itself: weights [S] or [V], vectors of its tokens [T, M], or a vector [D].
        batched: for each text: batch shape -> one figure for every batch of that shape that held the text: the largest
            difference of a weight, what vectors of tokens differ by, or what `Embeddings` holds.
    """

    alone: list[Float] = field(default_factory=list)
    batched: list[dict[str, list[Figure]]] = field(default_factory=list)

    def embeddings(self) -> Embeddings:
        """Return the answers of a dense output as embeddings."""
        seen = [
            {shape: [one for one in found if isinstance(one, InBatch)] for shape, found in each.items()}
            for each in self.batched
        ]
        return Embeddings(np.stack(self.alone), tuple(seen))


def answer_batches(
    checked: Checked, rows: Sequence[Sequence[int]], batches: Sequence[Batch], pad: Pad
) -> Mapping[str, Answers]:
    """Run N texts alone ([1, S]) and in batches; return output -> answers. Progress counts `steps(N)`.

    Args:
        checked: the session.
        rows: N rows of token ids.
        batches: the batches from `plan_batches`.
        pad: rows of token ids and a length -> padded batch.

    Raises:
        RuntimeContractError: see `Checked.embed`.
    """
    count = len(rows)
    found = {name: Answers(batched=[defaultdict(list) for _ in rows]) for name in checked.artifact.outputs}

    for ids in rows:
        batch = pad([ids], None)
        for name, given in checked.embed(batch).items():
            # Copied: a runtime may reuse its buffer.
            found[name].alone.append(_own(checked, name, given, batch, 0).copy())
        advance()

    left = steps(count) - count
    for number, planned in enumerate(batches):
        batch = pad([rows[text] for text in planned.texts], planned.length)
        for name, given in checked.embed(batch).items():
            for place, text in enumerate(planned.texts):
                own = _own(checked, name, given, batch, place)
                figure = _figure(checked, name, own, found[name].alone[text])
                found[name].batched[text][planned.shape].append(figure)
        advance(left * (number + 1) // len(batches) - left * number // len(batches))

    return found


def _own(checked: Checked, output: str, given: Float, batch: TokenBatch, place: int) -> Float:
    """Return one text's answers from those of a batch, without its padding."""
    head = checked.artifact.spec.head_of(output)
    if isinstance(head, MultiVectorHead):
        return head.token_rows(given[place], batch.attention_mask[place])
    if isinstance(head, SparseHead) and head.per == "token":
        kept: Float = given[place][batch.attention_mask[place] != 0]
        return kept

    whole: Float = given[place]
    return whole


def _figure(checked: Checked, output: str, own: Float, alone: Float) -> Figure:
    """Return how a text's answers in a batch differ from its answers alone; NaN if they are not finite."""
    head = checked.artifact.spec.head_of(output)
    if isinstance(head, SparseHead):
        return largest_difference(own, alone)
    if isinstance(head, MultiVectorHead):
        farthest = float(np.max(norm_errors(own, alone), initial=0.0))
        return VectorsInBatch(float(np.min(cosines(own, alone), initial=1.0)), farthest)
    return InBatch(float(cosines(own[None], alone[None])[0]), float(norms(own[None])[0]))


def largest_difference(one: Float, other: Float) -> float:
    """Return the largest absolute difference; NaN if one is not finite."""
    with np.errstate(invalid="ignore"):
        return float(np.max(np.abs(one.astype(np.float64) - other.astype(np.float64)), initial=0.0))


def sparse_rows(
    corpus: Corpus, kinds: Sequence[Kind], rows: Sequence[Sequence[int]], answers: Answers, reference: ReferenceVectors
) -> tuple[SparseRow, ...]:
    """Return the facts of N texts in one lane with token weights.

    Args:
        corpus: the texts.
        kinds: the kind of each text for this checkpoint (`languages.kinds_for`).
        rows: the tokens of each text from the artifact's tokenizer.
        answers: the weights of each text, alone and in batches.
        reference: the oracle's weights of the same texts.
    """
    head = sparse_head(reference.spec)
    found = []
    for n, text in enumerate(corpus.texts):
        given, ids = answers.alone[n], reference.token_ids[n]
        truth = reference.tokens_of(n, SparseHead.kind)[:, 0] if head.per == "token" else reference.truth[n]
        fits = given.shape == truth.shape
        finite = bool(np.isfinite(given).all())

        wanted = head.by_id(truth, ids)
        seen = head.by_id(given, ids) if fits and finite else {}
        found.append(
            SparseRow(
                id=text.id,
                text=text.shown,
                kind=kinds[n],
                tokens=len(rows[n]),
                tokens_equal=tuple(rows[n]) == tuple(ids),
                finite=finite,
                difference=_number(largest_difference(given, truth)) if fits else None,
                largest=float(np.max(truth, initial=0.0)),
                score=_number(_lexical(seen, wanted)),
                reference_score=_lexical(wanted, wanted),
                batch={shape: _number(np.max(_floats(each))) for shape, each in answers.batched[n].items()},
            )
        )
    return tuple(found)


def vectors_rows(
    corpus: Corpus, kinds: Sequence[Kind], rows: Sequence[Sequence[int]], answers: Answers, reference: ReferenceVectors
) -> tuple[VectorsRow, ...]:
    """Return the facts of N texts in one lane with vectors of tokens; the arguments are those of `sparse_rows`.

    MaxSim is that of each text, as a query, with the checkpoint's vectors of the next text.
    """
    head = vectors_head(reference.spec)
    count = len(corpus.texts)
    found = []

    for n, text in enumerate(corpus.texts):
        given = answers.alone[n]
        truth = reference.tokens_of(n, MultiVectorHead.kind)[head.skipped :]
        other = reference.tokens_of((n + 1) % count, MultiVectorHead.kind)[head.skipped :]
        fits = given.shape == truth.shape
        found.append(
            VectorsRow(
                id=text.id,
                text=text.shown,
                kind=kinds[n],
                tokens=len(rows[n]),
                tokens_equal=tuple(rows[n]) == tuple(reference.token_ids[n]),
                finite=bool(np.isfinite(given).all()),
                vectors=len(given),
                token_cosine=_number(np.min(cosines(given, truth), initial=1.0)) if fits else None,
                norm_error=_number(np.max(norm_errors(given, truth), initial=0.0)) if fits else None,
                max_sim=_number(max_sim(given, other)),
                reference_max_sim=max_sim(truth, other),
                batch={
                    shape: _number(np.min([one.cosine for one in _of_vectors(each)]))
                    for shape, each in answers.batched[n].items()
                },
                batch_norm_error={
                    shape: _number(np.max([one.norm_error for one in _of_vectors(each)]))
                    for shape, each in answers.batched[n].items()
                },
            )
        )
    return tuple(found)


def max_sim(query: Float, document: Float) -> float:
    """Return the mean, over the vectors [T, M] of a query, of the largest product with one of a document's [U, M]."""
    if not len(query) or not len(document):
        return 0.0

    wide = document.astype(np.float64)
    total = 0.0
    with np.errstate(invalid="ignore", over="ignore"):
        for start in range(0, len(query), CHUNK):
            total += float((query[start : start + CHUNK].astype(np.float64) @ wide.T).max(axis=1).sum())
    return total / len(query)


def _lexical(one: Mapping[int, float], other: Mapping[int, float]) -> float:
    """Return the lexical score of two texts: the sum of the products of weights, over the tokens that both have."""
    return math.fsum(weight * other[token] for token, weight in one.items() if token in other)


def _floats(figures: Sequence[Figure]) -> NDArray[np.float64]:
    return np.array([one for one in figures if isinstance(one, float)])


def _of_vectors(figures: Sequence[Figure]) -> list[VectorsInBatch]:
    return [one for one in figures if isinstance(one, VectorsInBatch)]


def _number(value: float | np.floating) -> float | None:
    return float(value) if math.isfinite(value) else None
