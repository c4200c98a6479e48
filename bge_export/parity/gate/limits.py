"""The limits of one target: an embedding model's, with a cosine limit or two, a reranker's, and of heads on tokens."""

from collections.abc import Mapping
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bge_export.texts.corpus import Kind


class ScoreLimits(BaseModel):
    """Limits that every pair and every query of one target of a reranker must meet; each is mandatory.

    A checkpoint's logits may span 20 or 0.2, so most limits are shares of their spread: the distance of the largest
    reference logit from the smallest.

    Attributes:
        max_error: largest difference of a logit from the checkpoint's.
        max_share: the same as a share of the spread.
        max_batch_share: largest difference of a logit in a padded batch from the pair scored alone, as a share.
        max_sweep_share: largest difference of a logit from the checkpoint's in the sweep of token ids, as a share.
        tied_share: candidates that the checkpoint separates by at most this share are tied, in either order.
        min_tau: smallest Kendall's tau of a query's candidates; 1 where they keep the checkpoint's order (`orders`).
        min_top: smallest share of a query's first candidates that are among the checkpoint's first.
        max_broken_pairs: as in `Limits`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    max_error: float = Field(ge=0)
    max_share: float = Field(ge=0, lt=1)
    max_batch_share: float = Field(ge=0, lt=1)
    max_sweep_share: float = Field(ge=0)
    tied_share: float = Field(ge=0, lt=0.5)
    min_tau: float = Field(gt=0, le=1)
    min_top: float = Field(gt=0, le=1)
    max_broken_pairs: int | None = Field(default=None, ge=0)


class SparseLimits(BaseModel):
    """Limits that every text of one target with token weights must meet; each is mandatory.

    A checkpoint's weights may reach 0.5 or 5, so most limits are shares of the largest reference weight of all texts.

    Attributes:
        max_error: largest difference of a token's weight from the checkpoint's.
        max_share: the same as a share of the largest weight.
        max_score_error: largest difference of a text's lexical score from the checkpoint's, as a share of that.
        max_batch_share: largest difference of a weight in a padded batch from the text alone, as a share.
        max_sweep_share: largest difference of a weight from the checkpoint's in the sweep of token ids, as a share.
        max_broken_pairs: as in `Limits`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    max_error: float = Field(ge=0)
    max_share: float = Field(ge=0, lt=1)
    max_score_error: float = Field(ge=0, lt=1)
    max_batch_share: float = Field(ge=0, lt=1)
    max_sweep_share: float = Field(ge=0, lt=1)
    max_broken_pairs: int | None = Field(default=None, ge=0)


class VectorsLimits(BaseModel):
    """Limits that every text of one target with vectors of tokens must meet; each is mandatory.

    Attributes:
        min_token_cosine: smallest cosine of a token's vector with the checkpoint's.
        max_norm_error: largest difference of the norm of a token's vector, relative to the checkpoint's; in a padded
            batch, relative to the text alone; and in the sweep of token ids.
        max_sim_error: largest difference of a text's MaxSim, with the checkpoint's vectors of the next text, from the
            checkpoint's own; for vectors of norm 1 it lies between -1 and 1.
        min_batch_cosine: smallest cosine of a token's vector in a padded batch with the text alone.
        min_sweep_cosine: smallest cosine of a token's vector in the sweep of token ids.
        min_sequence_cosine: smallest mean of these cosines over one sequence of the sweep.
        max_broken_pairs: as in `Limits`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    min_token_cosine: float = Field(gt=0, le=1)
    max_norm_error: float = Field(ge=0, lt=1)
    max_sim_error: float = Field(ge=0, lt=1)
    min_batch_cosine: float = Field(gt=0, le=1)
    min_sweep_cosine: float = Field(gt=0, le=1)
    min_sequence_cosine: float = Field(gt=0, le=1)
    max_broken_pairs: int | None = Field(default=None, ge=0)


HEAD_LIMITS: Mapping[str, type[SparseLimits] | type[VectorsLimits]] = {
    "sparse": SparseLimits,
    "multi_vector": VectorsLimits,
}
"""Kind of head -> the limits of its tables. Those of dense heads and of scores have fields of their own in a policy."""


class Limits(BaseModel):
    """Limits that every row of one target must meet. A limit that every unit vector meets (max_abs 1) is invalid.

    A table has either `max_abs` or `min_stress_cosine`. Components of two unit vectors differ by at most
    sqrt(2 (1 - cosine)), so if the cosine limit allows rounding, the largest difference adds little: it depends on how
    a checkpoint distributes its vectors over their components.

    Attributes:
        min_cosine: smallest cosine with the reference; only for everyday texts if `min_stress_cosine` is given.
        min_stress_cosine: smallest cosine with the reference for stress texts; None if all texts have one limit.
        max_abs: largest absolute difference of a component, for a reference of norm 1; None if each kind of text has
            a limit.
        max_norm_error: largest difference of the norms, relative to the reference's; only for checkpoints that
            normalize if `max_raw_norm_error` is given.
        max_raw_norm_error: the limit for checkpoints that do not normalize, whose norms are rounded like the vectors.
            If batches must not change a vector, `max_norm_error` still limits the norm in a batch relative to alone.
        max_raw_stress_norm_error: the same for stress texts, whose vectors rounding moves farther; then
            `max_raw_norm_error` is of everyday texts alone. None if all texts have one limit.
        max_norm_shift: largest absolute median, over all texts, of the relative norm differences of a checkpoint that
            does not normalize: rounding moves norms both ways, a wrong graph moves them one way. Applies to texts
            alone, in batches and in a client's native pipeline.
        min_token_cosine: smallest cosine of a token's state with the checkpoint's, in the sweep of token ids.
        min_sequence_cosine: smallest mean of these cosines over one sequence of the sweep.
        min_batch_cosine: smallest cosine between a text embedded alone and the same text in a padded batch.
        max_broken_pairs: largest number of saturating pairs in the file's int8 weights (`saturation`), which must be
            counted. If None, no pair may saturate either, but the file need not contain int8 weights.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    min_cosine: float = Field(gt=0, le=1)
    min_stress_cosine: float | None = Field(default=None, gt=0, le=1)
    max_abs: float | None = Field(default=None, ge=0, lt=1)
    max_norm_error: float = Field(ge=0, lt=1)
    max_raw_norm_error: float | None = Field(default=None, ge=0, lt=1)
    max_raw_stress_norm_error: float | None = Field(default=None, ge=0, lt=1)
    max_norm_shift: float | None = Field(default=None, ge=0, lt=1)
    min_batch_cosine: float = Field(gt=0, le=1)
    min_token_cosine: float = Field(gt=0, le=1)
    min_sequence_cosine: float = Field(gt=0, le=1)
    max_broken_pairs: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _one_limit_or_two(self) -> Self:
        """Raise ValueError unless the table has either `max_abs` or a `min_stress_cosine` of at most `min_cosine`."""
        stress = self.min_stress_cosine

        if stress is None and self.max_abs is None:
            raise ValueError("max_abs is missing. Add it or, for rounded weights, min_stress_cosine in its place.")
        if stress is not None and self.max_abs is not None:
            raise ValueError(
                "max_abs and min_stress_cosine are both there. Remove max_abs: no component of a unit vector differs "
                "by more than sqrt(2 (1 - cosine)), so the two cosines bound it. Or remove min_stress_cosine, if all "
                "texts have one limit."
            )

        if stress is not None and stress > self.min_cosine:
            raise ValueError(
                f"min_stress_cosine {stress} is above min_cosine {self.min_cosine}. Stress texts may lose more than "
                "everyday ones, never less: lower it, or raise min_cosine."
            )

        return self

    @model_validator(mode="after")
    def _raw_norms_have_both_limits(self) -> Self:
        """Raise ValueError unless `max_raw_norm_error` and `max_norm_shift` are given together, or neither is."""
        if (self.max_raw_norm_error is None) != (self.max_norm_shift is None):
            raise ValueError(
                "max_raw_norm_error and max_norm_shift belong together: the one bounds each text of a checkpoint that "
                "does not normalise, the other all of them. Give both, or neither."
            )

        stress = self.max_raw_stress_norm_error
        if stress is not None and (not self.by_kind or self.max_raw_norm_error is None):
            raise ValueError(
                "max_raw_stress_norm_error is of stress texts alone. Give max_raw_norm_error and min_stress_cosine too."
            )
        if stress is not None and self.max_raw_norm_error is not None and stress < self.max_raw_norm_error:
            raise ValueError(
                f"max_raw_stress_norm_error {stress} is below max_raw_norm_error {self.max_raw_norm_error}. Stress "
                "texts may lose more than everyday ones, never less: raise it, or lower max_raw_norm_error."
            )

        return self

    @property
    def by_kind(self) -> bool:
        """Return whether everyday and stress texts have separate limits."""
        return self.min_stress_cosine is not None

    def least_cosine(self, kind: Kind) -> float:
        """Return the cosine limit for texts of a kind."""
        if kind == "stress" and self.min_stress_cosine is not None:
            return self.min_stress_cosine
        return self.min_cosine

    def norm_error(self, kind: Kind, *, normalized: bool) -> float:
        """Return the limit of the relative norm error of texts of a kind, by whether the checkpoint normalizes."""
        if normalized or self.max_raw_norm_error is None:
            return self.max_norm_error
        if kind == "stress" and self.max_raw_stress_norm_error is not None:
            return self.max_raw_stress_norm_error
        return self.max_raw_norm_error

    def norm_shift(self, kind: Kind) -> float | None:
        """Return the limit of the median norm error of the texts of a kind: wider where that of each text is."""
        if self.max_norm_shift is None or kind == "everyday" or not self.max_raw_norm_error:
            return self.max_norm_shift
        return self.max_norm_shift * (self.norm_error(kind, normalized=False) / self.max_raw_norm_error)
