"""The limits within which an index may be shared, and the verdict by them. No limit has a default."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bge_export.errors import PolicyError
from bge_export.files.reading import first_fault
from bge_export.files.regular import LIMITS_BYTES
from bge_export.files.toml_files import read_toml
from bge_export.same_index.figures import Figures
from bge_export.texts.fixtures import fixtures_folder

BUILTIN = "same_index.toml"


class IndexLimits(BaseModel):
    """The limits; what each bounds stands in the file."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    min_cosine: float = Field(gt=0, le=1)
    min_mean_cosine: float = Field(gt=0, le=1)
    min_mean_overlap: float = Field(gt=0, le=1)
    min_first_kept: float = Field(gt=0, le=1)
    max_similarity_change: float = Field(ge=0, lt=1)

    @classmethod
    def read(cls, path: Path | None) -> "IndexLimits":
        """Read a file of limits, the package's own by default.

        Raises:
            PolicyError: the file is missing, not TOML, incomplete, or has a value that is not a valid limit.
        """
        file = path or fixtures_folder() / BUILTIN
        try:
            return cls.model_validate(read_toml(file, LIMITS_BYTES, PolicyError, "a file of limits for an index"))
        except ValidationError as error:
            raise PolicyError(f"{file}: {first_fault(error)}. Every limit must be there, and no other.") from error


@dataclass(frozen=True)
class Reason:
    """One reason why an index cannot be shared: a stable name, what was found, and what would be needed."""

    rule: str
    got: str
    needed: str

    def __str__(self) -> str:
        """Return the reason in one line."""
        return f"{self.rule}: {self.got}; needed: {self.needed}"


def figure_reasons(figures: Figures, limits: IndexLimits) -> tuple[Reason, ...]:
    """Return the reasons that figures give; none if all are within the limits."""
    least = (
        ("cosine", figures.min_cosine, limits.min_cosine, f"smallest cosine, of the text {figures.worst[:40]!r}"),
        ("mean-cosine", figures.mean_cosine, limits.min_mean_cosine, "mean cosine"),
        ("neighbours", figures.mean_overlap, limits.min_mean_overlap, "mean share of the ten nearest that is kept"),
        ("nearest", figures.first_kept, limits.min_first_kept, "share of queries that keep their nearest text"),
    )
    reasons = [
        Reason(rule, f"{what} {got:.6g}", f"at least {limit:g}") for rule, got, limit, what in least if got < limit
    ]

    change = figures.largest_similarity_change
    if change > limits.max_similarity_change:
        got = f"the similarity of two texts changes by {change:.6g}"
        reasons.append(Reason("similarity", got, f"at most {limits.max_similarity_change:g}"))
    return tuple(reasons)
