"""The formats of model files as they are read, one module each, found by its name; listing them imports no library.

A format is three files of one name: `exporters/` writes it, `formats/` reads it, `runtimes/` runs it. An exporter or a
runtime may be missing on a machine; what a file is can be told by its format alone.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path, PurePath

from bge_export.contracts import Artifact
from bge_export.errors import ArtifactError
from bge_export.formats.contents import Contents
from bge_export.plugins import find, names
from bge_export.saturation import PairFacts

HELPERS = frozenset({"contents"})
"""Modules of the room that are not formats."""

SHARE = 0.05
"""Smallest share of all weights at which a type counts. Scales, biases and normalisations stay wide in any file."""

NARROWEST_FIRST = ("int4", "int8", "fp16", "bf16", "fp32")


@dataclass(frozen=True)
class ModelFile:
    """What one model file says of itself.

    Attributes:
        precision: the type of its weights (`NARROWEST_FIRST`); `unknown` if none of these.
        inputs, outputs: names of the graph's inputs and outputs.
        files: the model file and every file that it needs, relative to its folder, the model file first.
    """

    precision: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    files: tuple[str, ...]


@dataclass(frozen=True)
class GraphFacts:
    """The content of one file in detail: versions, inputs and outputs, operators, weights."""

    path: str
    size_bytes: int
    opset: str
    ir_version: int
    producer: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    operators: dict[str, int]
    weights: dict[str, int]
    """Bytes of the initializers by element type."""
    external_data: bool
    pairs: PairFacts
    """The check of its int8 weights against the saturation constraint."""


@dataclass(frozen=True)
class Format:
    """A format, by the files that belong to a model of it.

    A module `formats/<name>.py` holds one as the constant `FORMAT`, and imports the format's library only inside the
    functions that need it.

    Attributes:
        suffixes: patterns of the suffixes of its files, in lower case; the first one is of the file that a runtime
            opens, without wildcards.
        runtimes: the runtimes that an export is proven in, where they are installed.
        read: returns what a file without a manifest says of itself; None if only a manifest tells. It raises
            ArtifactError for a file that is not of the format, and MissingLibrary.
        look: returns the graph of a file (its path, and the name to give) for `inspect`; None if that shows none. It
            raises as `read` does.
        contents: returns what a file holds, from its bytes and without the format's library, for the gate; None if it
            cannot ask. It raises OSError, and ValueError for a file that is not of the format.
    """

    suffixes: tuple[str, ...]
    runtimes: tuple[str, ...]
    read: Callable[[Path], ModelFile] | None = None
    look: Callable[[Path, str], GraphFacts] | None = None
    contents: Callable[[Path], Contents] | None = None


@cache
def formats() -> dict[str, Format]:
    """Return name -> format."""
    return {name: find(__name__, name, "FORMAT") for name in names(__name__) if name not in HELPERS}


def find_format(name: str) -> Format:
    """Return a format; one without files and runtimes if the name is unknown, as in a manifest from elsewhere."""
    return formats().get(name, Format((), ()))


def format_of(path: Path) -> str | None:
    """Return the name of the format whose model file has this suffix; None if no format has."""
    return next((name for name, one in formats().items() if path.suffix == one.suffixes[0]), None)


def suffixes_where(able: Callable[[Format], bool]) -> tuple[str, ...]:
    """Return the suffixes of the model files of some formats, such as all that can be read, for messages."""
    return tuple(one.suffixes[0] for one in formats().values() if able(one))


def belongs_to_a_model(path: PurePath) -> bool:
    """Return whether a file (name in lower case) has the suffix of a model file of any format, or of its data."""
    return any(fnmatchcase(path.suffix, pattern) for one in formats().values() for pattern in one.suffixes)


def read_contents(artifact: Artifact) -> Contents | None:
    """Return what an artifact's model file holds; None if nothing here reads its format.

    Raises:
        ArtifactError: the file is missing, or not of its format.
    """
    read = find_format(artifact.target.format).contents
    if read is None:
        return None

    path = artifact.root / artifact.model
    try:
        return read(path)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror or error}. Export it again.") from error
    except ValueError as error:
        raise ArtifactError(f"{path} is not a file of {artifact.target.format}: {error}. Export it again.") from error


def narrowest(elements: Counter[str]) -> str:
    """Return the narrowest type that holds at least `SHARE` of the weights; `unknown` if no known type does.

    Args:
        elements: number of weights by type; those of unknown types under "". It is changed.
    """
    del elements[""]
    needed = SHARE * elements.total()
    return next((kind for kind in NARROWEST_FIRST if elements[kind] > 0 and elements[kind] >= needed), "unknown")
