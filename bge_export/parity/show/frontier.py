"""Read the int8 variants that a search tried from the manifest, and compute their marks for the plots of a page."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from bge_export.bundle.manifest import Manifest
from bge_export.errors import ArtifactError
from bge_export.parity.figures import cosine_figure, difference_figure
from bge_export.parity.show import plots

SERIES = ("predicted", "mean", "smallest")
"""The cosines of each variant that are plotted as 1 - cosine. The last one, which decides, is drawn on top."""


class Variant(BaseModel):
    """One int8 variant as a manifest records it: `precision.int8.search.evaluator.Step`, which explains the fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    precise: int = Field(ge=0)
    finer: int = Field(ge=0)
    widening: float = Field(gt=0, allow_inf_nan=False)
    predicted: float = Field(allow_inf_nan=False)
    smallest: float = Field(allow_inf_nan=False)
    mean: float = Field(allow_inf_nan=False)
    smallest_stress: float = Field(allow_inf_nan=False)
    milliseconds: float = Field(ge=0, allow_inf_nan=False)
    size_bytes: int = Field(ge=0)

    def error(self, series: str) -> float:
        """Return 1 - cosine for one of `SERIES`."""
        return self.predicted if series == "predicted" else 1.0 - float(getattr(self, series))

    @property
    def label(self) -> str:
        """Return a description of the variant in one line."""
        return (
            f"{self.precise} points' activations and {self.finer} points' weights with a residual: "
            f"smallest cosine {cosine_figure(self.smallest)}, mean {cosine_figure(self.mean)}, "
            f"predicted 1 − cosine {difference_figure(self.predicted)}, "
            f"{self.milliseconds:.1f} ms, {self.size_bytes / 1e6:.1f} MB"
        )


@dataclass(frozen=True)
class Frontier:
    """The search for the int8 variant of one artifact.

    Attributes:
        target: the artifact's target.
        variants: the variants in the order they were tried; the last one was chosen.
        least: the requested smallest cosine; None if the manifest does not record it.
    """

    target: str
    variants: tuple[Variant, ...]
    least: float | None

    @property
    def errors(self) -> plots.LogAxis:
        """Return the axis of 1 - cosine."""
        values = [variant.error(series) for variant in self.variants for series in SERIES]
        return plots.LogAxis.over(values if self.least is None else [*values, 1.0 - self.least])


@dataclass(frozen=True)
class Costs:
    """A linear axis for the cost of a variant; both ends are round numbers."""

    low: float
    high: float
    step: float

    @classmethod
    def over(cls, values: Sequence[float]) -> "Costs":
        """Return the axis that holds all values, with three to seven labels."""
        low, high = min(values), max(values)
        rough = max(high - low, 0.05 * high, 1e-9) / 4
        decade = 10.0 ** math.floor(math.log10(rough))
        step = next(decade * times for times in (1, 2, 5, 10) if decade * times >= rough)

        first = math.floor(low / step)
        return cls(first * step, max(first + 1, math.ceil(high / step)) * step, step)

    @property
    def ticks(self) -> list[float]:
        """Return the values to label."""
        return [self.low + tick * self.step for tick in range(round((self.high - self.low) / self.step) + 1)]

    def x(self, value: float) -> float:
        """Return the x coordinate of a value."""
        share = (value - self.low) / (self.high - self.low)
        return round(plots.LEFT + share * (plots.RIGHT - plots.LEFT), 1)


@dataclass(frozen=True)
class Panel:
    """One plot: all errors of the variants against one of their costs."""

    name: str
    unit: str
    frontier: Frontier
    costs: tuple[float, ...]

    @property
    def axis(self) -> Costs:
        """Return the horizontal axis."""
        return Costs.over(self.costs)

    def marks(self, series: str) -> list[plots.Mark]:
        """Return a mark for each variant; its kind is the series, or "floor" if 1 - cosine is 0 or less."""
        found = []

        for variant, cost in zip(self.frontier.variants, self.costs, strict=True):
            error = variant.error(series)
            kind = series if error > 0 else "floor"
            found.append(plots.Mark(self.axis.x(cost), self.frontier.errors.y(error), kind, variant.label))

        return found


def panels(frontier: Frontier) -> tuple[Panel, Panel]:
    """Return the plots of a frontier: errors against time, and errors against size."""
    times = tuple(variant.milliseconds for variant in frontier.variants)
    sizes = tuple(variant.size_bytes / 1e6 for variant in frontier.variants)
    return Panel("time", "ms for one text of 64 tokens", frontier, times), Panel("size", "MB", frontier, sizes)


def read_frontiers(manifest: Manifest) -> tuple[Frontier, ...]:
    """Return the searches that a folder's manifest records.

    Raises:
        ArtifactError: a record is not a valid frontier.
    """
    found = []

    for model in manifest.models:
        if not (steps := model.options.get("frontier")):
            continue

        int8 = model.options.get("int8")
        least = int8.get("min_cosine") if isinstance(int8, dict) else None

        try:
            variants = TypeAdapter(tuple[Variant, ...]).validate_python(
                tuple(steps) if isinstance(steps, list) else steps
            )
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise ArtifactError(
                f"the manifest's frontier of {model.target}: {field}: {first['msg']}. Export the folder again."
            ) from error

        found.append(Frontier(model.target, variants, float(least) if isinstance(least, int | float) else None))

    return tuple(found)
