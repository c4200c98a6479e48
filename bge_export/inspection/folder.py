"""Describes a folder of artifacts, or a single model file, from its bytes. Nothing is run."""

import contextlib
from dataclasses import dataclass, field
from pathlib import Path

from bge_export.bundle.manifest import Manifest, read_bundle
from bge_export.errors import ArtifactError, MissingLibrary
from bge_export.formats import GraphFacts, find_format, format_of, formats
from bge_export.saturation import PairFacts, checked_formats, facts_of


@dataclass(frozen=True)
class ModelFacts:
    """The check of a file's int8 weights against the saturation constraint, in a format whose graphs are not shown."""

    path: str
    pairs: PairFacts


@dataclass(frozen=True)
class FolderFacts:
    """A folder's manifest (reading it verifies the digests), its graphs, and its models of other formats."""

    manifest: Manifest | None
    graphs: tuple[GraphFacts, ...]
    models: tuple[ModelFacts, ...] = ()
    target: tuple[str, ...] = field(default=())


def inspect_path(path: Path) -> FolderFacts:
    """Return the facts of the folder or the file at `path`.

    Raises:
        ArtifactError: the path does not exist, a file is damaged or of no format that can be looked at, or its bytes do
            not match the manifest.
        MissingLibrary: the library that shows a graph is not installed; or any that reads the format, for one file.
    """
    if path.is_file():
        return _one_file(path)
    if not path.is_dir():
        raise ArtifactError(f"{path} does not exist. Give a folder that bge-export wrote, or a {_known()} file.")

    manifest, artifacts = read_bundle(path)
    graphs, models = [], []
    for item in artifacts:
        look = find_format(item.target.format).look
        if look is not None:
            graphs.append(look(path / item.model, item.model))
        elif item.target.format in checked_formats():
            with contextlib.suppress(MissingLibrary):  # the rest of the folder can still be shown
                models.append(ModelFacts(item.model, facts_of(path / item.model, item.target.format)))

    return FolderFacts(manifest, tuple(graphs), tuple(models), tuple(str(item.target) for item in artifacts))


def _one_file(path: Path) -> FolderFacts:
    name = format_of(path)
    look = find_format(name).look if name is not None else None

    if look is not None:
        return FolderFacts(None, (look(path, path.name),))
    if name is None or name not in checked_formats():
        raise ArtifactError(
            f"{path} cannot be looked at by itself: only {_known()} files can. Give the folder that holds it."
        )
    return FolderFacts(None, (), (ModelFacts(path.name, facts_of(path, name)),))


def _known() -> str:
    """Return the suffixes of the files that can be looked at."""
    shown = (one.suffixes[0] for name, one in formats().items() if one.look or name in checked_formats())
    return " or ".join(shown)
