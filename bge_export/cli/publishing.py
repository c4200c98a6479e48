"""The `publish` command, which uploads a proven folder to the Hub."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bge_export.cli.options import PASSED, Json, Require, RequireReference, Thresholds
from bge_export.cli.output import err, out, print_json, show
from bge_export.cli.signing import builder, named_signer

if TYPE_CHECKING:
    from bge_export.commands.publishing import Published


def publish(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", exists=True, file_okay=False, help="A folder that bge-export wrote.")
    ],
    repo: Annotated[str, typer.Option(metavar="ORG/NAME", help="The repository; it is created if it does not exist.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print files, sizes and the card; change nothing on the Hub.")
    ] = False,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Propose the files in a pull request.")] = False,
    private: Annotated[bool, typer.Option("--private", help="Create the repository for its owner alone.")] = False,
    remove_others: Annotated[
        bool, typer.Option("--remove-others", help="Remove files of the repository that nothing proves.")
    ] = False,
    license_name: Annotated[
        str | None,
        typer.Option(
            "--license", help="The checkpoint's licence, for the card. [default: that of the base on the Hub]"
        ),
    ] = None,
    scores: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Results of 'evaluate --task', for card and .eval_results/."),
    ] = None,
    sign: Annotated[
        str | None,
        typer.Option(metavar="KEY|keyless", help="Write the card, and sign the folder first, as 'sign' does."),
    ] = None,
    require: Require = None,
    require_reference: RequireReference = None,
    thresholds: Thresholds = None,
    reference: Annotated[
        str | None,
        typer.Option(help="Hold the folder's small files and weights to the checkpoint, or to a reference.npz."),
    ] = None,
    as_json: Json = False,
) -> int:
    """Upload a proven folder to the Hub in one commit, and read it back.

    The gate judges report and bytes again at that moment. The token comes from HF_TOKEN, from 'hf auth login', or in CI
    from a trusted publisher. If it is interrupted, the same command finishes.
    """
    from bge_export.commands import PublishOptions, Required, publish_folder

    done = publish_folder(
        folder,
        repo,
        PublishOptions(
            dry_run=dry_run,
            create_pr=create_pr,
            private=private,
            remove_others=remove_others,
            license=license_name,
            signer=named_signer(sign),
            builder=builder(),
            scores=scores,
        ),
        Required(require or (), require_reference, thresholds, reference),
    )
    if not done.proof.verdict.passed:
        return show(done.proof, as_json, None, thresholds)

    if as_json:
        print_json(_facts(done))
    elif dry_run:
        _show_dry_run(done)
    else:
        print(_sentence(done))

    for note in done.notes:
        err.print(note, highlight=False, markup=False, soft_wrap=True)
    return PASSED


def _facts(done: "Published") -> dict[str, object]:
    """Return the result for machines."""
    return {
        "repository": done.repository,
        "revision": done.revision,
        "pull_request": done.pull_request,
        "already": done.already,
        "changed": list(done.changed),
        "removed": list(done.removed),
        "report_digest": done.proof.report.digest,
        "files": [{"name": file.name, "bytes": file.size, "sha256": file.sha256} for file in done.files],
        "notes": list(done.notes),
    }


def _show_dry_run(done: "Published") -> None:
    """Print what would be uploaded: each file with its size, and the card."""
    from rich import box
    from rich.table import Table

    table = Table("file", "bytes", "sha256", "", box=box.SIMPLE_HEAD)
    for file in done.files:
        state = "new or changed" if file.name in done.changed else "is there"
        table.add_row(file.name, str(file.size), file.sha256[:12], state)
    for name in done.removed:
        table.add_row(name, "", "", "not proven")
    out().print(table)

    for file in done.files:
        if file.name == "README.md" and file.content is not None:
            print(file.content.decode("utf-8", errors="replace"))
    print(f"{done.repository}: nothing was changed there (--dry-run); {_size(done)} would be published.")


def _sentence(done: "Published") -> str:
    """Return in one line what was done."""
    where = done.repository if done.pull_request is None else f"{done.repository} (pull request {done.pull_request})"
    if done.already:
        return f"{where}: holds all of it already, at {done.revision}: {_size(done)}, every digest is the folder's."

    changes = f"{len(done.changed)} new or changed" + (f", {len(done.removed)} removed" if done.removed else "")
    return (
        f"{where}: published at {done.revision}: {_size(done)}, {changes}; read back, and every digest is the folder's."
    )


def _size(done: "Published") -> str:
    return f"{len(done.files)} files, {sum(file.size for file in done.files) / 1e6:.1f} MB"
