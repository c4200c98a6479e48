"""The commands that measure parity and judge it: `parity`, `reference`, `gate` and `merge`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bge_export.cli.comparison import gate_certificate
from bge_export.cli.options import (
    CORES,
    NOT_MEASURED,
    PASSED,
    AllowPickle,
    AsHead,
    Column,
    Dim,
    Html,
    Json,
    Junit,
    ModelArgument,
    PoolingOption,
    QueryPrefix,
    Require,
    RequireReference,
    Revision,
    Texts,
    Threads,
    Thresholds,
)
from bge_export.cli.output import announce, names, out, print_json, show, show_ci

if TYPE_CHECKING:
    from bge_export.foreign.measure import ForeignProof, Unmeasured


def parity(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", exists=True, help="A folder that bge-export wrote; or a model file of others, or theirs."
        ),
    ],
    reference: Annotated[
        str, typer.Option(help="The checkpoint (Hub id or folder), or a .npz file of 'bge-export reference'.")
    ],
    texts: Texts = None,
    column: Column = None,
    runtime: Annotated[
        list[str] | None,
        typer.Option(help="Runtime that must run, or runtime:device. Repeatable. [default: all that are installed]"),
    ] = None,
    device: Annotated[list[str] | None, typer.Option(help="Device for --runtime. Repeatable. [default: cpu]")] = None,
    require: Require = None,
    require_reference: RequireReference = None,
    revision: Revision = None,
    thresholds: Thresholds = None,
    report: Annotated[
        Path | None,
        typer.Option(help="Where to write the report; needed with --texts. [default: parity.json in the folder]"),
    ] = None,
    html: Html = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Serve a page: each browser that opens it is measured.")
    ] = False,
    wait_for: Annotated[
        str, typer.Option(metavar="A,B,…", help="Browsers that must come to --serve. [default: the first that comes]")
    ] = "",
    listen: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where --serve listens; an address of the network lets others in.")
    ] = "127.0.0.1",
    allow_pickle: AllowPickle = False,
    threads: Threads = CORES,
    as_json: Json = False,
) -> int:
    """Measure every artifact of a folder against the reference, and judge it.

    Of a model file that others wrote (.onnx, .xml, .pt), or a folder of them, it finds which output and pooling come
    nearest to the checkpoint, measures that on the CPU, and judges it by the limits of its precision; it says what is
    not known, and proves nothing of a folder.

    Without --runtime all that this machine can run is measured, and of the rest the table says why not. Two are
    measured only where they are named: 'torch' is the checkpoint itself on another device and in half precisions, and
    'transformersjs:node@4' a pinned Transformers.js ('bge-export doctor' lists the others).
    """
    from bge_export.commands import check_foreign, check_parity, is_foreign
    from bge_export.commands.browsers import Browsers

    if wait_for and not serve:
        raise typer.BadParameter("--wait-for needs --serve")

    bare = [name for name in runtime or [] if ":" not in name]
    if device and not bare:
        raise typer.BadParameter("--device needs a --runtime without a device")

    lanes = [name for name in runtime or [] if ":" in name]
    lanes += [f"{name}:{one}" for name in bare for one in device or ["cpu"]]

    if is_foreign(folder):
        if serve or html or require or require_reference:
            raise typer.BadParameter(
                f"{folder} is not a folder that bge-export wrote: --serve, --html, --require and --require-reference "
                "are about those"
            )
        return _foreign(
            check_foreign(
                folder,
                reference,
                revision=revision,
                texts=texts,
                column=column,
                lanes=lanes,
                thresholds=thresholds,
                report_path=report,
                threads=threads,
            ),
            as_json,
        )

    browsers = Browsers(announce, names(wait_for), listen) if serve else None
    proof = check_parity(
        folder,
        reference,
        revision=revision,
        texts=texts,
        column=column,
        lanes=lanes,
        require=require or (),
        require_reference=require_reference,
        thresholds=thresholds,
        report_path=report,
        browsers=browsers,
        allow_pickle=allow_pickle,
        threads=threads,
    )

    return show(proof, as_json, html, thresholds)


def _foreign(proofs: "Sequence[ForeignProof | Unmeasured]", as_json: bool) -> int:
    """Print what was found of files that others wrote; return the exit status."""
    from bge_export.foreign.measure import ForeignProof
    from bge_export.foreign.render import render_foreign
    from bge_export.foreign.report import as_json as to_json

    if as_json:
        print_json(to_json(proofs))
    else:
        for proof in proofs:
            console = out()
            console.print(render_foreign(proof, console.width))

    judged = [proof.verdict.exit_status for proof in proofs if isinstance(proof, ForeignProof)]
    return max(judged, default=PASSED) or (NOT_MEASURED if len(judged) < len(proofs) else PASSED)


def reference(
    model: ModelArgument = "BAAI/bge-small-en",
    output: Annotated[Path, typer.Option("--output", "-o", help="The new .npz file to write.")] = Path("reference.npz"),
    texts: Texts = None,
    column: Column = None,
    revision: Revision = None,
    pooling: PoolingOption = None,
    query_prefix: QueryPrefix = None,
    dim: Dim = None,
    head: AsHead = None,
    allow_pickle: AllowPickle = False,
    threads: Threads = CORES,
    as_json: Json = False,
) -> int:
    """Write the oracle's vectors to a file: other machines check with it, without torch or the checkpoint."""
    from bge_export.commands import write_reference

    vectors = write_reference(
        model,
        output,
        revision=revision,
        pooling=pooling,
        query_prefix=query_prefix,
        dim=dim,
        as_embedding=head == "embedding",
        allow_pickle=allow_pickle,
        texts=texts,
        column=column,
        threads=threads,
    )

    facts = {
        "path": str(output),
        "texts": len(vectors.ids),
        "source": vectors.source,
        "checkpoint_digest": vectors.checkpoint_digest,
        "texts_digest": vectors.texts_digest,
    }

    if as_json:
        print_json(facts)
    else:
        print(f"{output}: {len(vectors.ids)} vectors of {vectors.source} ({vectors.checkpoint_digest[:12]}).")
    return PASSED


def gate(
    report: Annotated[
        Path,
        typer.Argument(metavar="REPORT", exists=True, help="A parity.json, its folder, or a certificate of 'compare'."),
    ],
    texts: Texts = None,
    column: Column = None,
    require: Require = None,
    require_reference: RequireReference = None,
    thresholds: Thresholds = None,
    bundle: Annotated[
        Path | None, typer.Option(help="Folder it must be about. [default: the one the report lies in, if it is one]")
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(help="Hold the folder's small files and weights to the checkpoint, or to a reference.npz."),
    ] = None,
    revision: Revision = None,
    allow_pickle: AllowPickle = False,
    html: Html = None,
    junit: Junit = None,
    github: Annotated[
        bool, typer.Option("--github", help="Also print refusals as annotations of a GitHub run, to standard error.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Judge a report again, from its facts alone: on another machine, in another job.

    It also takes a certificate of 'bge-export compare'; --thresholds are then limits for an index.
    """
    from bge_export.bundle.integrity import MANIFEST, REPORT
    from bge_export.commands import judge_report
    from bge_export.same_index.certificate import is_certificate

    path = report / REPORT if report.is_dir() else report
    beside_a_folder = path.name == REPORT or (path.parent / MANIFEST).exists()
    if not beside_a_folder and is_certificate(path):
        _refuse_with_certificate(
            {
                "--texts": texts,
                "--column": column,
                "--require": require,
                "--require-reference": require_reference,
                "--bundle": bundle,
                "--reference": reference,
                "--revision": revision,
                "--allow-pickle": allow_pickle,
                "--html": html,
                "--junit": junit,
                "--github": github,
            }
        )
        return gate_certificate(path, thresholds, as_json=as_json)

    if not path.is_file():
        raise typer.BadParameter(
            f"{report} holds no {REPORT}. Measure it: bge-export parity {report} --reference MODEL"
        )

    proof = judge_report(
        path,
        texts=texts,
        column=column,
        require=require or (),
        require_reference=require_reference,
        thresholds=thresholds,
        bundle=bundle,
        reference=reference,
        revision=revision,
        allow_pickle=allow_pickle,
    )
    if junit is not None or github:
        show_ci(proof, junit, github=github)
    return show(proof, as_json, html, thresholds)


def _refuse_with_certificate(given: Mapping[str, object]) -> None:
    """Reject options that are about the report of a folder, for a certificate of `compare`."""
    if names := [name for name, value in given.items() if value]:
        raise typer.BadParameter(f"{', '.join(names)}: this is a certificate of 'compare', not the report of a folder")


def merge(
    reports: Annotated[
        list[Path],
        typer.Argument(metavar="REPORT…", exists=True, dir_okay=False, help="The parity.json of each machine."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The report to write.")],
    texts: Texts = None,
    column: Column = None,
    require: Require = None,
    require_reference: RequireReference = None,
    thresholds: Thresholds = None,
    html: Html = None,
    as_json: Json = False,
) -> int:
    """Join the reports of several machines into one, and judge the whole.

    Only reports of the same checkpoint, artifacts and texts, byte for byte, can be joined.
    """
    from bge_export.commands import merge_reports

    proof = merge_reports(
        reports,
        output,
        texts=texts,
        column=column,
        require=require or (),
        require_reference=require_reference,
        thresholds=thresholds,
    )
    return show(proof, as_json, html, thresholds)
