"""The order in which a reranker's logits put each query's candidates, compared with the checkpoint's. Facts only.

Scores saturate: two files may agree in every logit to 0.01 and still order candidates differently, or differ by 1 and
order them alike. What users of a reranker take from it is the order.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from bge_export.parity.report import ScoreRow

TIED = 0.01
"""Candidates whose logits differ by less than this share of the spread are shown as tied: any rounding orders them by
chance. In float32 the limit of each logit says more. Limits name a share of their own."""

TOP = 3
"""How many of a query's first candidates are compared as a set."""


@dataclass(frozen=True)
class Order:
    """The order of one query's candidates.

    Attributes:
        query: the id of the query's first pair.
        candidates: how many candidates it has.
        tau: Kendall's tau over the pairs of candidates that the checkpoint orders: 1 if all are in the same order, -1
            if none is; None if a logit is not finite, or the checkpoint orders no two of them.
        top: the share of the first candidates here that are among the checkpoint's first, or tied with its last of
            them; None as for `tau`. The first are `TOP`, or all but one of fewer candidates.
    """

    query: str
    candidates: int
    tau: float | None
    top: float | None


def spread(rows: Sequence[ScoreRow]) -> float:
    """Return the distance of the checkpoint's largest logit from its smallest; 0 for no rows."""
    logits = [row.reference for row in rows]
    return max(logits) - min(logits) if logits else 0.0


def orders(rows: Sequence[ScoreRow], tied: float = TIED) -> tuple[Order, ...]:
    """Return the order of each query with at least two candidates that the checkpoint orders.

    Args:
        rows: all pairs of a lane.
        tied: the share of the spread up to which candidates are tied.
    """
    candidates: dict[str, list[ScoreRow]] = defaultdict(list)
    for row in rows:
        candidates[row.query].append(row)

    least = tied * spread(rows)
    return tuple(_order(query, own, least) for query, own in candidates.items() if any(_ordered(own, least)))


def _order(query: str, rows: Sequence[ScoreRow], least: float) -> Order:
    logits = [row.logit for row in rows if row.logit is not None]
    if len(logits) < len(rows):
        return Order(query, len(rows), None, None)

    signs = [_sign(one, other) for one, other in _ordered(rows, least)]
    first = min(TOP, len(rows) - 1)
    bound = sorted((row.reference for row in rows), reverse=True)[first - 1] - least
    here = sorted(rows, key=lambda row: -(row.logit or 0.0))[:first]
    stayed = sum(row.reference >= bound for row in here)
    return Order(query, len(rows), sum(signs) / len(signs), stayed / first)


def _ordered(rows: Sequence[ScoreRow], least: float) -> Iterator[tuple[ScoreRow, ScoreRow]]:
    """Yield the pairs of candidates that the checkpoint orders, the better one first."""
    for one, other in combinations(rows, 2):
        if abs(one.reference - other.reference) > least:
            yield (one, other) if one.reference > other.reference else (other, one)


def _sign(better: ScoreRow, worse: ScoreRow) -> int:
    """Return 1 if the logits are in the checkpoint's order, -1 if in the other, 0 if they are equal."""
    above, below = better.logit or 0.0, worse.logit or 0.0
    return (above > below) - (above < below)


@dataclass(frozen=True)
class WorstScores:
    """The worst figures of a reranker's lane. A figure is None if it is undefined for any row.

    Attributes:
        difference: the largest difference of a logit, and its row.
        row: that row.
        batch_difference: the largest change of a logit in a batch.
        tau: the smallest tau of a query.
        query: the id of that query's first pair; None if no query has two candidates.
        top: the smallest share of a query's first candidates that are among the first here.
    """

    difference: float | None
    row: ScoreRow
    batch_difference: float | None
    tau: float | None
    query: str | None
    top: float | None


def worst_scores(rows: Sequence[ScoreRow]) -> WorstScores | None:
    """Return the worst figures of a lane; None for a lane without rows."""
    if not rows:
        return None

    row = max(rows, key=lambda row: float("inf") if row.difference is None else row.difference)
    batched = [one.batch_difference for one in rows]
    found = orders(rows)
    order = min(found, key=lambda one: -2.0 if one.tau is None else one.tau, default=None)
    tops = [one.top for one in found]

    return WorstScores(
        difference=row.difference,
        row=row,
        batch_difference=None if None in batched else max(value for value in batched if value is not None),
        tau=None if order is None else order.tau,
        query=None if order is None else order.query,
        top=None if None in tops or not tops else min(value for value in tops if value is not None),
    )
