"""How a build is run, and what it gives: its steps, the verdict, and what was published."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bge_export.commands.building.job import Decision
from bge_export.commands.measuring import Proof
from bge_export.commands.publishing import Published
from bge_export.errors import BgeExportError


@dataclass(frozen=True)
class BuildOptions:
    """How a build is run.

    Attributes:
        dry_run: whether steps are only planned.
        publish: whether the folder is published, if it passes.
        threads: threads for export, oracle and runtimes.
    """

    dry_run: bool = False
    publish: bool = False
    threads: int = 1


@dataclass(frozen=True)
class Done:
    """One step of a build, planned or done.

    Attributes:
        step: its name.
        decision: whether it was kept, made or left out.
        reason: why.
        seconds: how long it took.
        refused: why it was refused; nothing if it was not.
    """

    step: str
    decision: Decision
    reason: str
    seconds: float = 0.0
    refused: tuple[str, ...] = ()


@dataclass(frozen=True)
class Built:
    """The result of a build.

    Attributes:
        name: the model.
        folder: the folder.
        steps: its steps in their order.
        proof: the gate's verdict on the folder; None if it was only planned, or if there is no folder to judge.
        texts: the verdict on texts of your own, if there are some.
        scores: step -> the scores that it found.
        published: what came of publishing, if that was asked for.
        error: why it could not be finished, in a fleet; None otherwise.
    """

    name: str
    folder: Path
    steps: tuple[Done, ...] = ()
    proof: Proof | None = None
    texts: Proof | None = None
    scores: dict[str, Any] = field(default_factory=dict)
    published: Published | None = None
    error: BgeExportError | None = None

    @property
    def exit_status(self) -> int:
        """Return 0 if all steps and verdicts passed, 1 if one was refused, else the status of the error."""
        if self.error is not None:
            return self.error.exit_status

        published = None if self.published is None else self.published.proof
        proofs = [one for one in (self.proof, self.texts, published) if one is not None]

        refused = any(step.refused for step in self.steps) or any(not one.verdict.passed for one in proofs)
        return 1 if refused else 0
