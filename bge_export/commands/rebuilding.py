"""Exports a folder's models anew from their checkpoint, as its manifest records it, and compares the bytes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bge_export.build.recipe import Output, ProofOptions, Recipe, Source
from bge_export.bundle.manifest import Manifest, Model, read_manifest
from bge_export.commands.exports import export
from bge_export.contracts import Target
from bge_export.errors import MeasurementError
from bge_export.exporters import find_exporter
from bge_export.precision.int8_options import Int8Options


@dataclass(frozen=True)
class Rebuilt:
    """One target that was exported anew.

    Attributes:
        target: the target.
        other: its files whose bytes are others, or that were not written again; none if all are the same.
        tools: the tools whose versions are not those of the manifest, each with both versions.
    """

    target: str
    other: tuple[str, ...]
    tools: tuple[str, ...]


def rebuild(folder: Path, reference: str, revision: str | None, threads: int = 1) -> Sequence[Rebuilt]:
    """Export every model of a folder anew, in another folder, and compare its files byte for byte.

    Args:
        folder: a folder that bge-export wrote.
        reference: the checkpoint that it was made of.
        revision: the checkpoint's Hub revision.
        threads: threads for the export.

    Raises:
        MeasurementError: the manifest does not hold all that the export needs.
        UsageError: the checkpoint cannot be used.
    """
    manifest = read_manifest(folder)
    results = []
    for recipe, models in _recipes(manifest, reference, revision):
        with TemporaryDirectory(prefix="bge_export-rebuild-") as name:
            out = Path(name) / "out"
            done = export(recipe.model_copy(update={"output": Output(folder=out)}), threads=threads)
            again = read_manifest(done.folder).files
        results += [_compared(model, manifest, again) for model in models]

    return sorted(results, key=lambda one: one.target)


def _recipes(manifest: Manifest, reference: str, revision: str | None) -> Sequence[tuple[Recipe, list[Model]]]:
    """Return a recipe for each set of models of one format with the same options."""
    groups: dict[str, list[Model]] = {}
    for model in manifest.models:
        key = json.dumps([model.target.partition("-")[0], _own_options(model)], sort_keys=True, default=str)
        groups.setdefault(key, []).append(model)

    return [(_recipe(models, manifest, reference, revision), models) for models in groups.values()]


def _recipe(models: Sequence[Model], manifest: Manifest, reference: str, revision: str | None) -> Recipe:
    """Return the recipe of models that were exported with the same options."""
    name = models[0].target.partition("-")[0]
    options = dict(_own_options(models[0]))
    int8 = options.pop("int8", None)
    targets = tuple(Target(name, model.target.partition("-")[2]) for model in models)

    # A model that was refused for its rounding was exported in a more accurate variant: the gate has to say so again.
    check = any(model.options.get("refused") for model in models)
    return Recipe(
        targets=targets,
        source=_source(manifest, reference, revision),
        proof=ProofOptions(check=check),
        options={name: {key: tuple(one) if isinstance(one, list) else one for key, one in options.items()}},
        int8=_int8(int8) if any(target.precision == "int8" for target in targets) else None,
    )


def _source(manifest: Manifest, reference: str, revision: str | None) -> Source:
    """Return the checkpoint, opened for what the folder promises."""
    if not manifest.spec.only_dense:
        return Source(model=reference, revision=revision)
    dense = manifest.spec.dense
    return Source(model=reference, revision=revision, pooling=dense.pooling, dim=dense.dim, head="embedding")


def _own_options(model: Model) -> Mapping[str, Any]:
    """Return those options in a manifest's record that the exporter was given; the rest was found by the export."""
    known = find_exporter(model.target.partition("-")[0]).options
    return {name: value for name, value in model.options.items() if name in known}


def _int8(record: object) -> Int8Options | None:
    """Return the options of int8 quantization from their record.

    Raises:
        MeasurementError: the texts that calibrated it are a file that the folder does not hold.
    """
    if not isinstance(record, dict):
        return None

    texts = record.get("calibration")
    if isinstance(texts, dict):
        raise MeasurementError(
            f"int8 was calibrated with {texts.get('name')}, which is not in the folder, so it cannot be made anew. "
            "Leave --rebuild out."
        )
    return Int8Options(cls_only=record.get("cls_only", False), min_cosine=record.get("min_cosine"))


def _compared(model: Model, manifest: Manifest, again: Mapping[str, str]) -> Rebuilt:
    """Return which files of a model are others now, and by which tools they were made."""
    other = tuple(name for name in model.files if again.get(name) != manifest.files[name])
    tools = tuple(
        f"{name} {_version(name)} instead of {recorded}"
        for name, recorded in sorted(model.tools.items())
        if _version(name) != recorded
    )
    return Rebuilt(model.target, other, tools)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"
