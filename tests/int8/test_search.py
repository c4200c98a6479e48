"""The choice of a variant on probes: the fastest that keeps its distance from the limits, else the nearest."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from bge_export.precision.int8.round.variant import Variant
from bge_export.precision.int8.search import search as searching
from bge_export.precision.int8.search.evaluator import Evaluation, Figures
from bge_export.precision.int8.search.search import CAUTION, WIDENINGS, Found, Targets, search

TARGETS = Targets(smallest=0.998, mean=0.999, smallest_stress=0.99)
GOOD = Figures(0.9985, 0.9995, 0.995, 2.0, 100)
COARSE = Figures(0.99, 0.999, 0.995, 1.0, 100)
TIPPED = Figures(0.9985, 0.9995, 0.95, 1.0, 100)
LOST = Figures(float("nan"), float("nan"), float("nan"), 1.0, 100)


@dataclass
class Case:
    """Stands in for builder and evaluator: figures as written down, by number of precise points and widening."""

    given: dict[tuple[int, float], Figures]
    otherwise: Figures
    variants: tuple[Variant, ...]
    points: frozenset[Any] = frozenset()
    plans: tuple[None, ...] = (None, None)
    stress: Any = field(default_factory=lambda: np.array([False, True]))
    rows: tuple[tuple[int, ...], ...] = ((1,), (2,))
    objective: None = None
    pad: None = None
    arrangement: str = "sequence-major"

    def build(self, variant: Variant) -> Variant:
        return variant

    def evaluate(self, variant: Variant, *, cls_only: bool, again: Any) -> Evaluation:
        figures = self.given.get((len(variant.precise), variant.widening), self.otherwise)
        return Evaluation(figures, np.array([figures.smallest, figures.smallest_stress]))


def variant_of(count: int) -> Variant:
    return Variant(precise=frozenset((layer, "down") for layer in range(count)))


@pytest.fixture
def choose(monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(case: Case, start: int = 0) -> Found:
        monkeypatch.setattr(searching, "frontier", lambda *_, **__: iter(case.variants))
        monkeypatch.setattr(searching, "cost", lambda _, variant: 1.0 + len(variant.precise) / 10)
        monkeypatch.setattr(searching, "predicted_error", lambda _, variant: 0.01 / 2 ** len(variant.precise))
        monkeypatch.setattr(searching, "tipping_points", lambda *_: case.points)
        two: Any = case
        return search(two, two, TARGETS, cls_only=False, start=start)

    return run


FRONTIER = tuple(variant_of(count) for count in (0, 1, 2, 3, 6, 9))


def test_the_fastest_variant_that_holds_is_taken(choose) -> None:
    found = choose(Case({}, GOOD, FRONTIER))
    assert (found.rank, found.held, len(found.steps)) == (0, True, 1)


def test_a_near_miss_is_tried_with_other_widenings(choose) -> None:
    near = Figures(1 - 0.002 * CAUTION * 0.99, 0.9995, 0.995, 1.0, 100)
    found = choose(Case({(0, 1.0): near, (0, WIDENINGS[1]): near}, GOOD, FRONTIER))
    assert (found.variant.widening, found.rank, found.held) == (WIDENINGS[2], 0, True)


def test_variants_that_predictions_rule_out_are_not_tried(choose) -> None:
    """Everyday texts lose five times what they may; three points with residuals are predicted to lose an eighth."""
    found = choose(Case({(0, 1.0): COARSE}, GOOD, FRONTIER))
    assert [step.precise for step in found.steps] == [0, 2]
    assert found.held


def test_points_that_tip_a_stress_probe_over_get_a_residual(choose) -> None:
    points = frozenset({(0, "qkv"), (1, "up")})
    found = choose(Case({(0, 1.0): TIPPED}, GOOD, FRONTIER, points))
    assert (found.variant.precise, found.rank, found.held) == (points, 0, True)


def test_where_everyday_probes_fail_no_point_is_looked_for(choose) -> None:
    both = Figures(0.99, 0.999, 0.9, 1.0, 100)
    found = choose(Case({(0, 1.0): both}, GOOD, FRONTIER, frozenset({(0, "qkv")})))
    assert all(step.precise in (0, 3, 6, 9) for step in found.steps)


def test_the_most_exact_variant_is_tried_in_any_case_and_the_nearest_taken(choose) -> None:
    nearest = Figures(0.9975, 0.9995, 0.995, 3.0, 100)
    found = choose(Case({(9, 1.0): nearest}, COARSE, FRONTIER))
    assert (found.rank, found.held, found.figures) == (5, False, nearest)


def test_a_variant_whose_vectors_are_not_finite_is_never_the_nearest(choose) -> None:
    found = choose(Case({(0, 1.0): COARSE}, LOST, FRONTIER))
    assert (found.rank, found.held) == (0, False)
    assert len(found.steps) > 1


def test_a_search_may_start_at_the_most_exact_variant(choose) -> None:
    found = choose(Case({}, COARSE, FRONTIER), start=len(FRONTIER) - 1)
    assert [step.precise for step in found.steps] == [9]


def test_the_record_has_the_taken_variant_last(choose) -> None:
    worse = Figures(0.98, 0.999, 0.995, 1.0, 100)
    case = Case({(0, 1.0): COARSE}, worse, FRONTIER)
    found = choose(case)
    evaluator: Any = case
    record = found.record(evaluator)
    steps: Any = record["frontier"]
    assert len(steps) == len(found.steps) > 1
    assert steps[-1]["smallest"] == COARSE.smallest
    assert (record["choice"]["cost_of_fastest"], record["choice"]["tried"]) == (1.0, len(steps))  # type: ignore[index]


def test_variants_whose_vectors_are_not_finite_are_not_recorded(choose) -> None:
    """A manifest holds no NaN: a folder that passed could not be read."""
    case = Case({(0, 1.0): COARSE}, LOST, FRONTIER)
    evaluator: Any = case
    steps: Any = choose(case).record(evaluator)["frontier"]
    assert [step["smallest"] for step in steps] == [COARSE.smallest]


def test_a_second_search_keeps_the_steps_of_the_first(choose) -> None:
    """The size of the fastest variant is of the first search's."""
    case = Case({(0, 1.0): COARSE}, GOOD, FRONTIER)
    first = choose(case)
    again = choose(case, start=len(FRONTIER) - 1).after(first.steps)
    evaluator: Any = case
    record = again.record(evaluator)
    assert record["choice"]["tried"] == len(first.steps) + 1  # type: ignore[index]
    assert record["choice"]["cost_of_fastest"] > 1  # type: ignore[index]
    assert len(record["frontier"]) == len(first.steps) + 1  # type: ignore[arg-type]


def test_a_repair_starts_from_the_best_widening(choose) -> None:
    slightly = Figures(0.9985, 0.9995, 1 - 0.01 * CAUTION * 0.99, 1.0, 100)
    narrow = Figures(0.9979, 0.9995, 0.995, 1.0, 100)
    given = {(0, WIDENINGS[0]): slightly, (0, WIDENINGS[1]): narrow, (0, WIDENINGS[2]): narrow}
    found = choose(Case(given, GOOD, FRONTIER, frozenset({(0, "qkv")})))
    assert (found.variant.widening, len(found.variant.precise), found.rank) == (WIDENINGS[0], 1, 0)


@pytest.mark.parametrize(
    ("figures", "least"),
    [
        (Figures(0.998, 0.999, 0.99, 1.0, 1), 1.0),
        (Figures(0.996, 0.999, 0.99, 1.0, 1), 2.0),
        (Figures(0.999, 0.997, 0.99, 1.0, 1), 3.0),
        (Figures(0.999, 0.999, 0.96, 1.0, 1), 4.0),
        (LOST, float("inf")),
    ],
)
def test_the_largest_shortfall_counts(figures: Figures, least: float) -> None:
    assert TARGETS.shortfall(figures) == pytest.approx(least)
