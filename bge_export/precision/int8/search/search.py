"""Chooses the fastest variant whose probes keep a distance from the gate's limits.

A model has texts near a point where it tips over: for bge-small-en it is the full stop alone, for which an attention
head in layer 9 attends to one token or to another. There, even the smallest rounding error moves the vector by 0.0001
or by 0.005, and which of the two is chance (docs/decisions/0016). Every variant that seems to hold is therefore run
again with perturbed states, and the fastest rank of the frontier gets several attempts: grids that are wider or
narrower by two percent.

If everyday probes hold and a stress probe does not, the points that tip it over (`tipping`) get a residual before a
slower variant is tried.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bge_export.encoder.encoder import POINTS
from bge_export.precision.int8.round.build import Builder
from bge_export.precision.int8.round.variant import Point, Variant
from bge_export.precision.int8.search.evaluator import Evaluator, Figures, Step
from bge_export.precision.int8.search.tipping import tipping_points
from bge_export.precision.int8.search.variants import cost, frontier, frontier_length, predicted_error
from bge_export.progress import advance

WIDENINGS = (1.0, 1.02, 0.98)
"""Candidates at the fastest rank, in the order of trial; other ranks use only the first."""

MOST_REPAIRS = 4
"""Maximum number of repairs in one search: points that tip stress probes over get a residual."""

WORST_PROBES = 4
"""Number of failing stress probes that a repair examines."""

CAUTION = 1.3
"""Ranks that are predicted to miss the targets by more than this factor are skipped. Other widenings are tried only if
the probes miss the targets by less."""


@dataclass(frozen=True)
class Targets:
    """Cosines that probes must reach: stricter than the gate's limits for int8, for texts outside the probes.

    Attributes:
        smallest, mean: cosine of the everyday probes.
        smallest_stress: smallest cosine of the stress probes.
    """

    smallest: float = 0.9985
    mean: float = 0.9995
    smallest_stress: float = 0.99

    def shortfall(self, figures: Figures) -> float:
        """Return the ratio of errors to allowed errors: 1 or less if the targets are met, infinity for NaN."""
        return max(self.everyday_shortfall(figures), _ratio(figures.smallest_stress, self.smallest_stress))

    def distance(self, figures: Figures) -> tuple[float, float]:
        """Return the distance of figures from the targets; everyday probes come first, as their targets count most."""
        return max(1.0, self.everyday_shortfall(figures)), self.shortfall(figures)

    def everyday_shortfall(self, figures: Figures) -> float:
        """Return the shortfall of the everyday probes alone."""
        return max(_ratio(figures.smallest, self.smallest), _ratio(figures.mean, self.mean))


def _ratio(got: float, needed: float) -> float:
    error = 1 - got
    if not error >= 0:
        return 0.0 if error < 0 else float("inf")
    return error / max(1 - needed, 1e-12)


@dataclass(frozen=True)
class Found:
    """The chosen variant.

    Attributes:
        variant: the variant.
        rank: position in the frontier; 0 is the fastest.
        steps: all variants tried, in order.
        chosen: index of the chosen one in `steps`.
        held: whether it meets the targets; if not, none of those tried does, and it comes nearest.
        layers: number of layers of the encoder.
        cost: cost of the variant, divided by that of the fastest.
    """

    variant: Variant
    rank: int
    steps: tuple[Step, ...]
    chosen: int
    held: bool
    layers: int
    cost: float

    @property
    def figures(self) -> Figures:
        """Return the results of the chosen variant on the probes."""
        return self.steps[self.chosen].figures

    def after(self, before: tuple[Step, ...]) -> "Found":
        """Return the same choice, with the steps of an earlier search before its own."""
        return replace(self, steps=(*before, *self.steps), chosen=len(before) + self.chosen)

    def record(self, evaluator: Evaluator) -> dict[str, object]:
        """Return the choice and the steps with finite embeddings, the chosen one last; only steps hold times."""
        fastest, own = self.steps[0], self.steps[self.chosen]
        choice = {
            "rank": self.rank,
            "held": self.held,
            "everyday_probes": int((~evaluator.stress).sum()),
            "stress_probes": int(evaluator.stress.sum()),
            "smallest": own.figures.smallest,
            "mean": own.figures.mean,
            "smallest_stress": own.figures.smallest_stress,
            "precise": own.precise,
            "points": len(POINTS) * self.layers,
            "tried": len(self.steps),
            "cost_of_fastest": self.cost,
            "size_of_fastest": own.figures.size_bytes / fastest.figures.size_bytes,
        }

        others = [step for number, step in enumerate(self.steps) if number != self.chosen and step.figures.finite]
        return {"choice": choice, "frontier": [step.record() for step in (*others, own)]}


def most_attempts(builder: Builder, start: int = 0) -> int:
    """Return the maximum number of variants that a search from a rank of the frontier tries."""
    widenings = len(WIDENINGS) - 1 if start == 0 else 0
    return frontier_length(builder) - start + widenings + MOST_REPAIRS


def search(
    builder: Builder,
    evaluator: Evaluator,
    targets: Targets,
    *,
    cls_only: bool,
    start: int = 0,
) -> Found:
    """Return the fastest variant that meets the targets, or else the one that comes nearest.

    Args:
        builder: builds the variants of the encoder.
        evaluator: evaluates a variant on the probes.
        targets: cosines that the probes must reach.
        cls_only: whether the graph returns only the first token's state.
        start: first rank of the frontier to try; the last rank if there are fewer.
    """
    attempt = _Attempts(builder, evaluator, targets, cls_only=cls_only)
    repairs = 0

    variants = frontier(builder, evaluator.arrangement, cls_only=cls_only)
    for rank, variant in _worth_trying(builder, variants, targets, start, attempt.steps):
        for widening in WIDENINGS if rank == 0 else WIDENINGS[:1]:
            if attempt.holds(replace(variant, widening=widening), rank):
                return attempt.found(-1, held=True)
            if targets.shortfall(attempt.steps[-1].figures) > CAUTION:
                break

        # Repair the nearest variant of this rank before a slower rank is tried.
        nearest = attempt.nearest(rank)
        while repairs < MOST_REPAIRS and (points := attempt.tipping(nearest)):
            repairs += 1
            if attempt.holds(attempt.tried[nearest][0].with_precise(points), rank):
                return attempt.found(-1, held=True)
            nearest = len(attempt.steps) - 1

    return attempt.found(attempt.nearest(), held=False)


class _Attempts:
    """The variants tried so far."""

    def __init__(self, builder: Builder, evaluator: Evaluator, targets: Targets, *, cls_only: bool) -> None:
        self._builder, self._evaluator, self._targets = builder, evaluator, targets
        self._cls_only = cls_only
        self._cosines: list[NDArray[np.float64]] = []
        self.tried: list[tuple[Variant, int]] = []
        self.steps: list[Step] = []

    def holds(self, variant: Variant, rank: int) -> bool:
        """Try a variant and record the result; return whether it meets the targets."""
        evaluation = self._evaluator.evaluate(
            self._builder.build(variant),
            cls_only=self._cls_only,
            again=lambda found: self._targets.shortfall(found) <= 1,
        )
        predicted = predicted_error(self._builder, variant)

        self.tried.append((variant, rank))
        self.steps.append(
            Step(len(variant.precise), len(variant.finer), variant.widening, predicted, evaluation.figures)
        )
        self._cosines.append(evaluation.cosines)
        advance()

        return self._targets.shortfall(evaluation.figures) <= 1

    def nearest(self, rank: int | None = None) -> int:
        """Return the index of the variant nearest to the targets, among those of one rank or among all."""
        numbers = [number for number, (_, own) in enumerate(self.tried) if rank in (None, own)]
        return min(numbers, key=lambda number: self._targets.distance(self.steps[number].figures))

    def tipping(self, number: int) -> frozenset[Point]:
        """Return the points that tip stress probes over in a variant; none if everyday probes fail."""
        evaluator, allowed = self._evaluator, 1 - self._targets.smallest_stress
        if self._targets.everyday_shortfall(self.steps[number].figures) > 1:
            return frozenset()

        cosines = np.nan_to_num(self._cosines[number], nan=-1.0)
        order = np.argsort(cosines).tolist()
        failing = [probe for probe in order if evaluator.stress[probe] and 1 - cosines[probe] > allowed]
        rows = [evaluator.rows[probe] for probe in failing[:WORST_PROBES]]
        return tipping_points(self._builder, self.tried[number][0], evaluator.objective, rows, evaluator.pad, allowed)

    def found(self, number: int, *, held: bool) -> Found:
        """Return one of the variants as the choice."""
        chosen = number % len(self.steps)
        variant, rank = self.tried[number]

        fastest = next(frontier(self._builder, self._evaluator.arrangement, cls_only=self._cls_only))
        times = cost(self._builder, variant) / cost(self._builder, fastest)
        return Found(variant, rank, tuple(self.steps), chosen, held, len(self._builder.plans), times)


def _worth_trying(
    builder: Builder, variants: Iterator[Variant], targets: Targets, start: int, steps: list[Step]
) -> Iterator[tuple[int, Variant]]:
    """Yield ranks and variants; skip those predicted to fail, with predictions scaled by the last step's result."""
    last: tuple[int, Variant] | None = None
    for rank, variant in enumerate(variants):
        last = rank, variant
        if rank < start:
            continue

        if steps:
            allowed = CAUTION * steps[-1].predicted / targets.shortfall(steps[-1].figures)
            if predicted_error(builder, variant) > allowed:
                continue

        last = None
        yield rank, variant

    if last is not None:  # the most accurate variant is always tried
        yield last
