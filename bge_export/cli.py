"""The command line: parse, one call into `commands`, render, exit status. Sole user of print, environment and exit.

Exit status: 0 passed, 1 refused, 2 usage, 3 could not measure. Anything unforeseen is a 3, never a 0 or a 1.
Results go to standard output, progress and errors to standard error.
"""

import errno
import gc
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer
from rich.console import Console

from bge_export.errors import BgeExportError

if TYPE_CHECKING:
    from bge_export.commands import Proof
    from bge_export.contracts import Exporter

PASSED, REFUSED, USAGE, NOT_MEASURED = 0, 1, 2, 3
NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
DEBUG = "BGE_EXPORT_DEBUG"
UsageProblem: type[Exception] = typer.BadParameter.__bases__[0]
"""click's UsageError, which typer keeps to itself."""

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Exports sentence-embedding checkpoints and proves that every artifact gives the same embeddings.",
    epilog="Exit status: 0 passed, 1 refused, 2 usage, 3 could not measure.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
err = Console(stderr=True)
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class WeightPrecision(StrEnum):
    """Precisions of the exporters."""

    fp32 = "fp32"
    fp16 = "fp16"


@dataclass(frozen=True)
class CommonOptions:
    """What every export command takes."""

    output: Path | None
    revision: str | None
    pooling: Literal["cls", "mean", "last"] | None
    overwrite: bool
    no_check: bool
    thresholds: Path | None
    threads: int


ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="A Hub id, or a local checkpoint folder.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of the Hub id.")]
PoolingOption = Annotated[
    Literal["cls", "mean", "last"] | None, typer.Option(help="Pooling, for a checkpoint that declares none.")
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Folder to write. [default: ./ and the model's own name]")
]
SentenceEmbedding = Annotated[
    bool, typer.Option("--sentence-embedding", help="Add the pooled, normalised embedding as second output.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what bge-export wrote there before.")]
NoCheck = Annotated[bool, typer.Option("--no-check", help="Leave parity and gate out; the manifest says so.")]
Html = Annotated[Path | None, typer.Option("--html", help="Also write the report as a page for people.")]
Texts = Annotated[
    Path | None, typer.Option(help="Your own texts: .txt, .jsonl or .tsv. [default: the package's fixture texts]")
]
Column = Annotated[str | None, typer.Option(help="The column of a .tsv file that holds the texts.")]
Thresholds = Annotated[Path | None, typer.Option(help="Your own limits. [default: the package's thresholds.toml]")]
Require = Annotated[
    list[str] | None,
    typer.Option(help="Refuse unless this was measured: runtime:device or target@runtime:device. Repeatable."),
]
Threads = Annotated[int, typer.Option(min=1, help="Threads of the oracle and the runtimes.", show_default="all cores")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for machines.")]


@app.command()
def onnx(
    model: ModelArgument = "BAAI/bge-small-en",
    output: Output = None,
    precision: Annotated[list[WeightPrecision] | None, typer.Option(help="Repeatable. [default: fp32]")] = None,
    sentence_embedding: SentenceEmbedding = False,
    revision: Revision = None,
    pooling: PoolingOption = None,
    overwrite: Overwrite = False,
    no_check: NoCheck = False,
    thresholds: Thresholds = None,
    threads: Threads = CORES,
    as_json: Json = False,
) -> int:
    """Export a checkpoint to ONNX, and prove what was written.

    The folder appears only if it passes the gate; otherwise it is left as OUTPUT.refused, with its report.
    """
    from bge_export.exporters import find_exporter

    exporter = find_exporter("onnx", sentence_embedding=sentence_embedding)
    common = CommonOptions(output, revision, pooling, overwrite, no_check, thresholds, threads)
    return _export(exporter, model, precision or [WeightPrecision.fp32], common, as_json)


@app.command()
def torchscript(
    model: ModelArgument = "BAAI/bge-small-en",
    output: Output = None,
    layout: Annotated[
        Literal["plain", "eland"],
        typer.Option(help="plain: inputs and outputs as for ONNX. eland: the form Elasticsearch's importer expects."),
    ] = "plain",
    sentence_embedding: SentenceEmbedding = False,
    revision: Revision = None,
    pooling: PoolingOption = None,
    overwrite: Overwrite = False,
    no_check: NoCheck = False,
    thresholds: Thresholds = None,
    threads: Threads = CORES,
    as_json: Json = False,
) -> int:
    """Export a checkpoint to TorchScript (fp32), and prove what was written."""
    from bge_export.exporters import find_exporter

    exporter = find_exporter("torchscript", layout=layout, sentence_embedding=sentence_embedding)
    common = CommonOptions(output, revision, pooling, overwrite, no_check, thresholds, threads)
    return _export(exporter, model, [WeightPrecision.fp32], common, as_json)


@app.command()
def openvino(
    model: ModelArgument = "BAAI/bge-small-en",
    output: Output = None,
    precision: Annotated[
        list[WeightPrecision] | None, typer.Option(help="Precision of the weights. Repeatable. [default: fp32]")
    ] = None,
    static_shape: Annotated[
        str | None, typer.Option(metavar="BxS", help="Bake in batch size and length, as NPUs need: 1x512.")
    ] = None,
    sentence_embedding: SentenceEmbedding = False,
    revision: Revision = None,
    pooling: PoolingOption = None,
    overwrite: Overwrite = False,
    no_check: NoCheck = False,
    thresholds: Thresholds = None,
    threads: Threads = CORES,
    as_json: Json = False,
) -> int:
    """Export a checkpoint to OpenVINO, and prove what was written."""
    from bge_export.exporters import find_exporter

    shape = None
    if static_shape is not None:
        rows, x, length = static_shape.partition("x")
        if not (x and rows.isdigit() and length.isdigit() and int(rows) and int(length)):
            raise typer.BadParameter(f"--static-shape is {static_shape!r}, not a batch size and a length such as 1x512")
        shape = (int(rows), int(length))
    exporter = find_exporter("openvino", sentence_embedding=sentence_embedding, static_shape=shape)
    common = CommonOptions(output, revision, pooling, overwrite, no_check, thresholds, threads)
    return _export(exporter, model, precision or [WeightPrecision.fp32], common, as_json)


@app.command()
def parity(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder that bge-export wrote.")],
    reference: Annotated[
        str, typer.Option(help="The checkpoint (Hub id or folder), or a .npz file of 'bge-export reference'.")
    ],
    texts: Texts = None,
    column: Column = None,
    runtime: Annotated[
        list[str] | None, typer.Option(help="Runtime that must run. Repeatable. [default: all that are installed]")
    ] = None,
    device: Annotated[list[str] | None, typer.Option(help="Device for --runtime. Repeatable. [default: cpu]")] = None,
    require: Require = None,
    revision: Revision = None,
    thresholds: Thresholds = None,
    report: Annotated[
        Path | None, typer.Option(help="Where to write the report. [default: parity.json in the folder]")
    ] = None,
    html: Html = None,
    threads: Threads = CORES,
    as_json: Json = False,
) -> int:
    """Measure every artifact of a folder against the reference, and judge it.

    Without --runtime all that this machine can run is measured, and of the rest the table says why not. The runtime
    'torch' is the checkpoint itself on another device, and in half precisions.
    """
    from bge_export.commands import check_parity

    if device and not runtime:
        raise typer.BadParameter("--device needs --runtime")
    lanes = [f"{name}:{place}" for name in runtime or [] for place in device or ["cpu"]]
    proof = check_parity(
        folder, reference, revision=revision, texts=texts, column=column, lanes=lanes, require=require or (),
        thresholds=thresholds, report_path=report, threads=threads, track=_track,
    )  # fmt: skip
    return _show(proof, as_json, html, thresholds)


@app.command()
def reference(
    model: ModelArgument = "BAAI/bge-small-en",
    output: Annotated[Path, typer.Option("--output", "-o", help="The .npz file to write.")] = Path("reference.npz"),
    texts: Texts = None,
    column: Column = None,
    revision: Revision = None,
    pooling: PoolingOption = None,
    threads: Threads = CORES,
    as_json: Json = False,
) -> int:
    """Write the oracle's vectors to a file: other machines check with it, without torch or the checkpoint."""
    from bge_export.commands import write_reference

    vectors = write_reference(
        model, output, revision=revision, pooling=pooling, texts=texts, column=column,
        threads=threads, track=_track,
    )  # fmt: skip
    facts = {
        "place": str(output), "texts": len(vectors.ids), "source": vectors.source,
        "checkpoint_digest": vectors.checkpoint_digest, "texts_digest": vectors.texts_digest,
    }  # fmt: skip
    if as_json:
        _print_json(facts)
    else:
        print(f"{output}: {len(vectors.ids)} vectors of {vectors.source} ({vectors.checkpoint_digest[:12]}).")
    return PASSED


@app.command()
def gate(
    report: Annotated[Path, typer.Argument(metavar="REPORT", help="A parity.json.")],
    texts: Texts = None,
    column: Column = None,
    require: Require = None,
    thresholds: Thresholds = None,
    bundle: Annotated[
        Path | None, typer.Option(help="Folder it must be about. [default: the one the report lies in, if it is one]")
    ] = None,
    html: Html = None,
    as_json: Json = False,
) -> int:
    """Judge a report again, from its facts alone: on another machine, in another job."""
    from bge_export.commands import judge_report

    proof = judge_report(
        report, texts=texts, column=column, require=require or (), thresholds=thresholds, bundle=bundle
    )
    return _show(proof, as_json, html, thresholds)


@app.command()
def merge(
    reports: Annotated[list[Path], typer.Argument(metavar="REPORT…", help="The parity.json of each machine.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The report to write.")],
    texts: Texts = None,
    column: Column = None,
    require: Require = None,
    thresholds: Thresholds = None,
    html: Html = None,
    as_json: Json = False,
) -> int:
    """Join the reports of several machines into one, and judge the whole.

    Only reports of the same checkpoint, artifacts and texts, byte for byte, can be joined.
    """
    from bge_export.commands import merge_reports

    proof = merge_reports(reports, output, texts=texts, column=column, require=require or (), thresholds=thresholds)
    return _show(proof, as_json, html, thresholds)


@app.command()
def bisect(
    path: Annotated[Path, typer.Argument(metavar="MODEL_FILE", help="For example out/onnx/model.onnx.")],
    reference: Annotated[str, typer.Option(help="The checkpoint it was made of: a Hub id or a folder.")],
    text: Annotated[str, typer.Option(help="The text on which it drifts.")],
    limit: Annotated[
        float | None, typer.Option(help="Smallest cosine of a token's state. [default: the target's min_cosine]")
    ] = None,
    revision: Revision = None,
    thresholds: Thresholds = None,
    as_json: Json = False,
) -> int:
    """Find the layer where an artifact drifts from its checkpoint. Exit status 1 if one leaves the limit."""
    from bge_export.commands import bisect_artifact
    from bge_export.render import render_drift

    drift = bisect_artifact(path, reference, text, revision=revision, limit=limit, thresholds=thresholds)
    if as_json:
        first = drift.first.layer if drift.first else None
        layers = [{**asdict(one), "cosine": one.cosine if one.cosine == one.cosine else None} for one in drift.layers]
        _print_json({"target": drift.target, "limit": drift.limit, "first": first, "layers": layers})
    else:
        _out().print(render_drift(drift))
    return REFUSED if drift.first else PASSED


@app.command()
def evaluate(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder that bge-export wrote.")],
    pairs: Annotated[Path, typer.Option(help="A .tsv file with the columns score, sentence1, sentence2.")],
    runtime: Annotated[str, typer.Option(help="Runtime to embed with.")] = "onnxruntime",
    device: Annotated[str, typer.Option(help="Its device.")] = "cpu",
    threads: Threads = CORES,
    as_json: Json = False,
) -> int:
    """Score artifacts on a task: Spearman x 100 of cosines with human scores, as MTEB's STS tasks."""
    from bge_export.commands import evaluate_pairs

    scores = evaluate_pairs(folder, pairs, runtime=runtime, device=device, threads=threads, track=_track)
    if as_json:
        _print_json([asdict(score) for score in scores])
    for score in scores if not as_json else ():
        print(f"{score.target} {score.output} {score.runtime}:{score.device} {score.pairs} pairs {score.spearman:.4f}")
    return PASSED


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A folder that bge-export wrote, or an .onnx file.")],
    as_json: Json = False,
) -> int:
    """Say what an artifact is: format, graph, weights, promise, origin. Its digests are verified."""
    from bge_export.inspection import inspect_path
    from bge_export.render import render_folder

    facts = inspect_path(path)
    if as_json:
        manifest = None if facts.manifest is None else facts.manifest.model_dump(by_alias=True)
        _print_json({"manifest": manifest, "graphs": [asdict(graph) for graph in facts.graphs]})
    else:
        _out().print(render_folder(facts))
    return PASSED


@app.command()
def doctor(as_json: Json = False) -> int:
    """Say what this machine can run, and the command that installs what is missing."""
    from bge_export.doctor import examine_machine
    from bge_export.render import render_machine

    facts = examine_machine()
    if as_json:
        _print_json(asdict(facts))
    else:
        _out().print(render_machine(facts))
    return PASSED


def _export(exporter: "Exporter", model: str, precisions: Sequence[str], common: CommonOptions, as_json: bool) -> int:
    """Run one export command; return its exit status."""
    from bge_export.commands import export_model

    exported = export_model(
        exporter, model, common.output, revision=common.revision, pooling=common.pooling, precisions=precisions,
        overwrite=common.overwrite, check=not common.no_check, thresholds=common.thresholds, threads=common.threads,
        track=_track,
    )  # fmt: skip
    if exported.proof is None:
        if as_json:
            _print_json({"place": str(exported.place), "checked": False})
        else:
            print(f"{exported.place}: written, not checked (--no-check).")
        return PASSED
    status = _show(exported.proof, as_json)
    if not as_json:
        print(f"{exported.place}: {'proven' if status == PASSED else 'refused; the folder is left here to look at'}.")
    return status


def _show(proof: "Proof", as_json: bool, html: Path | None = None, thresholds: Path | None = None) -> int:
    """Print a report with its verdict; return the exit status that the verdict is."""
    from bge_export.parity.render import as_json as to_json
    from bge_export.parity.render import render

    if html is not None:
        from bge_export.commands import read_policy
        from bge_export.parity.html import render_html

        html.write_text(render_html(proof.report, proof.verdict, read_policy(thresholds)), "utf-8")

    if as_json:
        _print_json(to_json(proof.report, proof.verdict))
    else:
        _out().print(render(proof.report, proof.verdict))
    return proof.verdict.exit_status


def _out() -> Console:
    """Return the console of standard output; a pipe or file gets wide lines rather than folded ones."""
    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=160)


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


@contextmanager
def _track(name: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a stage on standard error: a bar on a terminal, a line otherwise."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    if not err.is_terminal:
        err.print(f"{name} …", highlight=False, markup=False, soft_wrap=True)
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task(name, total=total)
        yield lambda count: progress.advance(task, count)


def main() -> NoReturn:
    """Run the command line and exit with its status."""
    # Importing torch and transformers makes a million objects and no garbage: looking for some costs 10 % of an export.
    # What does make large circles (graphs) collects by itself.
    gc.disable()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that a stopped job cleans up as Ctrl-C does
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command; return its exit status whatever happens."""
    try:
        status = app(arguments, standalone_mode=False)
        sys.stdout.flush()
    except UsageProblem as error:
        describe: Callable[[], str] = getattr(error, "format_message", error.__str__)
        return _complain(describe(), USAGE, "Try --help.")
    except typer.Abort:
        return _interrupted()
    except BgeExportError as error:
        _traceback()
        return _complain(str(error), error.exit_status)
    except (KeyboardInterrupt, SystemExit):
        return _interrupted()
    except OSError as error:
        _traceback()
        if error.errno in NO_SPACE:
            return _complain(f"No space left: {error}. Nothing was left behind.", NOT_MEASURED, "Free some space.")
        return _complain(f"{error}. Nothing was left behind.", NOT_MEASURED)
    except Exception as error:  # noqa: BLE001 - a traceback's status is 1, which would read as a verdict
        _traceback()
        return _complain(f"unexpected {type(error).__name__}: {error}", NOT_MEASURED, f"Set {DEBUG}=1 for a traceback.")
    return _interrupted() if status == 128 + signal.SIGINT else int(status or 0)


def _interrupted() -> int:
    return _complain("interrupted. Nothing was left behind.", NOT_MEASURED)


def _complain(message: str, status: int, hint: str = "") -> int:
    """Print an error; return its status."""
    text = f"{message} {hint}".strip()
    err.print("[bold red]error:[/] ", end="")
    err.print(text, highlight=False, markup=False, soft_wrap=True)
    return status


def _traceback() -> None:
    if os.environ.get(DEBUG):
        traceback.print_exc()
