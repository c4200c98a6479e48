"""The choice of a variant: the fastest whose probes keep a distance from the gate's limits.

A model has texts near a point where it tips over: of bge-small-en the full stop alone, for which a head of attention in
layer 9 looks at one token or at another. There a rounding error as small as any moves the vector by 1e-4 or by 50e-4,
and which of them is chance (docs/decisions/0016). So every variant that seems to hold is run again with perturbed
states, and the fastest place of the frontier has several throws: grids that are wider or narrower by two percent.

Where everyday probes hold and stress probes do not, the grids that stress texts leave are stretched over them before a
slower variant is tried.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from bge_export.int8.build import Builder
from bge_export.int8.encoder import SITES
from bge_export.int8.form import Form, Place
from bge_export.int8.forms import forms, predicted_error
from bge_export.int8.frontier import Figures, Judge, Step

WIDENINGS = (1.0, 1.02, 0.98)
"""Candidates at the fastest place, in the order they are tried; elsewhere the first alone."""

OVERREACH = 1.05
"""A grid is stretched where stress texts leave it by more than this factor."""

CAUTION = 1.3
"""Places are skipped that are predicted to miss the targets by more than this factor."""


@dataclass(frozen=True)
class Targets:
    """What probes must reach: the gate's limits for int8, with room for texts that are not among the probes.

    Attributes:
        smallest, mean: cosine of the everyday probes.
        smallest_stress: of the stress probes.
    """

    smallest: float = 0.9985
    mean: float = 0.9995
    smallest_stress: float = 0.99

    def shortfall(self, figures: Figures) -> float:
        """Return by which factor errors are too large: 1 or less where the targets are met, infinity for NaN."""
        return max(self.everyday_shortfall(figures), _ratio(figures.smallest_stress, self.smallest_stress))

    def everyday_shortfall(self, figures: Figures) -> float:
        """Return the same for the everyday probes alone."""
        return max(_ratio(figures.smallest, self.smallest), _ratio(figures.mean, self.mean))


def _ratio(got: float, needed: float) -> float:
    error = 1 - got
    if not error >= 0:
        return 0.0 if error < 0 else float("inf")
    return error / max(1 - needed, 1e-12)


@dataclass(frozen=True)
class Found:
    """The variant that was chosen.

    Attributes:
        form: the variant.
        place: its place in the frontier, 0 for the fastest.
        steps: all that were tried, in their order.
        chosen: which of them it is.
        held: whether it meets the targets; if not, nothing does, and it comes nearest.
        layers: how many the encoder has.
    """

    form: Form
    place: int
    steps: tuple[Step, ...]
    chosen: int
    held: bool
    layers: int

    @property
    def figures(self) -> Figures:
        """Return what the probes say of it."""
        return self.steps[self.chosen].figures

    def record(self, judge: Judge) -> dict[str, object]:
        """Return the choice for a manifest, and the steps with the chosen one last."""
        fastest, own = self.steps[0], self.steps[self.chosen]
        choice = {
            "place": self.place,
            "held": self.held,
            "everyday_probes": int((~judge.stress).sum()),
            "stress_probes": int(judge.stress.sum()),
            "smallest": own.figures.smallest,
            "mean": own.figures.mean,
            "smallest_stress": own.figures.smallest_stress,
            "precise": own.precise,
            "points": len(SITES) * self.layers,
            "time_of_fastest": own.figures.milliseconds / fastest.figures.milliseconds,
            "size_of_fastest": own.figures.size_bytes / fastest.figures.size_bytes,
        }
        others = [step for number, step in enumerate(self.steps) if number != self.chosen]
        return {"choice": choice, "frontier": [step.record() for step in (*others, own)]}


def search(
    builder: Builder,
    judge: Judge,
    targets: Targets,
    *,
    cls_only: bool,
    start: int = 0,
    advance: Callable[[int], None] = lambda _: None,
) -> Found:
    """Return the fastest variant that meets the targets, or else the one that comes nearest.

    Args:
        builder: of the encoder.
        judge: has the probes.
        targets: what they must reach.
        cls_only: whether the graph is to return the first token's state alone.
        start: the first place of the frontier that is tried; the last one where there are fewer.
        advance: called with 1 after each variant.
    """
    places = forms(builder, judge.arrangement, cls_only=cls_only)
    tried: list[tuple[Form, int]] = []
    steps: list[Step] = []

    def holds(form: Form, place: int) -> bool:
        """Try a variant; note what came of it."""
        figures = judge.figures(
            builder.build(form), cls_only=cls_only, perturbed=lambda found: targets.shortfall(found) <= 1
        )
        predicted = predicted_error(builder, form)
        tried.append((form, place))
        steps.append(Step(len(form.precise), len(form.finer), len(form.stretched), form.widening, predicted, figures))
        advance(1)
        return targets.shortfall(figures) <= 1

    for place, form in _worth_trying(builder, places, targets, start, steps):
        for widening in WIDENINGS if place == 0 else WIDENINGS[:1]:
            candidate = replace(form, widening=widening)
            if holds(candidate, place):
                return Found(*tried[-1], tuple(steps), len(steps) - 1, held=True, layers=len(builder.plans))
            if targets.everyday_shortfall(steps[-1].figures) > CAUTION:
                break

            stretched = overreached(builder, candidate)
            only_stress = targets.everyday_shortfall(steps[-1].figures) <= 1
            if only_stress and stretched and holds(replace(candidate, stretched=stretched), place):
                return Found(*tried[-1], tuple(steps), len(steps) - 1, held=True, layers=len(builder.plans))

    nearest = min(range(len(steps)), key=lambda number: targets.shortfall(steps[number].figures))
    return Found(*tried[nearest], tuple(steps), nearest, held=False, layers=len(builder.plans))


def _worth_trying(
    builder: Builder, places: Iterator[Form], targets: Targets, start: int, steps: list[Step]
) -> Iterator[tuple[int, Form]]:
    """Yield places of the frontier; those that predictions rule out, by what the last step tried gave, are skipped."""
    last: tuple[int, Form] | None = None
    for place, form in enumerate(places):
        last = place, form
        if place < start:
            continue
        if steps:
            allowed = CAUTION * steps[-1].predicted / targets.shortfall(steps[-1].figures)
            if predicted_error(builder, form) > allowed:
                continue
        last = None
        yield place, form
    if last is not None:  # The most exact variant is tried in any case.
        yield last


def overreached(builder: Builder, form: Form) -> frozenset[Place]:
    """Return the quantization points in one part whose grid stress texts leave."""
    found = set()
    for place, plan in enumerate(builder.plans):
        for site, (low, high) in plan.stress.items():
            if (place, site) in form.precise | form.first:
                continue
            own = plan.input(site)
            reach = own.covering(low, high).grid
            if reach.scale > OVERREACH * own.grid.scale:
                found.add((place, site))
    return frozenset(found)
