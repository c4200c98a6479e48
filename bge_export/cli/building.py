"""The `build` command, which makes of a recipe whatever is not made yet, and proves it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bge_export.cli.options import CORES, ExportThreads, Json
from bge_export.cli.output import err, out, print_json
from bge_export.errors import MeasurementError

if TYPE_CHECKING:
    from bge_export.build.recipe import Recipe
    from bge_export.commands import BuildOptions, Built


def build(
    recipe: Annotated[
        Path,
        typer.Argument(
            metavar="RECIPE", exists=True, dir_okay=False, help="A recipe, or a fleet of them: a TOML file."
        ),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be made and why; make nothing.")] = False,
    publish: Annotated[
        bool, typer.Option("--publish", help="Publish what passes to the repository that the recipe names.")
    ] = False,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Make targets on a Ray cluster: auto, HOST:PORT, or local for one of this machine alone.",
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Where targets made apart are kept, a path or s3://…; every node must reach it. "
            "By default a folder beside RECIPE.",
        ),
    ] = None,
    threads: ExportThreads = CORES,
    as_json: Json = False,
) -> int:
    """Make whatever a recipe says that is not made yet, prove it, and judge the whole folder.

    Finished steps stay whatever ends the build, and the same command goes on. Many recipes in one file, a fleet, are
    built one after the other, or at once on a Ray cluster.

    bge-export build recipe.toml --dry-run

    bge-export build recipe.toml --publish

    bge-export build fleet.toml --ray auto --store s3://bucket/parts
    """
    from bge_export.build.fleet import read_builds
    from bge_export.commands import BuildOptions

    recipes = read_builds(recipe)
    options = BuildOptions(dry_run=dry_run, publish=publish, threads=threads)
    if ray is not None and store is None:
        store = str(recipe.absolute().with_name(f".{recipe.stem}.bge-export.parts"))
    results = _built(recipes, options, ray, store)

    if as_json:
        facts = [_facts(one, dry_run=dry_run) for one in results]
        print_json(facts[0] if len(recipes) == 1 else facts)
    else:
        _show(results, dry_run=dry_run)
    return max(one.exit_status for one in results)


def _built(
    recipes: Sequence["Recipe"], options: "BuildOptions", ray: str | None, store: str | None
) -> Sequence["Built"]:
    """Build recipes, in parts if a store is named; if that ends early, say what is kept."""
    from bge_export.commands import build_fleet, build_recipe

    try:
        if store is not None:
            from bge_export.commands.fleets.engines import InProcess
            from bge_export.commands.fleets.on_ray import OnRay
            from bge_export.commands.fleets.run import build_in_parts

            engine = InProcess() if ray is None or options.dry_run else OnRay(ray)
            return build_in_parts(recipes, engine, store, options, _tell)

        if len(recipes) == 1:
            return [build_recipe(recipes[0], options, _tell)]
        return build_fleet(recipes, options, _tell)
    except (KeyboardInterrupt, OSError, MeasurementError):
        _tell("Finished steps are kept: the same command goes on.")
        raise


def _tell(line: str) -> None:
    """Print what a build is about to do on standard error."""
    err.print(line, highlight=False, markup=False, soft_wrap=True)


def _show(results: Sequence["Built"], *, dry_run: bool) -> None:
    """Print one table of all steps, what was refused, and one line of verdict for each folder."""
    from rich import box
    from rich.table import Table

    table = Table("folder", "step", "", "seconds", "because", box=box.SIMPLE_HEAD)
    words = {"keep": "keep", "make": "make", "leave": "leave out"} if dry_run else _DONE
    for one in results:
        for number, step in enumerate(one.steps):
            word = "REFUSED" if step.refused else words[step.decision]
            if step.step == "gate" and one.proof is not None:
                word = "passed" if one.proof.verdict.passed else "REFUSED"
            seconds = "" if dry_run or step.decision != "make" else f"{step.seconds:.1f}"
            table.add_row("" if number else str(one.folder), step.step, word, seconds, step.reason)
    out().print(table)

    for one in results:
        for line in (line for step in one.steps for line in step.refused):
            print(f"{one.folder}: {line}")
        for name, scores in one.scores.items():
            for score in scores:
                print(f"{one.folder}: {name}: {score['target']} {score['output']} {score['spearman']:.4f}")

    for one in results:
        for line in _verdict(one, dry_run=dry_run):
            print(line)


_DONE = {"keep": "kept", "make": "made", "leave": "left out"}


def _verdict(one: "Built", *, dry_run: bool) -> list[str]:
    """Return the last lines on a folder: why it is refused, then the verdict."""
    if one.error is not None:
        return [f"{one.folder}: not built: {one.error}"]
    if dry_run:
        made = sum(step.decision == "make" for step in one.steps)
        return [f"{one.folder}: {made} of {len(one.steps)} steps to make; nothing was done (--dry-run)."]

    reasons = [failure.message for proof in (one.proof, one.texts) if proof for failure in proof.verdict.failures]
    shown = [f"{one.folder}: {reason}" for reason in reasons[:_REASONS]]
    if one.proof is None:
        return [f"{one.folder}: REFUSED: nothing of this checkpoint stands there."]
    if one.exit_status:
        advice = f"all reasons: bge-export gate {one.folder}" if reasons else "a step was refused"
        return [*shown, f"{one.folder}: REFUSED; {advice}"]

    lanes = sum(lane.measured for lane in one.proof.report.lanes)
    steps = [step.decision for step in one.steps if step.step not in ("gate", "publish")]
    told = [] if one.published is None else [f"{one.published.repository}: published at {one.published.revision}."]

    passed = f"PASSED: {len(one.proof.report.targets)} targets in {lanes} lanes"
    return [f"{one.folder}: {passed}; {steps.count('make')} steps made, {steps.count('keep')} kept.", *told]


_REASONS = 10


def _facts(one: "Built", *, dry_run: bool) -> dict[str, Any]:
    """Return the result of one recipe for machines."""
    from dataclasses import asdict

    failures = [failure for proof in (one.proof, one.texts) if proof for failure in proof.verdict.failures]
    return {
        "model": one.name,
        "folder": str(one.folder),
        "dry_run": dry_run,
        "exit_status": one.exit_status,
        "error": None if one.error is None else str(one.error),
        "steps": [asdict(step) for step in one.steps],
        "passed": None if dry_run else one.exit_status == 0,
        "failures": [{"rule": failure.rule, "message": failure.message} for failure in failures],
        "scores": one.scores,
        "revision": None if one.published is None else one.published.revision,
    }
