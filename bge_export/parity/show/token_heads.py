"""The figures of lanes whose output is token weights or vectors of tokens, and of the dense output beside them.

The terminal, the page, the card and `--json` show them. Nothing is judged here.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bge_export.parity.figures import cosine_figure, difference_figure
from bge_export.parity.report import Lane, SparseRow, VectorsRow
from bge_export.parity.worst import worst_of

ANSWER_COLUMNS = ("worst figure", "of text", "worst in batch", "of the scores")
"""Names of `answer_cells`; each cell says what its figure is of."""


def worst_weights(rows: Sequence[SparseRow]) -> SparseRow:
    """Return the text whose weights are farthest from the checkpoint's; undefined ones come first."""
    return max(rows, key=lambda row: math.inf if row.difference is None else row.difference)


def worst_vectors(rows: Sequence[VectorsRow]) -> VectorsRow:
    """Return the text with the smallest cosine of a token; undefined ones come first."""
    return min(rows, key=lambda row: -2.0 if row.token_cosine is None else row.token_cosine)


def answer_cells(lane: Lane) -> Sequence[str]:
    """Return the worst figures of a lane in the order of `ANSWER_COLUMNS`; empty if it has no rows."""
    facts = answer_facts(lane)
    if lane.weights:
        return (
            f"weight off by {difference_figure(facts['largest_weight_difference'])}",
            facts["worst_text"],
            f"weight off by {difference_figure(facts['largest_batch_weight_difference'])}",
            f"lexical score off by {difference_figure(facts['largest_score_error'])}",
        )
    if lane.vectors:
        return (
            f"token cosine {cosine_figure(facts['smallest_token_cosine'])}",
            facts["worst_text"],
            f"token cosine {cosine_figure(facts['smallest_batch_token_cosine'])}",
            f"MaxSim off by {difference_figure(facts['largest_max_sim_error'])}",
        )

    if not lane.rows:
        return ("",) * len(ANSWER_COLUMNS)
    return (
        f"cosine {cosine_figure(facts['smallest_cosine'])}",
        facts["worst_text"],
        f"cosine {cosine_figure(facts['smallest_batch_cosine'])}",
        "",
    )


def answer_facts(lane: Lane) -> Mapping[str, Any]:
    """Return the worst figures of a lane for `--json`; every key is there, with None if nothing was measured."""
    dense = worst_of(lane.rows)
    weights = worst_weights(lane.weights) if lane.weights else None
    vectors = worst_vectors(lane.vectors) if lane.vectors else None
    least = None if dense is None else dense.overall
    texts = [row.id for row in (weights, vectors) if row is not None] + ([least.row.id] if least else [])

    return {
        "texts": len(lane.facts_of_texts),
        "worst_text": next(iter(texts), None),
        "smallest_cosine": least.cosine if least else None,
        "smallest_batch_cosine": dense.batch_cosine if dense else None,
        "largest_weight_difference": weights.difference if weights else None,
        "largest_batch_weight_difference": _most([one for row in lane.weights for one in row.batch.values()]),
        "largest_score_error": _most([row.score_error for row in lane.weights]),
        "smallest_token_cosine": vectors.token_cosine if vectors else None,
        "smallest_batch_token_cosine": _least([one for row in lane.vectors for one in row.batch.values()]),
        "largest_norm_error": _most([row.norm_error for row in lane.vectors]),
        "largest_batch_norm_error": _most([one for row in lane.vectors for one in row.batch_norm_error.values()]),
        "largest_max_sim_error": _most([row.max_sim_error for row in lane.vectors]),
    }


def _most(figures: Sequence[float | None]) -> float | None:
    """Return the largest figure; None if there is none, or one is undefined."""
    known = [one for one in figures if one is not None]
    return max(known) if known and len(known) == len(figures) else None


def _least(figures: Sequence[float | None]) -> float | None:
    """Return the smallest figure; None if there is none, or one is undefined."""
    known = [one for one in figures if one is not None]
    return min(known) if known and len(known) == len(figures) else None
