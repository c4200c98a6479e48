"""The export command: writes a bundle, proves its parity, and publishes only the targets that pass the gate."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bge_export.build.recipe import Recipe, Source
from bge_export.bundle.integrity import LIMITS, REPORT
from bge_export.bundle.layout import write_layout
from bge_export.bundle.origin import write_weights
from bge_export.bundle.staging import publish, refused_folder, refused_staging, staged
from bge_export.checkpoint.opening import open_checkpoint, open_encoder
from bge_export.checkpoint.torch_devices import limit_threads
from bge_export.commands.attempts import Made, made_again, make
from bge_export.commands.extension import kept_from
from bge_export.commands.golden import write_golden
from bge_export.commands.measuring import Oracle, Proof, read_policy, run_oracle
from bge_export.commands.proving import Measured, StagedExport, move_refused, prove, proven_alone, proven_before
from bge_export.commands.same_tokens import refuse_other_tokens
from bge_export.commands.transformersjs import ClientFolder, facts_of_earlier, refuse_scores
from bge_export.commands.turns import in_turn
from bge_export.contracts import Artifact, Checkpoint, Exporter, Target
from bge_export.errors import UsageError
from bge_export.exporters import find_exporter, refuse_precisions
from bge_export.oracle.vectors import ReferenceVectors
from bge_export.parity.gate.acceptance import accepting, as_toml, rounding_alone
from bge_export.parity.measure.measurement import Measurement
from bge_export.parity.report import write_report
from bge_export.progress.timings import timed
from bge_export.publish.card import write_card
from bge_export.publish.facts import CardFacts
from bge_export.texts.corpus import Corpus, builtin_corpus


@dataclass(frozen=True)
class Exported:
    """The result of an export.

    Attributes:
        folder: the folder of proven targets, or of refused targets if none is proven.
        proof: the report on all targets and the verdict; None if the check was left out.
        refused: the folder of refused targets; None if there are none.
        accepting: a file of limits in that folder, under which targets pass that were refused only for their rounding;
            None if there are no such targets.
        notes: what the user should know besides, one sentence each.
    """

    folder: Path
    proof: Proof | None
    refused: Path | None = None
    accepting: Path | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class BuildStep:
    """What makes an export one step of a build, which extends the folder target by target.

    Attributes:
        order: the targets that the folder may hold; others are dropped. The manifest lists them in this order, so that
            it does not show which was made first.
        oracle: returns the checkpoint's vectors of the texts; a build computes them once.
        weights: whether weights of the checkpoint that the folder holds stay there.
        parts: folders of the same checkpoint, proven by other processes, whose models are taken over.
    """

    order: Sequence[str]
    oracle: Oracle
    weights: bool = True
    parts: Sequence[Path] = ()


@in_turn
def export(recipe: Recipe, *, threads: int = 1) -> Exported:
    """Export a checkpoint and prove the result; only proven targets are published in the recipe's folder.

    A model that is refused only for its rounding is exported again in its next more accurate variant, if the exporter
    has one; the manifest records it. Refused targets are left in `FOLDER.refused`; proven targets are published anyway.

    Args:
        recipe: the checkpoint, the targets, the folder, and how they are proven.
        threads: threads for the export, the oracle and the runtimes.

    Raises:
        UsageError: checkpoint, options or output folder cannot be used, or the recipe says what only a build does.
        MeasurementError: the Hub, the exporter or a runtime failed.
    """
    if recipe.for_build:
        raise UsageError(
            f"{recipe.for_build[0]}: an export does not do this. Run bge-export build with the recipe, or take it out."
        )
    return export_step(recipe, None, threads)


def open_source(source: Source) -> Checkpoint:
    """Return the checkpoint that a recipe names, opened as the recipe says; errors are those of `open_checkpoint`."""
    opened = open_encoder if source.head == "embedding" else open_checkpoint
    return opened(
        source.model,
        revision=source.revision,
        pooling=source.pooling,
        query_prefix=source.query_prefix,
        dim=source.dim,
        allow_pickle=source.allow_pickle,
    )


@in_turn
def export_step(recipe: Recipe, step: BuildStep | None, threads: int) -> Exported:
    """Export a recipe into its folder as `export` does, or as a step of a build, without a look at what builds do."""
    exporters = _exporters(recipe)
    policy = read_policy(recipe.proof.thresholds)
    folder = None if recipe.transformersjs is None else ClientFolder(recipe.transformersjs)

    checkpoint = open_source(recipe.source)
    if folder is not None:
        refuse_scores(checkpoint)
    for name in exporters:
        refuse_precisions(
            checkpoint, name, [one.precision for one in (*recipe.beside, *recipe.targets) if one.format == name]
        )
    out = Path(os.path.normpath(recipe.output.folder or checkpoint.source.rpartition("/")[2]))

    with staged(out, source=checkpoint.root) as staging:
        kept = kept_from(out, checkpoint, [str(one) for one in recipe.targets], overwrite=recipe.output.overwrite)
        if step is not None:
            kept = kept.only(step.order, weights=step.weights)
            for part in step.parts:
                kept = kept.joined(part, checkpoint)
        held = {*map(str, recipe.targets), *(model.target for model in kept.models)}
        targets = [*(one for one in recipe.beside if str(one) not in held), *recipe.targets]

        with timed("small files"):
            kept.carry_models(staging, checkpoint)
            write_layout(checkpoint, staging)
        corpus = builtin_corpus(pairs=checkpoint.spec.is_reranker)
        if recipe.proof.check:
            with timed("comparing tokenizers"):
                refuse_other_tokens(checkpoint, staging, corpus)
        with timed("golden texts"):
            write_golden(checkpoint, staging, out)
        limit_threads(threads)

        made = [
            one
            for name, exporter in exporters.items()
            for one in make(exporter, checkpoint, staging, [each.precision for each in targets if each.format == name])
        ]
        weights = kept.weights
        if recipe.with_weights:
            weights = write_weights(checkpoint, staging)
        devices = folder.devices() if folder else ()
        order = () if step is None else step.order
        export = StagedExport(staging, checkpoint, kept, weights, devices, policy, order)
        artifacts = export.record(made, checked=recipe.proof.check)
        # A card that an earlier export wrote follows the folder, whatever is added to it.
        facts = folder.card_facts(checkpoint) if folder else facts_of_earlier(out, checkpoint, kept)

        if not recipe.proof.check:
            if facts is not None:
                write_card(staging, facts, None, policy)
            publish(staging, out)
            return Exported(out, None, notes=checkpoint.notes)

        oracle = run_oracle if step is None else step.oracle
        run = partial(oracle, checkpoint, corpus, threads)
        proven, measured = _proven(export, artifacts, made, run, corpus, threads)
        return _published(export, out, proven, measured, facts)


def _proven(
    export: StagedExport,
    artifacts: Sequence[Artifact],
    made: Sequence[Made],
    oracle: Callable[[], ReferenceVectors],
    corpus: Corpus,
    threads: int,
) -> tuple[Sequence[Made], Measured]:
    """Measure and judge a staged folder; return its new models, some perhaps in a later attempt, and the result."""
    known = None if made else proven_before(export, artifacts, corpus)
    if known is not None:
        return made, known

    measurement = Measurement(corpus, oracle(), threads)
    measured = prove(export, artifacts, measurement)

    # A model may have several attempts: each pass replaces one model and measures it again.
    while (again := made_again(made, measured.verdict)) is not None:
        made = again
        artifacts = export.record(made, checked=True)
        measured = prove(export, artifacts, measurement, measured)

    return made, measured


def _exporters(recipe: Recipe) -> dict[str, Exporter]:
    """Return format -> exporter, for each format of the recipe's targets.

    Raises:
        UsageError: a format, a precision or an option does not exist.
        MissingLibrary: an exporter's library is not installed.
    """
    every = (*recipe.beside, *recipe.targets)
    exporters = {}

    for name in dict.fromkeys(target.format for target in every):
        options = dict(recipe.options.get(name, {}))
        if recipe.int8 is not None and Target(name, "int8") in every:
            options["int8"] = recipe.int8
        exporters[name] = find_exporter(name, options)

    for target in every:
        known = exporters[target.format].precisions
        if target.precision not in known:
            raise UsageError(f"{target.format} has no precision {target.precision!r}: {', '.join(known)}.")

    return exporters


def _published(
    export: StagedExport, out: Path, made: Sequence[Made], measured: Measured, facts: CardFacts | None
) -> Exported:
    """Publish the proven targets as `out`, and the refused targets beside it as `OUT.refused`."""
    proven = measured if measured.verdict.passed else proven_alone(export, measured, made)

    if proven is None:
        write_report(measured.report, export.root / REPORT)
        limits = _write_accepting(export, measured, export.root)
        refused = refused_folder(out)
        publish(export.root, refused)
        proof = Proof(measured.report, measured.verdict, refused / REPORT)
        return Exported(refused, proof, refused, refused / limits if limits else None, export.checkpoint.notes)

    aside, limits = None, None
    if proven is not measured:
        aside = refused_staging(out)
        move_refused(export, aside, measured, proven, made)
        limits = _write_accepting(export, measured, aside)

        # The proven folder loses these models, so its manifest is written again.
        stay = {str(item.target) for item in proven.artifacts}
        export.record([one for one in made if one.record.target in stay], checked=True)

    write_report(proven.report, export.root / REPORT)
    if facts is not None:
        write_card(export.root, facts, proven.report, export.policy)
    publish(export.root, out)
    proof = Proof(measured.report, measured.verdict, out / REPORT)
    if aside is None:
        return Exported(out, proof, notes=export.checkpoint.notes)

    refused = refused_folder(out)
    publish(aside, refused)
    return Exported(out, proof, refused, refused / limits if limits else None, export.checkpoint.notes)


def _write_accepting(export: StagedExport, measured: Measured, folder: Path) -> str | None:
    """Write the limits under which targets refused only for rounding would pass; return the file name, None if none."""
    targets = rounding_alone(measured.verdict)
    if not targets:
        return None

    loosened = accepting(export.policy, measured.report, targets)
    heading = f"The limits that were given, lowered for {', '.join(targets)} to what was measured of them."
    (folder / LIMITS).write_text(as_toml(loosened, heading), "utf-8")
    return LIMITS
