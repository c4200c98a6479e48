"""The results of a compatibility check: findings, measurements, and each file's state."""

from dataclasses import dataclass
from typing import Literal

State = Literal["fits", "refused", "too large", "not for it"]


@dataclass(frozen=True)
class Finding:
    """One reason to refuse: a stable rule name, the value found, the value needed."""

    rule: str
    got: str
    needed: str

    def __str__(self) -> str:
        """Return the finding as a sentence."""
        return f"{self.rule}: {self.got}; needed: {self.needed}"


@dataclass(frozen=True)
class Advice:
    """What a library gets wrong without a word: a stable rule name, the fault, and the setting that mends it."""

    rule: str
    fault: str
    setting: str

    def __str__(self) -> str:
        """Return the advice as a sentence."""
        return f"{self.rule}: {self.fault}{': ' if self.setting else ''}{self.setting}"


@dataclass(frozen=True)
class Measured:
    """The cost of one file on a host in a fresh process: from process start to the first embedding, and the second.

    Attributes:
        peak_bytes: peak memory after both embeddings; None if the system does not report it.
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
    """The check of one model file against one target.

    Attributes:
        target: the target's name.
        file: the file, relative to the folder; "" for the folder itself.
        size_bytes: the file's size.
        findings: every reason to refuse.
        state: fits; refused (it would not load, or would give wrong vectors); too large (for the host; the file itself
            is sound); not for it (the client has no name for this file).
        measured: its measurements, if the host has limits.
        advice: what must be set there; a folder that needs settings fits all the same.
    """

    target: str
    file: str
    size_bytes: int
    findings: tuple[Finding, ...]
    state: State
    measured: Measured | None = None
    advice: tuple[Advice, ...] = ()


@dataclass(frozen=True)
class FolderCheck:
    """The checks of a folder against all requested targets."""

    files: tuple[FileCheck, ...]

    @property
    def refused(self) -> tuple[str, ...]:
        """Return the targets that the folder does not fit: a part of it is refused, or none of its files fits."""
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
        """Return 0 if the folder fits every target, else 1."""
        return 1 if self.refused else 0
