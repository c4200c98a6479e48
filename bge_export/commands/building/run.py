"""Runs builds: makes the steps that must be made, then judges the folder and publishes it."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bge_export.build.recipe import Recipe
from bge_export.bundle.locks import locked
from bge_export.bundle.staging import recover
from bge_export.commands.building.exporting import FolderStep, take_parts
from bge_export.commands.building.job import Given, Job, Step, Tell
from bge_export.commands.building.lanes import OWN_TEXTS
from bge_export.commands.building.plan import planned, refuse_options, refuse_unbuildable, steps_of
from bge_export.commands.building.results import BuildOptions, Built, Done
from bge_export.commands.building.scores import scores_of
from bge_export.commands.judging import Required, judge_folder
from bge_export.commands.published_files import PublishOptions
from bge_export.commands.publishing import publish_folder
from bge_export.commands.reports import judge_report
from bge_export.errors import BgeExportError


def build_recipe(
    recipe: Recipe,
    options: BuildOptions | None = None,
    tell: Tell = lambda _: None,
    given: Given = Given(),  # noqa: B008 - it is frozen
) -> Built:
    """Make of a recipe what is not made yet, prove it, and publish it if asked.

    A step is kept if its inputs, options and versions are the same as when it was made, and what it made is still
    there, byte for byte. Finished steps survive whatever ends the build; the same call goes on.

    Args:
        recipe: what is built.
        options: how.
        tell: is told what happens, one line for each step.
        given: targets that other processes have exported.

    Raises:
        UsageError: the recipe, its checkpoint or its folder cannot be used.
        MeasurementError: a step could not be done.
    """
    options = options or BuildOptions()
    refuse_unbuildable(recipe, options)
    job = Job.open(recipe, options.threads, given)
    if options.dry_run:
        job.refuse_unknown_targets()
        return Built(recipe.source.model, job.out, (*planned(job), *_last(options)))

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


def _last(options: BuildOptions) -> list[Done]:
    """Return what follows the steps."""
    gate = Done("gate", "make", "a folder is judged each time")
    return [gate, *([Done("publish", "make", "--publish")] if options.publish else [])]


def _run(job: Job, options: BuildOptions, tell: Tell) -> Built:
    """Run the steps that must be made, then the gate."""
    built = Built(job.recipe.source.model, job.out)
    if refused := take_parts(job):
        built = replace(built, steps=(Done("parts", "make", "exported by other processes", refused=refused),))
        return _judged(job, built, options, tell) if _stands(job) else built

    plan = planned(job)
    if any(done.step.startswith("export ") and done.decision == "make" for done in plan):
        refuse_options(job.recipe)

    steps = steps_of(job)
    for number, (step, before) in enumerate(zip(steps, plan, strict=True), 1):
        done = _made(step, before, job, f"{number} of {len(steps)}", tell)
        built = replace(built, steps=(*built.steps, done))
        if isinstance(step, FolderStep) and not _stands(job):
            tell("nothing that stands is of this checkpoint, so there is nothing to measure or to judge")
            return built

    return _judged(job, built, options, tell)


def _made(step: Step, before: Done, job: Job, number: str, tell: Tell) -> Done:
    """Make a step if it must be made by now."""
    if before.decision != "make":
        return before

    start = time.monotonic()
    standing = job.standing()
    look = step.look(standing, frozenset())
    if look.decision == "leave":
        return Done(step.name, look.decision, look.reason)
    if look.decision == "keep":  # an earlier step has done it: an export measures what it writes
        return replace(before, reason=f"done with another step: {look.reason}")

    tell(f"{step.name} ({number}): {look.reason}")
    refused = step.make(standing)
    return Done(step.name, "make", before.reason, round(time.monotonic() - start, 1), refused)


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
