"""Export attempts: the models that an exporter wrote, and the finer variant if the gate refuses one for rounding."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from bge_export.bundle.manifest import Model
from bge_export.contracts import Checkpoint, ExportedModel, Exporter, Track
from bge_export.parity.gate.verdict import Verdict


@dataclass(frozen=True)
class Made:
    """One model that an exporter wrote.

    Attributes:
        model: the exporter's description of it.
        record: the manifest's record of it.
    """

    model: ExportedModel
    record: Model


@dataclass(frozen=True)
class Coarse:
    """A model that the gate refuses only for its rounding.

    Attributes:
        made: the model.
        finer: overwrites it with the next, more accurate variant.
        reason: the reason of the refusal, in one line.
    """

    made: Made
    finer: Callable[[Track], ExportedModel]
    reason: str


def make(exporter: Exporter, checkpoint: Checkpoint, root: Path, precisions: Sequence[str], track: Track) -> list[Made]:
    """Export `checkpoint` in each precision below `root`; return the models with their manifest records."""
    tools = {name: version(name) for name in sorted(("bge-export", *exporter.tools))}

    return [
        Made(
            model,
            Model(
                target=f"{exporter.format}-{model.precision}",
                files=list(model.files),
                inputs=list(model.inputs),
                outputs=list(model.outputs),
                tools=tools,
                options={**exporter.options, **model.facts},
            ),
        )
        for model in exporter.export(checkpoint, root, precisions, track)
    ]


def only_too_coarse(made: Sequence[Made], verdict: Verdict) -> Coarse | None:
    """Return a model that is refused only for its rounding and has a more accurate variant; None if there is none."""
    for one in made:
        own = [failure for failure in verdict.failures if failure.target == one.record.target]
        if own and one.model.finer is not None and all(failure.may_be_rounding for failure in own):
            return Coarse(one, one.model.finer, own[0].message)
    return None


def make_finer(made: Sequence[Made], coarse: Coarse, track: Track) -> list[Made]:
    """Overwrite the coarse model with its more accurate variant; return all models with the variant in its place.

    The variant's record lists why the earlier variants were refused.
    """
    with track(f"refused, so a more exact variant follows: {coarse.reason}", 1):
        old = coarse.made.record
        refused = [*old.options.get("refused", ()), coarse.reason]

    model = coarse.finer(track)
    finer = Made(model, old.model_copy(update={"options": {**old.options, **model.facts, "refused": refused}}))
    return [finer if one is coarse.made else one for one in made]
