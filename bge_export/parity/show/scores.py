"""The figures of a reranker's lanes, as the terminal, the page and `--json` show them. Nothing is judged here."""

from collections.abc import Mapping, Sequence
from typing import Any

from bge_export.parity.figures import difference_figure, least_figure
from bge_export.parity.orders import orders, spread, worst_scores
from bge_export.parity.report import Lane

SCORE_COLUMNS = (
    "largest\ndifference",
    "of pair",
    "largest\nin batch",
    "smallest\ntau",
    "of query",
    "smallest\ntop share",
)
"""Names of `score_cells`, on two lines where a column is narrow."""


def score_cells(lane: Lane) -> Sequence[str]:
    """Return the worst figures of a lane in the order of `SCORE_COLUMNS`; empty if it has no scores."""
    worst = worst_scores(lane.scores)
    if worst is None:
        return ("",) * len(SCORE_COLUMNS)
    return (
        difference_figure(worst.difference),
        worst.row.id,
        difference_figure(worst.batch_difference),
        least_figure(worst.tau),
        worst.query or "",
        least_figure(worst.top),
    )


def score_facts(lane: Lane) -> Mapping[str, Any]:
    """Return the worst figures of a lane for `--json`; every key is there, with None if nothing was measured."""
    worst = worst_scores(lane.scores)

    return {
        "pairs": len(lane.scores),
        "queries": len(orders(lane.scores)),
        "spread": spread(lane.scores) if lane.scores else None,
        "largest_difference": worst.difference if worst else None,
        "largest_difference_pair": worst.row.id if worst else None,
        "largest_batch_difference": worst.batch_difference if worst else None,
        "smallest_tau": worst.tau if worst else None,
        "smallest_tau_query": worst.query if worst else None,
        "smallest_top": worst.top if worst else None,
    }
