"""What one target must reach: one limit for all texts or, for rounded weights, one for each kind of text."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bge_export.texts.corpus import Kind


class Limits(BaseModel):
    """What one target must reach in every row. A limit that nothing could miss (max_abs 1 of a unit vector) is refused.

    A table has either `max_abs` or `min_stress_cosine`. Components of two unit vectors differ by at most
    sqrt(2 (1 - cosine)), so beside a cosine that allows rounding the largest difference says little: it depends on how
    a checkpoint spreads its vectors over their components.

    Attributes:
        min_cosine: with the reference; of everyday texts alone where `min_stress_cosine` is there.
        min_stress_cosine: with the reference, of stress texts; None where all texts have one limit.
        max_abs: the largest absolute difference in a vector, for a reference of norm 1; None where texts have two
            limits.
        max_norm_error: the difference of the norms, relative to the reference's; of checkpoints that normalise alone
            where `max_raw_norm_error` is there.
        max_raw_norm_error: the same for checkpoints that do not normalise, whose norms are rounded with the rest. Where
            a text has one vector in every batch, `max_norm_error` still bounds its norm in a batch beside that alone.
        max_norm_shift: of those, the median of the relative differences over all texts, either way: rounding moves
            norms both ways, a wrong graph moves them one way. Of texts alone, in batches and as a client embeds them.
        min_batch_cosine: of a text alone with itself in a padded batch.
        max_broken_pairs: of the file's int8 weights (`saturation`), which must be known then. Without it none may be
            broken either, but the file need not hold such weights.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    min_cosine: float = Field(gt=0, le=1)
    min_stress_cosine: float | None = Field(default=None, gt=0, le=1)
    max_abs: float | None = Field(default=None, ge=0, lt=1)
    max_norm_error: float = Field(ge=0, lt=1)
    max_raw_norm_error: float | None = Field(default=None, ge=0, lt=1)
    max_norm_shift: float | None = Field(default=None, ge=0, lt=1)
    min_batch_cosine: float = Field(gt=0, le=1)
    max_broken_pairs: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _one_limit_or_two(self) -> Self:
        """Raise ValueError unless all texts have one limit with `max_abs`, or each kind has its own without."""
        stress = self.min_stress_cosine
        if stress is None and self.max_abs is None:
            raise ValueError("max_abs is missing. Add it or, for rounded weights, min_stress_cosine in its place.")
        if stress is not None and self.max_abs is not None:
            raise ValueError(
                "max_abs and min_stress_cosine are both there. Remove max_abs: no component of a unit vector differs "
                "by more than sqrt(2 (1 - cosine)), so the two cosines bound it. Or remove min_stress_cosine, if all "
                "texts shall have one limit."
            )
        if stress is not None and stress > self.min_cosine:
            raise ValueError(
                f"min_stress_cosine {stress} is above min_cosine {self.min_cosine}. Stress texts may lose more than "
                "everyday ones, never less: lower it, or raise min_cosine."
            )
        return self

    @model_validator(mode="after")
    def _raw_norms_have_both_limits(self) -> Self:
        """Raise ValueError unless norms that are not normalised have a limit for each text and one for all, or none."""
        if (self.max_raw_norm_error is None) != (self.max_norm_shift is None):
            raise ValueError(
                "max_raw_norm_error and max_norm_shift belong together: the one bounds each text of a checkpoint that "
                "does not normalise, the other all of them. Give both, or neither."
            )
        return self

    @property
    def by_kind(self) -> bool:
        """Return whether everyday and stress texts have limits of their own."""
        return self.min_stress_cosine is not None

    def least_cosine(self, kind: Kind) -> float:
        """Return the smallest cosine that a text of a kind may have."""
        if kind == "stress" and self.min_stress_cosine is not None:
            return self.min_stress_cosine
        return self.min_cosine

    def norm_error(self, *, normalized: bool) -> float:
        """Return by how much a norm may be off, of a checkpoint that normalises or does not."""
        if normalized or self.max_raw_norm_error is None:
            return self.max_norm_error
        return self.max_raw_norm_error
