"""What a check finds."""

from dataclasses import dataclass
from typing import Literal

State = Literal["fits", "refused", "too large", "not for it"]


@dataclass(frozen=True)
class Finding:
    """One reason for no: a stable name, what is there, what is needed."""

    rule: str
    got: str
    needed: str

    def __str__(self) -> str:
        """Return the sentence."""
        return f"{self.rule}: {self.got}; needed: {self.needed}"


@dataclass(frozen=True)
class Measured:
    """One file on a host, in a process of its own: from the start of the process to the first embedding, and the next.

    Attributes:
        peak_bytes: the most memory held, after both; None where the system does not say.
        cold_seconds: wall time up to the first embedding.
        cold_cpu_seconds: CPU time up to the first embedding.
        warm_seconds: wall time of the second embedding.
    """

    peak_bytes: int | None
    cold_seconds: float
    cold_cpu_seconds: float
    warm_seconds: float


@dataclass(frozen=True)
class FileCheck:
    """One model file and one target.

    Attributes:
        target: the target.
        file: the file, relative to the folder; "" for what is the folder's.
        size_bytes: of the file.
        findings: every reason for no.
        state: fits; refused (it would not load, or give wrong vectors); too large (for the host: no fault of the file);
            not for it (the client has no name for such a file).
        measured: its figures, where the host has limits.
    """

    target: str
    file: str
    size_bytes: int
    findings: tuple[Finding, ...]
    state: State
    measured: Measured | None = None


@dataclass(frozen=True)
class FolderCheck:
    """A folder and all targets asked for."""

    files: tuple[FileCheck, ...]

    @property
    def refused(self) -> tuple[str, ...]:
        """Return the targets that the folder does not fit: something of it is refused, or no file of it fits."""
        return tuple(
            target
            for target in dict.fromkeys(one.target for one in self.files)
            if not self._fits([one for one in self.files if one.target == target])
        )

    @staticmethod
    def _fits(files: list[FileCheck]) -> bool:
        good = any(one.file and one.state == "fits" for one in files)
        return good and all(one.state != "refused" for one in files)

    @property
    def exit_status(self) -> int:
        """Return 0 where every target is fit, 1 where one is not."""
        return 1 if self.refused else 0
