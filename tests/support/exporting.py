"""Short forms of a recipe for tests: one exporter, or the folder for Transformers.js."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from bge_export.build.recipe import JavaScriptFolder, Output, ProofOptions, Recipe, Source
from bge_export.commands import Exported, export
from bge_export.contracts import Exporter, Pooling, Target


def export_model(
    exporter: Exporter,
    model: str,
    out: Path | None = None,
    *,
    precisions: Sequence[str] = ("fp32",),
    along: Sequence[str] = (),
    revision: str | None = None,
    pooling: Pooling | None = None,
    overwrite: bool = False,
    check: bool = True,
    thresholds: Path | None = None,
    threads: int = 1,
) -> Exported:
    """Export with the options of an exporter."""
    options: dict[str, Any] = {field.name: getattr(exporter, field.name) for field in fields(exporter)}  # type: ignore[arg-type]
    int8 = options.pop("int8", None)
    recipe = Recipe(
        targets=tuple(Target(exporter.format, precision) for precision in precisions),
        source=Source(model=model, revision=revision, pooling=pooling),
        beside=tuple(Target(exporter.format, precision) for precision in along),
        output=Output(folder=out, overwrite=overwrite),
        proof=ProofOptions(check=check, thresholds=thresholds),
        options={exporter.format: options},
        int8=int8 if "int8" in precisions else None,
    )
    return export(recipe, threads=threads)


def export_transformersjs(
    model: str,
    out: Path,
    *,
    dtypes: Sequence[str] = ("fp32", "fp16", "int8"),
    weights: bool = True,
    repository: str | None = None,
    license_name: str | None = None,
    overwrite: bool = False,
    check: bool = True,
    thresholds: Path | None = None,
    threads: int = 1,
) -> Exported:
    """Write the folder for Transformers.js."""
    recipe = Recipe(
        targets=tuple(Target("onnx", dtype) for dtype in dtypes),
        source=Source(model=model),
        output=Output(folder=out, overwrite=overwrite),
        proof=ProofOptions(check=check, thresholds=thresholds),
        transformersjs=JavaScriptFolder(weights=weights, repository=repository, license=license_name),
    )
    return export(recipe, threads=threads)


def export_recipe(model: Path, out: Path, targets: Sequence[str]) -> Exported:
    """Export a checkpoint to targets written like `onnx:fp32`."""
    parts = [Target(*target.split(":")) for target in targets]
    return export(Recipe(targets=tuple(parts), source=Source(model=str(model)), output=Output(folder=out)), threads=1)
