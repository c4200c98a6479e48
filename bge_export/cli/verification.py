"""The `verify` command, which checks a folder or what a repository on the Hub holds."""

from typing import TYPE_CHECKING, Annotated

import typer

from bge_export.cli.options import (
    CORES,
    PASSED,
    REFUSED,
    Json,
    Require,
    RequireReference,
    Revision,
    Threads,
    Thresholds,
)
from bge_export.cli.output import print_json, show

if TYPE_CHECKING:
    from bge_export.commands.verifying import Verified


def verify(
    what: Annotated[
        str,
        typer.Argument(
            metavar="FOLDER|ORG/NAME@REVISION",
            help="A folder, or a repository; a folder here of that name comes first.",
        ),
    ],
    measure: Annotated[bool, typer.Option("--measure", help="Measure parity again, on this machine.")] = False,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Export every model anew, and compare the bytes.")] = False,
    reference: Annotated[
        str | None,
        typer.Option(help="The checkpoint, for small files, --measure and --rebuild. [default: the one it names]"),
    ] = None,
    revision: Revision = None,
    require: Require = None,
    require_reference: RequireReference = None,
    thresholds: Thresholds = None,
    threads: Threads = CORES,
    as_json: Json = False,
) -> int:
    """Check what was published: every byte, that nothing unlisted lies there, and the report.

    A repository is fetched into the Hub's cache. Without --measure and --rebuild the report is believed as far as its
    bytes and the gate go; it is no signature.
    """
    from bge_export.commands.publishing import Required
    from bge_export.commands.verifying import VerifyOptions
    from bge_export.commands.verifying import verify as verify_it

    done = verify_it(
        what,
        VerifyOptions(measure, rebuild, threads),
        Required(require or (), require_reference, thresholds, reference, revision),
    )

    if as_json:
        print_json(_facts(done))
        return PASSED if done.passed else REFUSED

    show(done.proof, as_json=False)
    if done.measured is not None:
        show(done.measured, as_json=False)
    for line in _lines(done):
        print(line)
    return PASSED if done.passed else REFUSED


def _facts(done: "Verified") -> dict[str, object]:
    """Return the result for machines."""
    from bge_export.parity.show.render import as_json

    measured = done.measured
    return {
        "where": done.where,
        "passed": done.passed,
        "files": done.files,
        "report": as_json(done.proof.report, done.proof.verdict),
        "measured": None if measured is None else as_json(measured.report, measured.verdict),
        "rebuilt": [{"target": one.target, "other": one.other, "tools": one.tools} for one in done.rebuilt],
    }


def _lines(done: "Verified") -> list[str]:
    """Return what was found, in sentences."""
    lines = []
    for one in done.rebuilt:
        result = "the same bytes" if not one.other else f"other bytes of {', '.join(one.other)}"
        lines.append(
            f"{one.target}: exported anew: {result}" + (f" ({'; '.join(one.tools)})" if one.tools else "") + "."
        )

    state = "verified" if done.passed else "REFUSED"
    return [
        *lines,
        f"{done.where}: {state}: {done.files} files with the digests of the manifest, nothing unlisted, "
        f"{'and the report passes' if done.proof.verdict.passed else 'but the report is refused'}.",
    ]
