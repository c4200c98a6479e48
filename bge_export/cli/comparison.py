"""The `compare` command, and how `gate` shows a certificate of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bge_export.cli.options import CORES, PASSED, REFUSED, Column, Json, Threads
from bge_export.cli.output import print_json

if TYPE_CHECKING:
    from bge_export.same_index.certificate import Certificate
    from bge_export.same_index.limits import Reason


def compare(
    new: Annotated[
        Path, typer.Argument(metavar="OUT", exists=True, help="Folder or model file of the artifact that takes over.")
    ],
    texts: Annotated[Path, typer.Option(help="Texts that both embed: .txt, .jsonl, .tsv or .csv, 20 or more.")],
    old: Annotated[
        Path | None, typer.Argument(metavar="OTHER", exists=True, help="Folder or model file of the other artifact.")
    ] = None,
    against_index: Annotated[
        Path | None,
        typer.Option(
            metavar="VECTORS.npy", help="The vectors that an index was built with, one row for each text, instead."
        ),
    ] = None,
    queries: Annotated[
        Path | None, typer.Option(help="Queries that are searched for. [default: every text searches for the others]")
    ] = None,
    column: Column = None,
    target: Annotated[
        str | None, typer.Option(help="The artifact of OUT. [default: onnx-fp32, or the only one]")
    ] = None,
    other_target: Annotated[str | None, typer.Option(help="The same of OTHER.")] = None,
    limits: Annotated[
        Path | None, typer.Option(help="Your own limits. [default: the package's same_index.toml]")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the certificate, which 'gate' reads again.")
    ] = None,
    threads: Threads = CORES,
    as_json: Json = False,
) -> int:
    """Say whether two artifacts, or an artifact and an index's vectors, may share an index.

    Another width, pooling, normalisation or prompt refuses at once. Else cosines, nearest neighbours, ranks and
    similarities are compared on your texts. For example:

    bge-export compare out/onnx/model_quantized.onnx out/onnx/model.onnx --texts passages.txt -o swap.json

    bge-export compare out --against-index vectors.npy --texts passages.txt --queries queries.txt
    """
    from bge_export.commands.comparing import CompareOptions
    from bge_export.commands.comparing import compare as compare_them
    from bge_export.same_index.limits import Reason

    certificate = compare_them(
        new,
        old,
        texts,
        index=against_index,
        options=CompareOptions(target, other_target, column, queries, limits, output, threads),
    )
    reasons = [Reason(one.rule, one.got, one.needed) for one in certificate.reasons]
    if as_json:
        print_json(certificate.model_dump(mode="json", by_alias=True))
    else:
        _print(certificate, reasons)
    return REFUSED if reasons else PASSED


def gate_certificate(path: Path, limits: Path | None, *, as_json: bool) -> int:
    """Judge a certificate again, print the verdict, and return the exit status."""
    from bge_export.commands.comparing import judge_certificate

    certificate, reasons = judge_certificate(path, limits)
    if as_json:
        said = certificate.model_dump(mode="json", by_alias=True)
        print_json({"passed": not reasons, "reasons": [vars(one) for one in reasons], "certificate": said})
    else:
        _print(certificate, reasons)
    return REFUSED if reasons else PASSED


def _print(certificate: "Certificate", reasons: "Sequence[Reason]") -> None:
    """Print both sides, the figures and the verdict."""
    print(f"new  {certificate.new}")
    print(f"old  {certificate.old}")

    if (figures := certificate.figures) is not None:
        print(f"{figures.texts} texts, {figures.queries} searches")
        print(
            f"cosine of a text's two vectors    smallest {figures.min_cosine:.7f}, of {figures.worst!r}; "
            f"mean {figures.mean_cosine:.7f}"
        )
        print(
            f"ten nearest neighbours            mean share kept {figures.mean_overlap:.4f}, smallest "
            f"{figures.min_overlap:.2f}; the nearest kept by {figures.first_kept:.4f} of the searches"
        )
        print(
            f"largest change                    {figures.largest_rank_change} ranks among these ten; similarity of "
            f"two texts {figures.largest_similarity_change:.6f}"
        )

    for one in reasons:
        print(str(one))
    print("REFUSED: they may not share an index." if reasons else "PASSED: they may share an index.")
