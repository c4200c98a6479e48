"""How far two sets of vectors of the same texts agree: cosines, neighbours, ranks and similarities.

The index holds the vectors of one side, and queries come from the other: that is what happens when an embedder is
exchanged and the index stays. Neighbours whose similarities differ by less than `TIE` have no order.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

Vectors = NDArray[np.float64]

NEIGHBOURS = 10
FEWEST_TEXTS = 2 * NEIGHBOURS
"""Of fewer texts most are among the ten nearest, whatever the vectors are."""

TIE = 1e-6
"""Similarities as near as this are equal: float32 arithmetic decides no more."""

BLOCK = 512
"""Queries that are compared with all texts at once."""


class Figures(BaseModel):
    """What was measured.

    Attributes:
        texts, queries: how many were compared.
        min_cosine: smallest cosine of a text's two vectors.
        worst: the id of that text.
        mean_cosine: their mean.
        min_overlap: smallest share of the ten nearest neighbours that a query keeps.
        mean_overlap: the mean of these shares.
        first_kept: share of the queries that keep their nearest neighbour.
        largest_rank_change: the furthest that one of the ten moves, in ranks.
        largest_similarity_change: the most that the similarity of two texts changes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    texts: int = Field(ge=FEWEST_TEXTS)
    queries: int = Field(ge=1)
    min_cosine: float = Field(ge=-1.0001, le=1.0001)
    worst: str
    mean_cosine: float = Field(ge=-1.0001, le=1.0001)
    min_overlap: float = Field(ge=0, le=1)
    mean_overlap: float = Field(ge=0, le=1)
    first_kept: float = Field(ge=0, le=1)
    largest_rank_change: int = Field(ge=0)
    largest_similarity_change: float = Field(ge=0, le=2.0001)

    @property
    def consistent(self) -> bool:
        """Return whether one measurement can give all of them."""
        return (
            self.min_cosine <= self.mean_cosine
            and self.min_overlap <= self.mean_overlap
            and self.largest_rank_change < self.texts
        )


@dataclass(frozen=True)
class Searches:
    """The same Q searches before and after an exchange; rows of both are unit vectors.

    Attributes:
        queries_before, index_before: [Q, D] and [N, D], as they were.
        queries_after, index_after: [Q, D] and [N, D], after the exchange.
        own: whether query n is text n, which is then no neighbour of itself.
    """

    queries_before: Vectors
    index_before: Vectors
    queries_after: Vectors
    index_after: Vectors
    own: bool


def unit(vectors: NDArray[np.generic]) -> Vectors:
    """Return [N, D] float64 rows divided by their norm; rows that are zero or not finite become NaN."""
    wide = np.asarray(vectors, dtype=np.float64)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return wide / np.where(np.isfinite(norms) & (norms > 0), norms, np.nan)


def undefined_rows(vectors: Vectors) -> list[int]:
    """Return the numbers of the rows that `unit` made NaN."""
    return [int(number) for number in np.flatnonzero(~np.isfinite(vectors).all(axis=1))]


def compare_vectors(new: Vectors, old: Vectors, ids: Sequence[str], searches: Searches) -> Figures:
    """Return the figures of two sets of unit vectors of N texts, [N, D] each.

    Args:
        new: the vectors of the artifact that takes over.
        old: those of the other artifact, or of the index.
        ids: the names of the texts.
        searches: what is searched before and after.
    """
    cosines = np.clip((new * old).sum(axis=1), -1.0, 1.0)
    worst = int(cosines.argmin())

    kept, first, moved = [], [], 0
    for before, after in _similarities(searches):
        overlap, nearest, change = _neighbours(before, after)
        kept.append(overlap)
        first.append(nearest)
        moved = max(moved, change)

    shares = np.concatenate(kept)
    return Figures(
        texts=len(new),
        queries=len(shares),
        min_cosine=float(cosines[worst]),
        worst=ids[worst],
        mean_cosine=float(max(cosines.mean(), cosines[worst])),
        min_overlap=float(shares.min()),
        mean_overlap=float(max(shares.mean(), shares.min())),
        first_kept=float(np.concatenate(first).mean()),
        largest_rank_change=moved,
        largest_similarity_change=_largest_change(new, old),
    )


def _similarities(searches: Searches) -> Iterator[tuple[Vectors, Vectors]]:
    """Yield the similarities of a block of queries with all texts, [B, N], before and after."""
    for start in range(0, len(searches.queries_before), BLOCK):
        rows = slice(start, start + BLOCK)
        before = searches.queries_before[rows] @ searches.index_before.T
        after = searches.queries_after[rows] @ searches.index_after.T

        if searches.own:
            itself = np.arange(len(before))
            before[itself, start + itself] = -np.inf
            after[itself, start + itself] = -np.inf
        yield before, after


def _neighbours(before: Vectors, after: Vectors) -> tuple[Vectors, NDArray[np.bool_], int]:
    """Return of B queries the share of neighbours and whether the nearest is kept, and the largest change of a rank."""
    ten_before = np.argsort(-before, axis=1, kind="stable")[:, :NEIGHBOURS]
    ten_after = np.argsort(-after, axis=1, kind="stable")[:, :NEIGHBOURS]

    # What is found after the exchange is right if it was as near before as the tenth.
    found = np.take_along_axis(before, ten_after, axis=1)
    least = np.take_along_axis(before, ten_before[:, -1:], axis=1)
    kept = (found >= least - TIE).mean(axis=1)
    nearest = found[:, 0] >= before.max(axis=1) - TIE

    moved = 0
    for place in range(NEIGHBOURS):
        rank_before = _rank(before, ten_before[:, place])
        rank_after = _rank(after, ten_before[:, place])
        moved = max(moved, int(np.abs(rank_after - rank_before).max()))
    return kept, nearest, moved


def _rank(similarities: Vectors, chosen: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return how many texts are nearer to each of B queries than the chosen one, [B]."""
    own = np.take_along_axis(similarities, chosen[:, None], axis=1)
    return np.asarray((similarities > own + TIE).sum(axis=1))


def _largest_change(new: Vectors, old: Vectors) -> float:
    """Return the most that the similarity of two of N texts changes."""
    most = 0.0
    for start in range(0, len(new), BLOCK):
        rows = slice(start, start + BLOCK)
        most = max(most, float(np.abs(new[rows] @ new.T - old[rows] @ old.T).max()))
    return most
