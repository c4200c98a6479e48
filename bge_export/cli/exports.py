"""The export commands: `export`, and its short names `onnx`, `torchscript`, `openvino` and `transformersjs`.

Each parses its options into a recipe and calls `commands.export`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bge_export.cli.export_options import ExportOptions, FolderChoices, Int8Choices, with_options
from bge_export.cli.hints import dtype_hint
from bge_export.cli.options import (
    DTYPES,
    PASSED,
    ModelArgument,
    OpenVinoQuantization,
    Quantize,
    SentenceEmbedding,
    WeightPrecision,
)
from bge_export.cli.output import names, print_json, print_notes, show, show_int8
from bge_export.cli.summary import next_steps, summary
from bge_export.precision import precision_names

if TYPE_CHECKING:
    from bge_export.build.recipe import Recipe
    from bge_export.commands import Exported

DEFAULT_DTYPES = ("fp32", "fp16", "int8")
"""Default precisions of the folder for Transformers.js; clients load the `int8` file as `dtype: 'q8'`."""


@with_options
def export(
    options: ExportOptions,
    int8: Int8Choices,
    beside: FolderChoices,
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="A Hub id, or a local checkpoint folder.", show_default=False)
    ] = None,
    to: Annotated[
        list[str] | None, typer.Option(metavar="FORMAT:PRECISION", help="What to write: onnx:int8. Repeatable.")
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="A TOML file that says all of it, in place of MODEL and the other options.")
    ] = None,
    write_recipe: Annotated[
        Path | None, typer.Option(help="Write this command as a recipe to a new TOML file, and export nothing.")
    ] = None,
    sentence_embedding: SentenceEmbedding = False,
) -> int:
    """Export a checkpoint to any formats and precisions in one folder, and prove what was written.

    What passes the gate stands in OUTPUT; what is refused is left in OUTPUT.refused, with its report, and the exit
    status is 1.
    """
    from bge_export.build import recipe_file as recipes

    if recipe is not None:
        if (
            model is not None
            or to
            or sentence_embedding
            or write_recipe
            or int8.given
            or beside.with_weights
            or options.given
        ):
            raise typer.BadParameter("--recipe says it all: give only --threads and --json beside it")
        return _export(recipes.read_recipe(recipe), options)

    if model is None or not to:
        raise typer.BadParameter("Give MODEL and --to, as in 'bge-export export MODEL --to onnx:int8', or --recipe")

    formats = dict.fromkeys(target.partition(":")[0] for target in to)
    table = {
        "targets": to,
        "options": {name: {"sentence_embedding": True} for name in formats if sentence_embedding},
    }
    made = _recipe(model, table, options, int8, beside)
    if write_recipe is None:
        return _export(made, options)

    recipes.write_recipe(made, write_recipe)
    print(f"{write_recipe}: written. Export it with: bge-export export --recipe {write_recipe}")
    return PASSED


@with_options
def onnx(
    options: ExportOptions,
    int8: Int8Choices,
    beside: FolderChoices,
    model: ModelArgument = "BAAI/bge-small-en",
    precision: Annotated[
        list[WeightPrecision] | None,
        typer.Option(help="Weights that are not rounded (else see --quantize). Repeatable. [default: fp32]"),
    ] = None,
    quantize: Quantize = None,
    sentence_embedding: SentenceEmbedding = False,
) -> int:
    """Export a checkpoint to ONNX, and prove what was written.

    What passes the gate stands in OUTPUT; what is refused is left in OUTPUT.refused, with its report, and the exit
    status is 1.
    """
    table = _targets("onnx", precision, quantize)
    table["options"] = {"onnx": {"sentence_embedding": sentence_embedding}}
    return _export(_recipe(model, table, options, int8, beside), options)


@with_options
def torchscript(
    options: ExportOptions,
    beside: FolderChoices,
    model: ModelArgument = "BAAI/bge-small-en",
    layout: Annotated[
        Literal["plain", "eland"],
        typer.Option(help="plain: inputs and outputs as for ONNX. eland: the form Elasticsearch's importer expects."),
    ] = "plain",
    sentence_embedding: SentenceEmbedding = False,
) -> int:
    """Export a checkpoint to TorchScript (fp32), and prove what was written."""
    own = {"layout": layout, "sentence_embedding": sentence_embedding}
    table = {"targets": ["torchscript:fp32"], "options": {"torchscript": own}}
    return _export(_recipe(model, table, options, beside=beside), options)


@with_options
def openvino(
    options: ExportOptions,
    int8: Int8Choices,
    beside: FolderChoices,
    model: ModelArgument = "BAAI/bge-small-en",
    precision: Annotated[
        list[WeightPrecision] | None, typer.Option(help="Precision of the weights. Repeatable. [default: fp32]")
    ] = None,
    quantize: Annotated[
        list[OpenVinoQuantization] | None, typer.Option(help="Also write 8-bit weights and activations.")
    ] = None,
    static_shape: Annotated[
        str | None, typer.Option(metavar="BxS", help="Bake in batch size and length, as NPUs need: 1x512.")
    ] = None,
    sentence_embedding: SentenceEmbedding = False,
) -> int:
    """Export a checkpoint to OpenVINO, and prove what was written."""
    own: dict[str, object] = {"sentence_embedding": sentence_embedding}
    if static_shape is not None:
        rows, x, length = static_shape.partition("x")
        if not (x and rows.isdigit() and length.isdigit() and int(rows) and int(length)):
            raise typer.BadParameter(f"--static-shape is {static_shape!r}, not a batch size and a length such as 1x512")
        own["static_shape"] = (int(rows), int(length))

    table = _targets("openvino", precision, quantize)
    table["options"] = {"openvino": own}
    return _export(_recipe(model, table, options, int8, beside), options)


@with_options
def transformersjs(
    options: ExportOptions,
    model: ModelArgument = "BAAI/bge-small-en",
    dtypes: Annotated[
        list[str] | None,
        typer.Option(metavar="A,B,…", help=f"{DTYPES} [default: {','.join(DEFAULT_DTYPES)}]"),
    ] = None,
    no_weights: Annotated[bool, typer.Option("--no-weights", help="Leave the PyTorch weights out.")] = False,
    hub_id: Annotated[str | None, typer.Option(help="The repository that the card's examples name.")] = None,
    license_name: Annotated[
        str | None, typer.Option("--license", help="The checkpoint's licence, for the card.")
    ] = None,
) -> int:
    """Write the folder that Transformers.js loads, with weights and a model card, and prove it.

    Besides ONNX Runtime it is proven in Transformers.js 3 and 4 in Node, where 'bge-export setup-js' installed them.
    """
    chosen = dict.fromkeys(name for one in dtypes or () for name in names(one))
    if unknown := [name for name in chosen if name not in precision_names("onnx")]:
        meant = dtype_hint(unknown[0]) or ", ".join(precision_names("onnx"))
        raise typer.BadParameter(f"--dtypes: there is no {unknown[0]!r}: {meant}")

    table = {
        "targets": [f"onnx:{dtype}" for dtype in chosen or DEFAULT_DTYPES],
        "transformersjs": {"weights": not no_weights, "repository": hub_id, "license": license_name},
    }
    return _export(_recipe(model, table, options), options)


def _targets(name: str, precision: Sequence[str] | None, quantize: Sequence[str] | None) -> dict[str, Any]:
    """Return the targets of one format; with rounded weights, fp32 stands beside them."""
    plain = precision or ([] if quantize else ["fp32"])
    targets = [f"{name}:{one}" for one in (*plain, *(quantize or ()))]
    return {"targets": list(dict.fromkeys(targets)), "beside": [f"{name}:fp32"] if quantize else []}


def _recipe(
    model: str,
    table: dict[str, Any],
    options: ExportOptions,
    int8: Int8Choices | None = None,
    beside: FolderChoices | None = None,
) -> "Recipe":
    """Return the recipe of a command: its own table, completed by the options of every export."""
    from pydantic import ValidationError

    from bge_export.build.part import reason_of
    from bge_export.build.recipe import Recipe

    wanted = {**table, **options.table(model)}
    wanted["output"]["weights"] = beside is not None and beside.with_weights
    if int8 is not None and int8.given:
        if not any(target.endswith(":int8") for target in table["targets"]):
            raise typer.BadParameter(
                "--calibration, --cls-only and --min-cosine are about int8: add --quantize int8, or --to onnx:int8"
            )
        wanted["int8"] = int8.table()

    try:
        return Recipe.model_validate(wanted)
    except ValidationError as error:
        raise typer.BadParameter(reason_of(error, Recipe)) from error


def _export(recipe: "Recipe", options: ExportOptions) -> int:
    """Run one export, and print its result; return its exit status."""
    from bge_export.commands import export as export_recipe

    return _shown(export_recipe(recipe, threads=options.threads), options.as_json)


def _shown(exported: "Exported", as_json: bool) -> int:
    """Print the result of an export; return its exit status."""
    print_notes(exported.notes)
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
        paths = {name: None if folder is None else str(folder) for name, folder in folders.items()}
        print_json({**to_json(exported.proof.report, exported.proof.verdict), **paths})
        return exported.proof.verdict.exit_status

    status = show(exported.proof, as_json=False)
    for line in summary(exported):
        print(line)
    print_notes(next_steps(exported))
    return status
