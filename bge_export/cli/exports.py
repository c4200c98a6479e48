"""The export commands: `onnx`, `torchscript`, `openvino` and `transformersjs`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bge_export.cli.options import (
    CORES,
    PASSED,
    Calibration,
    ClsOnly,
    CommonOptions,
    ExportThreads,
    Json,
    MinCosine,
    ModelArgument,
    NoCheck,
    OpenVinoQuantization,
    Output,
    Overwrite,
    PoolingOption,
    Quantize,
    Revision,
    SentenceEmbedding,
    Thresholds,
    WeightPrecision,
)
from bge_export.cli.output import names, print_json, show, show_int8
from bge_export.cli.summary import summary

if TYPE_CHECKING:
    from pathlib import Path

    from bge_export.commands import Exported
    from bge_export.contracts import Exporter
    from bge_export.precision.int8.quantize import Int8Options


def onnx(
    model: ModelArgument = "BAAI/bge-small-en",
    output: Output = None,
    precision: Annotated[
        list[WeightPrecision] | None,
        typer.Option(help="Weights that are not rounded (else see --quantize). Repeatable. [default: fp32]"),
    ] = None,
    quantize: Quantize = None,
    calibration: Calibration = None,
    cls_only: ClsOnly = False,
    min_cosine: MinCosine = None,
    sentence_embedding: SentenceEmbedding = False,
    revision: Revision = None,
    pooling: PoolingOption = None,
    overwrite: Overwrite = False,
    no_check: NoCheck = False,
    thresholds: Thresholds = None,
    threads: ExportThreads = CORES,
    as_json: Json = False,
) -> int:
    """Export a checkpoint to ONNX, and prove what was written.

    What passes the gate stands in OUTPUT; what is refused is left in OUTPUT.refused, with its report, and the exit
    status is 1.
    """
    from bge_export.exporters import find_exporter

    int8 = _int8(quantize, calibration, cls_only, min_cosine)
    exporter = find_exporter("onnx", sentence_embedding=sentence_embedding, **int8)
    common = CommonOptions(output, revision, pooling, overwrite, no_check, thresholds, threads)

    if not quantize:
        return _export(exporter, model, precision or [WeightPrecision.fp32], common, as_json)
    return _export(exporter, model, [*(precision or ()), *quantize], common, as_json, along=[WeightPrecision.fp32])


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
    threads: ExportThreads = CORES,
    as_json: Json = False,
) -> int:
    """Export a checkpoint to TorchScript (fp32), and prove what was written."""
    from bge_export.exporters import find_exporter

    exporter = find_exporter("torchscript", layout=layout, sentence_embedding=sentence_embedding)
    common = CommonOptions(output, revision, pooling, overwrite, no_check, thresholds, threads)
    return _export(exporter, model, [WeightPrecision.fp32], common, as_json)


def openvino(
    model: ModelArgument = "BAAI/bge-small-en",
    output: Output = None,
    precision: Annotated[
        list[WeightPrecision] | None, typer.Option(help="Precision of the weights. Repeatable. [default: fp32]")
    ] = None,
    quantize: Annotated[
        list[OpenVinoQuantization] | None, typer.Option(help="Also write 8-bit weights and activations.")
    ] = None,
    calibration: Calibration = None,
    cls_only: ClsOnly = False,
    min_cosine: MinCosine = None,
    static_shape: Annotated[
        str | None, typer.Option(metavar="BxS", help="Bake in batch size and length, as NPUs need: 1x512.")
    ] = None,
    sentence_embedding: SentenceEmbedding = False,
    revision: Revision = None,
    pooling: PoolingOption = None,
    overwrite: Overwrite = False,
    no_check: NoCheck = False,
    thresholds: Thresholds = None,
    threads: ExportThreads = CORES,
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

    int8 = _int8(quantize, calibration, cls_only, min_cosine)
    exporter = find_exporter("openvino", sentence_embedding=sentence_embedding, static_shape=shape, **int8)
    common = CommonOptions(output, revision, pooling, overwrite, no_check, thresholds, threads)

    if not quantize:
        return _export(exporter, model, precision or [WeightPrecision.fp32], common, as_json)
    return _export(exporter, model, [*(precision or ()), *quantize], common, as_json, along=[WeightPrecision.fp32])


def _int8(
    quantize: Sequence[str] | None, calibration: "Path | None", cls_only: bool, min_cosine: float | None
) -> "dict[str, Int8Options]":
    """Return the exporter's int8 options; empty without int8, so that its libraries need not be installed."""
    if "int8" not in (quantize or ()):
        if calibration or cls_only or min_cosine is not None:
            raise typer.BadParameter("--calibration, --cls-only and --min-cosine are about --quantize int8: add it")
        return {}

    from bge_export.precision.int8.quantize import Int8Options

    return {"int8": Int8Options(calibration, cls_only, min_cosine)}


def transformersjs(
    model: ModelArgument = "BAAI/bge-small-en",
    output: Output = None,
    dtypes: Annotated[
        list[str] | None,
        typer.Option(
            metavar="A,B,…",
            help="Of fp32, fp16, int8, q4, q4f16, bnb4, uint8, int8-dynamic. Repeatable. [default: fp32,fp16,int8]",
        ),
    ] = None,
    no_weights: Annotated[bool, typer.Option("--no-weights", help="Leave the PyTorch weights out.")] = False,
    hub_id: Annotated[str | None, typer.Option(help="The repository that the card's examples name.")] = None,
    license_name: Annotated[
        str | None, typer.Option("--license", help="The checkpoint's licence, for the card.")
    ] = None,
    revision: Revision = None,
    pooling: PoolingOption = None,
    overwrite: Overwrite = False,
    no_check: NoCheck = False,
    thresholds: Thresholds = None,
    threads: ExportThreads = CORES,
    as_json: Json = False,
) -> int:
    """Write the folder that Transformers.js loads, with weights and a model card, and prove it.

    Besides ONNX Runtime it is proven in Transformers.js 3 and 4 in Node, where 'bge-export setup-js' installed them.
    """
    from bge_export.commands import export_transformersjs

    chosen = dict.fromkeys(name for one in dtypes or () for name in names(one))
    exported = export_transformersjs(
        model,
        output,
        dtypes=list(chosen),
        weights=not no_weights,
        repository=hub_id,
        license_name=license_name,
        revision=revision,
        pooling=pooling,
        overwrite=overwrite,
        check=not no_check,
        thresholds=thresholds,
        threads=threads,
    )
    return _shown(exported, as_json)


def _export(
    exporter: "Exporter",
    model: str,
    precisions: Sequence[str],
    common: CommonOptions,
    as_json: bool,
    along: Sequence[str] = (),
) -> int:
    """Run one export command; return its exit status."""
    from bge_export.commands import export_model

    exported = export_model(
        exporter,
        model,
        common.output,
        revision=common.revision,
        pooling=common.pooling,
        precisions=precisions,
        along=along,
        overwrite=common.overwrite,
        check=not common.no_check,
        thresholds=common.thresholds,
        threads=common.threads,
    )
    return _shown(exported, as_json)


def _shown(exported: "Exported", as_json: bool) -> int:
    """Print the result of an export; return its exit status."""
    if not as_json:
        for folder in dict.fromkeys(filter(None, (exported.folder, exported.refused))):
            show_int8(folder)

    if exported.proof is None:
        if as_json:
            print_json({"folder": str(exported.folder), "checked": False})
        else:
            print(f"{exported.folder}: written, not checked (--no-check).")
        return PASSED

    if as_json:
        from bge_export.parity.show.render import as_json as to_json

        folders = {
            "folder": exported.folder,
            "refused_folder": exported.refused,
            "accepting_limits": exported.accepting,
        }
        places = {name: None if folder is None else str(folder) for name, folder in folders.items()}
        print_json({**to_json(exported.proof.report, exported.proof.verdict), **places})
        return exported.proof.verdict.exit_status

    status = show(exported.proof, as_json=False)
    for line in summary(exported):
        print(line)
    return status
