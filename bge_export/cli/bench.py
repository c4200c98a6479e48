"""The `bench` command, which measures time, memory and size."""

from pathlib import Path
from typing import Annotated

import typer

from bge_export.cli.options import PASSED, Json
from bge_export.cli.output import err, out, print_json


def bench(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH…", help="Folders that bge-export wrote, and model files of anyone."),
    ],
    against: Annotated[
        Path | None, typer.Option(help="File to compare with.", show_default="the first in fp32")
    ] = None,
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RUNTIME:DEVICE", help="Repeatable.", show_default="each format's own that are installed, on cpu"
        ),
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXTSxTOKENS", help="Repeatable.", show_default="1x16, 1x64, 1x256, 8x64, 32x32"),
    ] = None,
    threads: Annotated[list[int] | None, typer.Option(min=1, help="Repeatable.", show_default="1")] = None,
    seconds: Annotated[float, typer.Option(min=0, help="How long to time; at least five rounds are made.")] = 30,
    seed: Annotated[int, typer.Option(min=0, help="Of the order and of the token ids.")] = 0,
    within: Annotated[
        bool,
        typer.Option("--within", help="Compare in each runtime with the base there, not with the first runtime's."),
    ] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Also write the report, as JSON.")] = None,
    as_json: Json = False,
) -> int:
    """Measure time, memory and size of artifacts side by side, in one run.

    Files take turns, in another order each round, so that what disturbs the machine disturbs all alike.

    Nothing is judged: the exit status is 0, and a warning names each file that is slower than fp32 on this machine.
    """
    from bge_export.bench.render import render
    from bge_export.commands import bench_files

    report = bench_files(
        paths,
        against=against,
        lanes=runtime or (),
        shapes=shape or (),
        threads=threads or (1,),
        seconds=seconds,
        seed=seed,
        within=within,
        report_path=output,
    )

    for warning in report.warnings:
        err.print("[bold yellow]warning:[/] ", end="")
        err.print(warning, highlight=False, markup=False, soft_wrap=True)

    if as_json:
        print_json({**report.model_dump(mode="json"), "warnings": report.warnings})
    else:
        out().print(render(report))
    return PASSED
