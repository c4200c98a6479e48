"""Options of int8 quantization, apart from what needs its libraries."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from bge_export.files.digest import file_sha256


class Int8Options(BaseModel):
    """User options for 8-bit quantization, and the accuracy that the result must reach.

    Attributes:
        calibration: file of calibration texts that replaces the package's own.
        cls_only: whether the graph returns only the first token's state, [B, 1, D].
        min_cosine: smallest cosine that held-back texts must reach, 0.5 to 1; None applies the gate's limits.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    calibration: Annotated[Path, Field(strict=False)] | None = None
    cls_only: bool = False
    min_cosine: Annotated[float, Field(ge=0.5, le=1.0)] | None = None

    def record(self) -> dict[str, object]:
        """Return the options for a manifest; a file is recorded by name and digest, never by its path."""
        file = self.calibration
        texts = "built-in" if file is None else {"name": file.name, "sha256": file_sha256(file)}
        return {"calibration": texts, "cls_only": self.cls_only, "min_cosine": self.min_cosine}
