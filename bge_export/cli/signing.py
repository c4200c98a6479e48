"""The `sign` command, which states by which limits a folder was proven and signs it; and who signs, and is believed."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bge_export.cli.options import PASSED, Json, Require, RequireReference, Thresholds
from bge_export.cli.output import print_json, show

if TYPE_CHECKING:
    from bge_export.publish.signature import Signer, Trust

KEYLESS = "keyless"
"""Value of `publish --sign` in place of a key: signs with a Sigstore identity."""


def sign(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", exists=True, file_okay=False, help="A folder that bge-export wrote.")
    ],
    key: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Private key on an elliptic curve, as PEM.")
    ] = None,
    certificate: Annotated[
        list[Path] | None,
        typer.Option(exists=True, dir_okay=False, help="The key's certificate, then those above it. Repeatable."),
    ] = None,
    keyless: Annotated[
        bool, typer.Option("--keyless", help="Sign with a Sigstore identity: that of the CI job, or one in a browser.")
    ] = False,
    require: Require = None,
    require_reference: RequireReference = None,
    thresholds: Thresholds = None,
    reference: Annotated[
        str | None,
        typer.Option(help="Hold the folder's small files and weights to the checkpoint, or to a reference.npz."),
    ] = None,
    as_json: Json = False,
) -> int:
    """Sign a proven folder: a statement of limits, lanes and worst figures, and every file.

    The gate judges report and bytes again at that moment. It writes parity.intoto.jsonl and model.sig (OpenSSF model
    signing) into the folder; 'bge-export verify --key' checks both.
    """
    from bge_export.commands import Required
    from bge_export.commands.signing import sign_folder

    if (key is None) != keyless or (certificate and keyless):
        raise typer.BadParameter("give either --key, with --certificate if there is one, or --keyless")

    done = sign_folder(
        folder,
        signer_of(None if keyless else key, certificate),
        Required(require or (), require_reference, thresholds, reference),
        builder=builder(),
    )
    if not done.proof.verdict.passed:
        return show(done.proof, as_json, None, thresholds)

    if as_json:
        print_json({"folder": str(folder), "report_digest": done.proof.report.digest, "files": dict(done.files)})
    else:
        print(f"{folder}: signed: model.sig is of {len(done.files)} files, with the statement parity.intoto.jsonl.")
    return PASSED


def signer_of(key: Path | None, certificates: Sequence[Path] | None = None) -> "Signer":
    """Return who signs; a Sigstore identity without a key."""
    from bge_export.publish.signature import Signer

    return Signer(key, tuple(certificates or ()))


def named_signer(name: str | None) -> "Signer | None":
    """Return who signs by the value of `publish --sign`: a key's path, or `KEYLESS`."""
    if name is None or name == KEYLESS:
        return None if name is None else signer_of(None)
    if not Path(name).is_file():
        raise typer.BadParameter(f"--sign: there is no key {name}; give the path of one, or {KEYLESS!r}")
    return signer_of(Path(name))


def trust_of(
    key: Path | None, certificates: Sequence[Path] | None, identity: str | None, issuer: str | None
) -> "Trust | None":
    """Return whose signatures are believed; None if that is not asked."""
    from bge_export.publish.signature import Trust

    if (identity is None) != (issuer is None):
        raise typer.BadParameter("--identity and --issuer belong together")
    if sum([key is not None, bool(certificates), identity is not None]) > 1:
        raise typer.BadParameter("give one of --key, --certificate and --identity")

    known = key is not None or certificates or identity is not None
    return Trust(key, tuple(certificates or ()), identity, issuer) if known else None


def builder() -> str:
    """Return where this runs, as SLSA names builders: the workflow of a GitHub run, else this tool."""
    from bge_export.publish.statement import LOCAL

    server, workflow = os.environ.get("GITHUB_SERVER_URL"), os.environ.get("GITHUB_WORKFLOW_REF")
    return f"{server}/{workflow}" if server and workflow else LOCAL
