"""Export attempts: the models that an exporter wrote, and the next attempt if the gate refuses one for its rounding."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from bge_export.bundle.manifest import Model
from bge_export.contracts import Attempts, Checkpoint, Exporter
from bge_export.parity.gate.verdict import Verdict


@dataclass(frozen=True)
class Made:
    """One model that an exporter wrote.

    Attributes:
        record: the manifest's record of it.
        attempts: the attempts that are left, each more accurate than the one before.
    """

    record: Model
    attempts: Attempts

    def next(self, reason: str) -> "Made | None":
        """Overwrite the model with the next attempt, whose record says why this one was refused; None if none is left.

        Args:
            reason: why this one was refused, in one line.
        """
        model = next(self.attempts, None)
        if model is None:
            return None

        options = self.record.options
        refused = [*options.get("refused", ()), reason]
        record = self.record.model_copy(update={"options": {**options, **model.facts, "refused": refused}})
        return Made(record, self.attempts)


def make(exporter: Exporter, checkpoint: Checkpoint, root: Path, precisions: Sequence[str]) -> list[Made]:
    """Export `checkpoint` in each precision below `root`; return the first attempt of each with its manifest record."""
    tools = {name: version(name) for name in sorted(("bge-export", *exporter.tools))}
    made = []

    for attempts in exporter.export(checkpoint, root, precisions):
        model = next(attempts)
        record = Model(
            target=f"{exporter.format}-{model.precision}",
            files=list(model.files),
            inputs=list(model.inputs),
            outputs=list(model.outputs),
            tools=tools,
            options={**exporter.options, **model.facts},
        )
        made.append(Made(record, attempts))

    return made


def made_again(made: Sequence[Made], verdict: Verdict) -> list[Made] | None:
    """Replace one model that is refused only for its rounding by its next attempt.

    Returns:
        All models, the new attempt instead of the refused one; None if no refused model has an attempt left.
    """
    for one in made:
        own = [failure for failure in verdict.failures if failure.target == one.record.target]
        if not own or not all(failure.may_be_rounding for failure in own):
            continue

        finer = one.next(own[0].message)
        if finer is not None:
            return [finer if other is one else other for other in made]

    return None
