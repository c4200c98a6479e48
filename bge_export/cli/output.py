"""Printing for all commands: results to standard output, progress to standard error."""

import json
import math
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from bge_export.cli.streams import can_hold
from bge_export.progress.timings import facts_of, so_far

if TYPE_CHECKING:
    from bge_export.commands import Proof

err = Console(stderr=True)
FILE_COLUMNS = 160
BLOCKS = "█▀▄"
"""Characters that a QR code is drawn with."""


def show(proof: "Proof", as_json: bool, html: Path | None = None, thresholds: Path | None = None) -> int:
    """Print a report with its verdict; return the verdict's exit status."""
    from bge_export.parity.show.render import as_json as to_json
    from bge_export.parity.show.render import render

    if html is not None:
        from bge_export.commands import read_policy
        from bge_export.parity.show.html import write_html

        write_html(html, proof.report, proof.verdict, read_policy(thresholds), proof.frontiers)

    if as_json:
        print_json(to_json(proof.report, proof.verdict))
    else:
        console = out()
        console.print(render(proof.report, proof.verdict, console.width))

    notes = list(proof.notes)
    if not proof.written:
        notes.append(f"{proof.path} is still the report that stood there: this run measured nothing.")
    print_notes(notes)
    return proof.verdict.exit_status


def print_notes(notes: Iterable[str]) -> None:
    """Print sentences that the user should know besides a result, on standard error."""
    for note in notes:
        err.print(note, highlight=False, markup=False, soft_wrap=True)


def show_ci(proof: "Proof", junit: Path | None, *, github: bool) -> None:
    """Write a verdict as a JUnit file, and print it as annotations of GitHub, to standard error."""
    from bge_export.parity.show.ci import annotations, write_junit

    if junit is not None:
        write_junit(junit, proof.report, proof.verdict)
    for line in annotations(proof.verdict) if github else ():
        print(line, file=sys.stderr)


def show_int8(folder: Path) -> None:
    """Print how the folder's int8 models were quantized: the plain arrangement and why, or the variant and its cost."""
    from bge_export.bundle.manifest import read_manifest
    from bge_export.inspection.render import render_frontier

    for model in read_manifest(folder).models:
        options = model.options

        if reason := options.get("plain_arrangement"):
            residuals = options.get("plain_residuals", "none")
            exact = "less exact" if residuals == "none" else f"with residuals of its {residuals}, so slower"
            print(f"{model.target}: in the plain arrangement, {exact} than the usual one, because {reason}.")

        if steps := options.get("frontier"):
            out().print(render_frontier(model.target, steps))
        if choice := options.get("choice"):
            print(_choice(model.target, choice))

        for reason in options.get("refused", ()):
            print(f"{model.target}: a faster variant was refused: {reason}")


def _choice(target: str, choice: Mapping[str, Any]) -> str:
    """Describe the chosen variant, in two lines if it is not the fastest."""
    from bge_export.parity.figures import cosine_figure

    probes = (
        f"worst cosine of {choice['everyday_probes']} everyday probes {cosine_figure(choice['smallest'])}, "
        f"of {choice['stress_probes']} stress probes {cosine_figure(choice['smallest_stress'])}"
    )
    if not choice["held"]:
        probes = f"no variant reaches what the probes ask for, this one comes nearest: {probes}"

    if not choice["precise"]:
        return f"{target}: the fastest variant: {probes}."

    return (
        f"{target}: the fastest variant loses too much, so the inputs of {choice['precise']} of {choice['points']} "
        f"matrix products (quantization points) are rounded with a residual: {probes}.\n"
        f"{target}: that costs {choice['cost_of_fastest']:.2f} times the multiplications of the fastest variant, in "
        f"{choice['size_of_fastest']:.2f} of its size; {choice['tried']} variants were tried."
    )


def out() -> Console:
    """Return the console of standard output: as wide as the terminal, and wide in files, where no line is too long."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else FILE_COLUMNS
    return Console(highlight=False, width=width)


def print_json(value: object) -> None:
    """Print one JSON value; if standard output cannot encode a character, print it as a JSON escape.

    JSON has no NaN and no infinity: such numbers are printed as null.
    """
    if isinstance(value, dict) and (whole := so_far()) is not None:
        value = {**value, "timings": facts_of(whole)}

    known = _without_lost_numbers(value)
    text = json.dumps(known, indent=2, ensure_ascii=False, allow_nan=False)
    print(text if can_hold(text, sys.stdout) else json.dumps(known, indent=2, allow_nan=False))


def _without_lost_numbers(value: object) -> object:
    """Return the value with None for each float that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _without_lost_numbers(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_lost_numbers(one) for one in value]
    return value


@contextmanager
def progress_bar(name: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show the progress of a stage on standard error: a bar on a terminal, else one line."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    if not err.is_terminal:
        err.print(f"{name} …" if total < 2 else f"{name} ({total}) …", highlight=False, markup=False, soft_wrap=True)

    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task(name, total=total)
        yield lambda count: progress.advance(task, count)


def names(text: str) -> tuple[str, ...]:
    """Return the parts of a comma-separated list."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def announce(address: str) -> None:
    """Print an address for the user to open on standard error, with a QR code if segno is installed."""
    err.print(f"Open this address in each browser:\n{address}", highlight=False, markup=False, soft_wrap=True)

    try:
        import segno
    except ImportError:  # the address alone is enough
        return

    if can_hold(BLOCKS, sys.stderr):
        segno.make(address).terminal(out=sys.stderr, compact=True)
