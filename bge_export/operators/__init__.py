"""Which operators a model file runs, read from its bytes; the gate refuses those that can hide something.

A finite set of texts proves nothing about a file that draws random numbers, that decides by its input what it computes,
or that runs code from outside. One module per format, found by its name, lists the operators; none runs the file.
"""

from collections.abc import Iterable
from pathlib import Path

from bge_export.contracts import Artifact
from bge_export.errors import ArtifactError, MissingLibrary
from bge_export.plugins import find, names

MOST_KINDS = 300
"""Kinds of operators that are listed of one file; an encoder has about 50."""

MOST_LETTERS = 120
"""Longest name of an operator."""

TRAINING = " (training)"
"""Follows the name of an operator that drops values at random, as in training."""


def operators_of(path: Path, format_name: str) -> tuple[str, ...]:
    """Return the kinds of operators in a file, sorted: `domain::name`, without the domain if it is the format's own.

    Raises:
        ArtifactError: the file cannot be read.
        MissingLibrary: the library that reads the format is not installed.
        UsageError: the format is not supported.
    """
    try:
        found = set(find(__name__, format_name, "operators")(path))
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{path}: its operators cannot be read: {error}. Export it again.") from error

    listed = sorted(name[:MOST_LETTERS] for name in found)
    more = [f"more than {MOST_KINDS} kinds::of operators"] if len(listed) > MOST_KINDS else []
    return (*listed[:MOST_KINDS], *more)


def known_operators(artifacts: Iterable[Artifact]) -> dict[str, tuple[str, ...]]:
    """Return digest -> operators of each artifact whose format is known and whose library is installed.

    A file that cannot be read has one operator, which is the reason: a runtime may still read it.
    """
    found: dict[str, tuple[str, ...]] = {}

    for artifact in artifacts:
        if artifact.target.format in names(__name__):
            try:
                found[artifact.digest] = operators_of(artifact.root / artifact.model, artifact.target.format)
            except MissingLibrary:
                continue
            except ArtifactError as error:
                found[artifact.digest] = (f"unreadable::{error}"[:MOST_LETTERS],)

    return found
