"""Builds a fleet in parts.

recipes → the targets that must be made → parts, longest first → an engine → the store
parts of one recipe, all there → its folder: the targets are taken over, the rest is built and judged here
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bge_export.build.recipe import Recipe
from bge_export.build.store import Store
from bge_export.commands.building.job import Given, Job, Tell
from bge_export.commands.building.plan import planned, refuse_options, refuse_unbuildable
from bge_export.commands.building.results import BuildOptions, Built
from bge_export.commands.building.run import build_recipe
from bge_export.commands.fleets.engines import Engine
from bge_export.commands.fleets.parts import FOLDER, Part, PartResult, parts_of
from bge_export.errors import BgeExportError, MeasurementError, UsageError

STEP = "export "
"""Before a target in the name of its step."""


@dataclass
class _Recipe:
    """One recipe of the fleet: its parts that are waited for, and the results of the others."""

    recipe: Recipe
    waiting: set[str] = field(default_factory=set)
    results: list[PartResult] = field(default_factory=list)
    built: Built | None = None


def build_in_parts(
    recipes: Sequence[Recipe], engine: Engine, store: str, options: BuildOptions, tell: Tell = lambda _: None
) -> list[Built]:
    """Build recipes whose targets an engine makes, each as a part of its own; the folders are written here.

    A recipe that is refused or fails does not keep the others from being built. Parts that the store has, and targets
    that a folder has, are not made again.

    Args:
        recipes: what is built.
        engine: where parts are made; it is closed at the end.
        store: the URL of the store.
        options: how; with `dry_run`, parts are not begun.
        tell: is told what happens, a line for each part and step.

    Raises:
        MissingLibrary: fsspec is not installed.
        MeasurementError: there is no such store.
    """
    try:
        fleet = [_Recipe(recipe) for recipe in recipes]
        opened = Store(store)
        for part in _begun(fleet, store, options, tell):
            engine.submit(part)

        _finish_ready(fleet, opened, options, tell)
        for result in engine.results():
            tell(_line(fleet[result.number].recipe, result))
            one = fleet[result.number]
            one.waiting.discard(result.target)
            one.results.append(result)
            _finish_ready(fleet, opened, options, tell)
        return [one.built for one in fleet if one.built is not None]
    finally:
        engine.close()


def _begun(fleet: Sequence[_Recipe], store: str, options: BuildOptions, tell: Tell) -> list[Part]:
    """Return the parts to make, the longest first; a recipe that cannot be used is finished by that."""
    parts: list[Part] = []
    for number, one in enumerate(fleet):
        try:
            own = [] if options.dry_run else _wanted(number, one.recipe, store, options)
        except BgeExportError as error:
            tell(f"{one.recipe.source.model}: {error}")
            one.built = _failed(one.recipe, error)
            continue

        one.waiting = {part.target for part in own}
        parts += own

    return sorted(parts, key=lambda part: -part.cost)


def _wanted(number: int, recipe: Recipe, store: str, options: BuildOptions) -> list[Part]:
    """Return the parts of the targets that must be made."""
    refuse_unbuildable(recipe, options)
    job = Job.open(recipe, options.threads)
    job.refuse_unknown_targets()

    made = {done.step for done in planned(job) if done.decision == "make"}
    targets = {str(target): target for target in recipe.every_target if f"{STEP}{target}" in made}
    if targets:
        refuse_options(recipe)
    return parts_of(number, job, targets, store)


def _finish_ready(fleet: Sequence[_Recipe], store: Store, options: BuildOptions, tell: Tell) -> None:
    """Write the folders of recipes for which no part is waited for."""
    for one in fleet:
        if one.built is None and not one.waiting:
            one.built = _finished(one, store, options, tell)


def _finished(one: _Recipe, store: Store, options: BuildOptions, tell: Tell) -> Built:
    """Fetch the parts of a recipe, and build the rest of it."""
    recipe = one.recipe
    try:
        for result in one.results:
            if result.error is not None:
                raise _error_of(result)

        with tempfile.TemporaryDirectory(prefix="bge-export-fleet-") as scratch:
            parts = {}
            for result in one.results:
                if result.key is None:
                    continue
                if not store.get(result.key, Path(scratch) / result.target):
                    raise MeasurementError(f"{store.shown} has lost {result.target}. Give the same command again.")
                parts[result.target] = Path(scratch) / result.target / FOLDER

            refused = {result.target: result.refused for result in one.results if result.refused}
            return build_recipe(recipe, options, tell, Given(parts, refused))
    except BgeExportError as error:
        tell(f"{recipe.source.model}: {error}")
        return _failed(recipe, error)


def _failed(recipe: Recipe, error: BgeExportError) -> Built:
    model = recipe.source.model
    return Built(model, recipe.output.folder or Path(Path(model).name), error=error)


def _error_of(result: PartResult) -> BgeExportError:
    """Return the error that a part ended with."""
    kind = UsageError if result.exit_status == UsageError.exit_status else MeasurementError
    return kind(f"{result.target}: {result.error}")


def _line(recipe: Recipe, result: PartResult) -> str:
    """Return what is told of a part that has ended."""
    if result.error is not None:
        what = f"failed: {result.error}"
    elif result.refused:
        what = f"REFUSED: {result.refused[0]}"
    else:
        what = "kept, the store has it" if result.kept else "proven"
    return f"{recipe.source.model} {result.target} on {result.node or 'a lost node'}, {result.seconds:.1f} s: {what}"
