"""Command-line options that several commands share, and the exit statuses."""

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from bge_export.precision import precision_names, precisions

PASSED, REFUSED, USAGE, NOT_MEASURED = 0, 1, 2, 3
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _choices(format_name: str, *, rounded: bool) -> list[tuple[str, str]]:
    """Return the members of an option's enum: the precisions of a format with rounded weights, or the others."""
    return [(one.name, one.name) for one in precisions(format_name) if one.rounded == rounded]


if TYPE_CHECKING:
    # A type checker reads no values that are found when the program runs.
    WeightPrecision: TypeAlias = str
    Quantization: TypeAlias = str
    OpenVinoQuantization: TypeAlias = str
else:
    WeightPrecision = StrEnum("WeightPrecision", _choices("onnx", rounded=False))
    Quantization = StrEnum("Quantization", _choices("onnx", rounded=True))
    OpenVinoQuantization = StrEnum("OpenVinoQuantization", _choices("openvino", rounded=True))

DTYPES = f"Of {', '.join(precision_names('onnx'))}. Repeatable."
"""Help of an option that takes precisions of ONNX files."""


def _page(path: Path | None) -> Path | None:
    """Reject an unusable path of the HTML page before anything is measured."""
    from bge_export.parity.show.html import refuse_page

    if path is not None:
        refuse_page(path)
    return path


def _junit(path: Path | None) -> Path | None:
    """Reject an unusable path of the JUnit file before a report is read."""
    from bge_export.bundle.integrity import refuse_unknown_output
    from bge_export.parity.show.ci import refuse_junit

    if path is not None:
        refuse_junit(path)
        refuse_unknown_output(path)
    return path


ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="A Hub id, or a local checkpoint folder.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of the Hub id.")]
PoolingOption = Annotated[
    Literal["cls", "mean", "last"] | None, typer.Option(help="Pooling, for a checkpoint that declares none.")
]
Dim = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Width of the vectors, of a model whose first components are an embedding by themselves (matryoshka). "
        "[default: what the checkpoint declares]",
    ),
]
QueryPrefix = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        help="Instruction before queries, for a checkpoint that declares none; '' for none. [default: for a model of "
        "the BGE family what its authors publish]",
    ),
]
AsHead = Annotated[
    Literal["embedding"] | None,
    typer.Option(
        "--as",
        help="Embed texts with the encoder of a reranker or another model, without its head; give --pooling too.",
    ),
]
AllowPickle = Annotated[
    bool,
    typer.Option(
        "--allow-pickle",
        help="Read weights that are only there as a pickle, in a process of their own, as tensors only.",
    ),
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Folder to write. [default: ./ and the model's own name]")
]
SentenceEmbedding = Annotated[
    bool, typer.Option("--sentence-embedding", help="Add the pooled, normalised embedding as second output.")
]
Quantize = Annotated[
    list[Quantization] | None,
    typer.Option(help="Also write rounded weights, and fp32 beside them where the folder has none. Repeatable."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what bge-export wrote there before.")]
NoCheck = Annotated[bool, typer.Option("--no-check", help="Leave parity and gate out; the manifest says so.")]
Html = Annotated[
    Path | None, typer.Option("--html", callback=_page, help="Also write the report as a page for people.")
]
Junit = Annotated[Path | None, typer.Option(callback=_junit, help="Also write the verdict as a JUnit file.")]
Texts = Annotated[
    Path | None, typer.Option(help="Your own texts: .txt, .jsonl, .tsv or .csv. [default: the package's fixture texts]")
]
Column = Annotated[str | None, typer.Option(help="The column of a .tsv or .csv file that holds the texts.")]
Thresholds = Annotated[Path | None, typer.Option(help="Your own limits. [default: the package's thresholds.toml]")]
Require = Annotated[
    list[str] | None,
    typer.Option(help="Refuse unless this was measured: runtime:device or target@runtime:device. Repeatable."),
]
RequireReference = Annotated[
    Literal["checkpoint"] | None,
    typer.Option(help="Refuse lanes that were measured against vectors from a file, which may be anybody's."),
]
Threads = Annotated[int, typer.Option(min=1, help="Threads of the oracle and the runtimes.", show_default="all cores")]
ExportThreads = Annotated[
    int, typer.Option("--threads", min=1, help="Threads of export, oracle and runtimes.", show_default="all cores")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for machines.")]
