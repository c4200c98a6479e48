"""Plans a build: its steps in their order, which of them must be made, and what cannot be built to its end."""

from bge_export.build.recipe import Recipe
from bge_export.commands.building.card import card_steps
from bge_export.commands.building.exporting import ExportStep, FolderStep
from bge_export.commands.building.job import Job, Step
from bge_export.commands.building.lanes import TextsStep, lane_steps
from bge_export.commands.building.results import BuildOptions, Done
from bge_export.commands.building.scores import refuse_unclear_scores, scores_steps
from bge_export.commands.measuring import read_policy, refuse_unknown_runtimes
from bge_export.errors import UsageError
from bge_export.exporters import find_exporter, format_names
from bge_export.precision import precision_names


def refuse_unbuildable(recipe: Recipe, options: BuildOptions) -> None:
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


def steps_of(job: Job) -> list[Step]:
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


def planned(job: Job) -> list[Done]:
    """Return what each step would do."""
    standing, pending, found = job.standing(), frozenset[str](), []
    for step in steps_of(job):
        look = step.look(standing, pending)
        found.append(Done(step.name, look.decision, look.reason))
        if look.decision == "make":
            pending |= {step.name}
    return found


def refuse_options(recipe: Recipe) -> None:
    """Raise UsageError for what no exporter takes, before the first export begins."""
    for target in recipe.every_target:
        known = find_exporter(target.format, recipe.options.get(target.format, {})).precisions
        if target.precision not in known:
            raise UsageError(f"{target.format} has no precision {target.precision!r}: {', '.join(known)}.")
