"""The `check-contract` command, which checks a program in any language."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bge_export.cli.options import PASSED, REFUSED, Json, Thresholds
from bge_export.cli.output import print_json

if TYPE_CHECKING:
    from bge_export.commands.programs import ProgramCheck


def check_contract(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", exists=True, help="A folder that bge-export wrote.")],
    command: Annotated[
        str,
        typer.Option(
            metavar="PROGRAM",
            help="The program and its arguments. Where {use} stands, query or document is put, and the program adds "
            "prompts by itself.",
        ),
    ],
    target: Annotated[
        str | None,
        typer.Option(help="The file that it runs, whose limits hold. [default: onnx-fp32, or the only one]"),
    ] = None,
    token_ids: Annotated[
        bool, typer.Option("--token-ids", help="Give token ids instead of texts, a JSON list a line.")
    ] = False,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that each run may take.")] = 120.0,
    thresholds: Thresholds = None,
    as_json: Json = False,
) -> int:
    """Check a program in any language: it reads texts and prints vectors, which are compared with golden.jsonl.

    It reads one JSON string a line from standard input, prints one JSON list of numbers a line in the same order, and
    ends with its input. For example:

    bge-export check-contract out --command "python examples/contract/embed.py out {use}"
    """
    from bge_export.commands.programs import check_program

    done = check_program(folder, command, target=target, token_ids=token_ids, seconds=timeout, thresholds=thresholds)

    if as_json:
        print_json(_facts(done))
    else:
        for line in _lines(done):
            print(line)
    return PASSED if done.verdict.passed else REFUSED


def _facts(done: "ProgramCheck") -> dict[str, object]:
    """Return the result for machines."""
    verdict = done.verdict

    return {
        "passed": verdict.passed,
        "target": done.target,
        "limits": {kind: asdict(limits) for kind, limits in verdict.limits.items()},
        "faults": list(verdict.faults),
        "causes": list(verdict.causes),
        "notes": list(done.notes),
        "texts": [
            {
                "id": row.id,
                "kind": row.kind,
                "cosine": row.cosine,
                "norm_error": row.norm_error,
                "least_cosine": row.limits.cosine,
                "right": row.right,
            }
            for row in verdict.rows
        ],
    }


def _lines(done: "ProgramCheck") -> list[str]:
    """Return what was found, in sentences."""
    verdict = done.verdict
    shown = [
        f"{row.id} ({row.kind}): cosine {_figure(row.cosine)} (at least {row.limits.cosine:g}), norm off by "
        f"{_figure(row.norm_error)}"
        for row in verdict.rows
        if not row.right
    ]
    causes = [f"Likely cause: {cause}." for cause in verdict.causes]
    notes = [f"Note: {note}." for note in done.notes]

    if not verdict.passed:
        return [*shown, *causes, *notes, f"REFUSED: {'; '.join(verdict.faults)}."]

    # The one that is nearest to its own limit: everyday and stress texts have different ones.
    nearest = min(verdict.rows, key=lambda row: (row.cosine or 0.0) - row.limits.cosine)
    return [
        *notes,
        f"PASSED: {len(verdict.rows)} texts by the limits of {done.target}; nearest to its limit is {nearest.id}, "
        f"cosine {_figure(nearest.cosine)} (at least {nearest.limits.cosine:g}).",
    ]


def _figure(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.7g}"
