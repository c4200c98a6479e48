"""Plans and runs builds: looks at each step, makes those that must be made, then judges the folder and publishes it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bge_export.build.recipe import Recipe
from bge_export.bundle.locks import locked
from bge_export.bundle.staging import recover
from bge_export.commands.building.card import card_steps
from bge_export.commands.building.exporting import ExportStep, FolderStep
from bge_export.commands.building.job import Decision, Job, Step, Tell
from bge_export.commands.building.lanes import OWN_TEXTS, TextsStep, lane_steps
from bge_export.commands.building.scores import refuse_unclear_scores, scores_of, scores_steps
from bge_export.commands.checks import judge_report
from bge_export.commands.measuring import Proof, read_policy, refuse_unknown_runtimes
from bge_export.commands.publishing import Published, PublishOptions, Required, judge_folder, publish_folder
from bge_export.errors import BgeExportError, UsageError
from bge_export.exporters import find_exporter, format_names
from bge_export.precision import precision_names


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


def build_recipe(recipe: Recipe, options: BuildOptions | None = None, tell: Tell = lambda _: None) -> Built:
    """Make of a recipe what is not made yet, prove it, and publish it if asked.

    A step is kept if its inputs, options and versions are the same as when it was made, and what it made is still
    there, byte for byte. Finished steps survive whatever ends the build; the same call goes on.

    Args:
        recipe: what is built.
        options: how.
        tell: is told what happens, one line for each step.

    Raises:
        UsageError: the recipe, its checkpoint or its folder cannot be used.
        MeasurementError: a step could not be done.
    """
    options = options or BuildOptions()
    _refuse(recipe, options)
    job = Job.open(recipe, options.threads)
    if options.dry_run:
        job.refuse_unknown_targets()
        return Built(recipe.source.model, job.out, (*_planned(job), *_last(options)))

    job.out.parent.mkdir(parents=True, exist_ok=True)
    with locked(job.out, "build"):
        recover(job.out)
        job.refuse_unknown_targets()
        return _run(job, options, tell)


def build_fleet(
    recipes: Sequence[Recipe], options: BuildOptions | None = None, tell: Tell = lambda _: None
) -> list[Built]:
    """Build several recipes, one after the other; one that is refused or fails does not keep the others from it.

    Args:
        recipes: what is built.
        options: how.
        tell: is told what happens, one line for each step.
    """
    results = []
    for number, recipe in enumerate(recipes, 1):
        model = recipe.source.model
        tell(f"{model} ({number} of {len(recipes)})")
        try:
            results.append(build_recipe(recipe, options, tell))
        except BgeExportError as error:
            tell(f"{model}: {error}")
            results.append(Built(model, recipe.output.folder or Path(Path(model).name), error=error))

    return results


def _refuse(recipe: Recipe, options: BuildOptions) -> None:
    """Raise UsageError for a recipe that could not be built to its end, before anything is done."""
    if not recipe.proof.check:
        raise UsageError("proof.check is false, but a build proves what it makes. Take it out of the recipe.")
    if options.publish and recipe.publish is None:
        raise UsageError("The recipe does not say where to publish. Add publish.repository, or leave --publish out.")

    for target in recipe.every_target:
        if target.format not in format_names():
            raise UsageError(f"there is no format {target.format!r}: {', '.join(format_names())}")
        known = precision_names(target.format)
        if known and target.precision not in known:
            raise UsageError(f"{target.format} has no precision {target.precision!r}: {', '.join(known)}.")

    refuse_unknown_runtimes(recipe.proof.require)
    read_policy(recipe.proof.thresholds)
    if recipe.evaluation is not None:
        refuse_unclear_scores(recipe.evaluation)


def _steps(job: Job) -> list[Step]:
    """Return the steps of a build in their order."""
    lanes = lane_steps(job)
    own = job.recipe.texts
    texts = [] if own is None else [TextsStep(job, own.file, own.column, [lane.device for lane in lanes])]

    return [
        *(ExportStep(job, target) for target in job.recipe.every_target),
        FolderStep(job),
        *lanes,
        *texts,
        *scores_steps(job),
        *card_steps(job),
    ]


def _planned(job: Job) -> list[Done]:
    """Return what each step would do."""
    standing, pending, found = job.standing(), frozenset[str](), []
    for step in _steps(job):
        look = step.look(standing, pending)
        found.append(Done(step.name, look.decision, look.reason))
        if look.decision == "make":
            pending |= {step.name}
    return found


def _last(options: BuildOptions) -> list[Done]:
    """Return what follows the steps."""
    gate = Done("gate", "make", "a folder is judged each time")
    return [gate, *([Done("publish", "make", "--publish")] if options.publish else [])]


def _run(job: Job, options: BuildOptions, tell: Tell) -> Built:
    """Run the steps that must be made, then the gate."""
    built = Built(job.recipe.source.model, job.out)
    plan = _planned(job)
    if any(done.step.startswith("export ") and done.decision == "make" for done in plan):
        _refuse_options(job.recipe)

    steps = _steps(job)
    for number, (step, planned) in enumerate(zip(steps, plan, strict=True), 1):
        done = _made(step, planned, job, f"{number} of {len(steps)}", tell)
        built = replace(built, steps=(*built.steps, done))
        if isinstance(step, FolderStep) and not _stands(job):
            tell("nothing that stands is of this checkpoint, so there is nothing to measure or to judge")
            return built

    return _judged(job, built, options, tell)


def _made(step: Step, planned: Done, job: Job, number: str, tell: Tell) -> Done:
    """Make a step if it must be made by now."""
    if planned.decision != "make":
        return planned

    start = time.monotonic()
    standing = job.standing()
    look = step.look(standing, frozenset())
    if look.decision == "leave":
        return Done(step.name, look.decision, look.reason)
    if look.decision == "keep":  # an earlier step has done it: an export measures what it writes
        return replace(planned, reason=f"done with another step: {look.reason}")

    tell(f"{step.name} ({number}): {look.reason}")
    refused = step.make(standing)
    return Done(step.name, "make", planned.reason, round(time.monotonic() - start, 1), refused)


def _stands(job: Job) -> bool:
    """Return whether the folder holds anything of this build's checkpoint."""
    manifest = job.standing(verify=False).manifest
    return manifest is not None and manifest.source.digest == job.checkpoint.digest


def _judged(job: Job, built: Built, options: BuildOptions, tell: Tell) -> Built:
    """Judge the folder, and publish it if it passes."""
    start, recipe = time.monotonic(), job.recipe
    required = Required(recipe.proof.require, None, recipe.proof.thresholds)
    proof = judge_folder(job.out, required)

    texts = None
    if recipe.texts is not None:
        texts = judge_report(
            job.out / OWN_TEXTS,
            texts=recipe.texts.file,
            column=recipe.texts.column,
            thresholds=recipe.proof.thresholds,
            bundle=job.out,
        )

    gate = replace(_last(BuildOptions())[0], seconds=round(time.monotonic() - start, 1))
    built = replace(built, steps=(*built.steps, gate), proof=proof, texts=texts, scores=scores_of(job))
    if not options.publish or built.exit_status:
        return built
    return _published(job, built, required, tell)


def _published(job: Job, built: Built, required: Required, tell: Tell) -> Built:
    """Publish the folder."""
    start, wanted = time.monotonic(), job.recipe.publish
    if wanted is None:
        return built

    tell(f"publish: {wanted.repository}")
    card = job.recipe.card
    options = PublishOptions(
        create_pr=wanted.create_pr,
        private=wanted.private,
        remove_others=wanted.remove_others,
        license=None if card is None else card.license,
    )
    published = publish_folder(job.out, wanted.repository, options, required)

    seconds = round(time.monotonic() - start, 1)
    kept = Done("publish", "keep", f"{wanted.repository} holds all of it", seconds)
    done = kept if published.already else Done("publish", "make", "--publish", seconds)
    return replace(built, steps=(*built.steps, done), published=published)


def _refuse_options(recipe: Recipe) -> None:
    """Raise UsageError for what no exporter takes, before the first export begins."""
    for target in recipe.every_target:
        known = find_exporter(target.format, recipe.options.get(target.format, {})).precisions
        if target.precision not in known:
            raise UsageError(f"{target.format} has no precision {target.precision!r}: {', '.join(known)}.")
