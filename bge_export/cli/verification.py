"""The `verify` command, which checks a folder or what a repository on the Hub holds."""

from pathlib import Path
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
from bge_export.cli.signing import trust_of

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
    key: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Public key, as PEM, that the folder must be signed with."),
    ] = None,
    certificate: Annotated[
        list[Path] | None,
        typer.Option(exists=True, dir_okay=False, help="Root that the signer's certificate leads to. Repeatable."),
    ] = None,
    identity: Annotated[
        str | None, typer.Option(help="Sigstore identity that must have signed it: an address, or a workflow's.")
    ] = None,
    issuer: Annotated[
        str | None, typer.Option(metavar="URL", help="Who vouches for --identity, such as GitHub's issuer of tokens.")
    ] = None,
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
    """Check what was published: its signature, every byte, that nothing unlisted lies there, and the report.

    A repository is fetched into the Hub's cache. With --key, --certificate or --identity the folder must be signed:
    its files, and the statement by which limits it was proven. Without, and without --measure and --rebuild, the
    report is believed as far as its bytes and the gate go.
    """
    from bge_export.commands import Required
    from bge_export.commands.verifying import VerifyOptions
    from bge_export.commands.verifying import verify as verify_it

    trust = trust_of(key, certificate, identity, issuer)
    done = verify_it(
        what,
        VerifyOptions(measure, rebuild, threads, trust),
        Required(require or (), require_reference, thresholds, reference, revision),
    )

    if as_json:
        print_json(_facts(done))
        return PASSED if done.passed else REFUSED

    if done.proof is not None:
        show(done.proof, as_json=False)
    if done.measured is not None:
        show(done.measured, as_json=False)
    for line in _lines(done, asked=trust is not None):
        print(line)
    return PASSED if done.passed else REFUSED


def _facts(done: "Verified") -> dict[str, object]:
    """Return the result for machines."""
    from bge_export.parity.show.render import as_json

    proof, measured = done.proof, done.measured
    return {
        "where": done.where,
        "passed": done.passed,
        "files": done.files,
        "signed": done.signed,
        "wrong": [{"rule": one.rule, "message": one.message, "advice": one.advice} for one in done.wrong],
        "report": None if proof is None else as_json(proof.report, proof.verdict),
        "measured": None if measured is None else as_json(measured.report, measured.verdict),
        "rebuilt": [{"target": one.target, "other": one.other, "tools": one.tools} for one in done.rebuilt],
    }


def _lines(done: "Verified", *, asked: bool) -> list[str]:
    """Return what was found, in sentences."""
    lines = [f"{wrong.rule}: {wrong.message.rstrip('.')}. {wrong.advice}" for wrong in done.wrong]
    for one in done.rebuilt:
        result = "the same bytes" if not one.other else f"other bytes of {', '.join(one.other)}"
        lines.append(
            f"{one.target}: exported anew: {result}" + (f" ({'; '.join(one.tools)})" if one.tools else "") + "."
        )

    if done.proof is None:
        return [*lines, f"{done.where}: REFUSED: what is there is not what was signed, so nothing of it is believed."]

    state = "verified" if done.passed else "REFUSED"
    signature = f" {_signature(done, asked=asked)}"
    return [
        *lines,
        f"{done.where}: {state}: {done.files} files with the digests of the manifest, nothing unlisted, "
        f"{'and the report passes' if done.proof.verdict.passed else 'but the report is refused'}.{signature}",
    ]


def _signature(done: "Verified", *, asked: bool) -> str:
    """Return what is known of the signature, in a sentence."""
    if not done.signed:
        return "It is not signed."
    if not asked:
        return "By whom it was signed was not checked: give --key, --certificate or --identity."
    return "Files and statement are signed." if not done.wrong else "Its signed statement is refused."
