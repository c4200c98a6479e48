"""The `evaluate` command, which scores artifacts on tasks of mteb, or on a file of scored pairs."""

import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bge_export.cli.options import CORES, PASSED, Json, Revision, Threads
from bge_export.cli.output import out, print_json

if TYPE_CHECKING:
    from bge_export.commands.tasks import TaskOptions, TaskScore


def evaluate(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", exists=True, help="A folder that bge-export wrote.")],
    pairs: Annotated[
        Path | None, typer.Option(help="A .tsv file with the columns score, sentence1, sentence2, in place of --task.")
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="A task of mteb, such as STSBenchmark or SciFact. Repeatable.")
    ] = None,
    artifact: Annotated[
        list[str] | None,
        typer.Option(help="The target to score, such as onnx-int8. Repeatable. [default: all that the runtime reads]"),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            exists=True, file_okay=False, help="A folder of sets with a manifest.json, in place of data from the Hub."
        ),
    ] = None,
    results: Annotated[
        Path, typer.Option("--results", "-o", help="The folder of mteb's results; what is there already is kept.")
    ] = Path("scores"),
    reference: Annotated[
        str | None, typer.Option(help="Score the checkpoint too, in torch, and compare with it: a Hub id or a folder.")
    ] = None,
    revision: Revision = None,
    unnormalized: Annotated[
        bool,
        typer.Option(
            "--unnormalized", help="Take vectors before their norm, as the authors of BGE scored classification."
        ),
    ] = False,
    runtime: Annotated[str, typer.Option(help="Runtime to embed with.")] = "onnxruntime",
    device: Annotated[str, typer.Option(help="Its device.")] = "cpu",
    threads: Threads = CORES,
    as_json: Json = False,
) -> int:
    """Score artifacts on mteb's own tasks, or on a file of pairs: Spearman x 100 with human scores.

    With --task the protocol is mteb's: an instruction stands before queries alone. Results are written as mteb does,
    one file a task and artifact; the same command goes on where it ended. Differences are from the checkpoint
    (--reference), else from the first fp32 artifact, with a 95 % interval by a paired bootstrap.
    """
    if (pairs is None) == (not task):
        raise typer.BadParameter("give either --task or --pairs")

    if task:
        from bge_export.commands.tasks import TaskOptions

        options = TaskOptions(
            targets=tuple(artifact or ()),
            runtime=runtime,
            device=device,
            data=data,
            results=results,
            reference=reference,
            revision=revision,
            threads=threads,
            unnormalized=unnormalized,
        )
        return _tasks(folder, task, options, as_json=as_json)

    if artifact or data or reference or revision or unnormalized:
        raise typer.BadParameter("--artifact, --data, --reference, --revision and --unnormalized are about --task")
    return _pairs(folder, pairs or Path(), runtime, device, threads, as_json=as_json)


def _pairs(folder: Path, pairs: Path, runtime: str, device: str, threads: int, *, as_json: bool) -> int:
    """Score on a file of pairs."""
    from bge_export.commands import evaluate_pairs

    scores = evaluate_pairs(folder, pairs, runtime=runtime, device=device, threads=threads)

    if as_json:
        print_json([asdict(score) for score in scores])
    for score in scores if not as_json else ():
        print(f"{score.target} {score.output} {score.runtime}:{score.device} {score.pairs} pairs {score.spearman:.4f}")
    return PASSED


def _tasks(folder: Path, tasks: Sequence[str], options: "TaskOptions", *, as_json: bool) -> int:
    """Score on tasks of mteb."""
    from bge_export.commands.tasks import evaluate_tasks

    logging.getLogger("mteb").setLevel(logging.ERROR)  # it tells of newer versions of the tasks that were named
    scores = evaluate_tasks(folder, tasks, options)

    if as_json:
        print_json([asdict(score) for score in scores])
    else:
        _show(scores, options.results)
    return PASSED


def _show(scores: "Sequence[TaskScore]", results: Path) -> None:
    """Print the scores as a table."""
    from rich import box
    from rich.table import Table

    table = Table("task", "metric", "artifact", "score", "difference", "95 %", "published", box=box.SIMPLE_HEAD)
    for one in scores:
        difference = "" if one.difference is None else f"{one.difference:+.3f}"
        between = "" if one.interval is None else f"{one.interval[0]:+.3f} … {one.interval[1]:+.3f}"
        published = "" if one.published is None else f"{one.published:.2f} ({one.score - one.published:+.3f})"
        table.add_row(one.task, one.metric, one.artifact, f"{one.score:.3f}", difference, between, published)

    out().print(table)
    kept = sum(one.already for one in scores)
    print(f"{results}: {len(scores)} results in mteb's own form" + (f", {kept} of them kept." if kept else "."))
