"""The operators of measured files, as a report lists them; the gate refuses those that can hide something.

A finite set of texts proves nothing about a file that draws random numbers, that decides by its input what it computes,
or that runs code from outside.
"""

from collections.abc import Iterable

from bge_export.contracts import Artifact
from bge_export.errors import ArtifactError
from bge_export.formats import read_contents

MOST_KINDS = 300
"""Kinds of operators that are listed of one file; an encoder has about 50."""

MOST_LETTERS = 120
"""Longest name of an operator."""


def known_operators(artifacts: Iterable[Artifact]) -> dict[str, tuple[str, ...]]:
    """Return digest -> operators of each artifact whose format can be read, sorted, as `Contents.operators` names them.

    A file that cannot be read has one operator, which is the reason: a runtime may still read it.
    """
    found: dict[str, tuple[str, ...]] = {}

    for artifact in artifacts:
        try:
            contents = read_contents(artifact)
        except ArtifactError as error:
            # Without the folder, so that every machine says the same of the same bytes.
            reason = str(error).removeprefix(f"{artifact.root / artifact.model} ")
            found[artifact.digest] = (f"unreadable::{reason}"[:MOST_LETTERS],)
            continue

        if contents is not None:
            found[artifact.digest] = listed(contents.operators)

    return found


def listed(operators: Iterable[str]) -> tuple[str, ...]:
    """Return names of operators as a report lists them: sorted, and cut to what it holds."""
    listed = sorted({_short(name) for name in operators})
    more = [f"more than {MOST_KINDS} kinds::of operators"] if len(listed) > MOST_KINDS else []
    return (*listed[:MOST_KINDS], *more)


def _short(name: str) -> str:
    """Return a name; one that is too long keeps its beginning, and is of no domain that the gate lets pass."""
    return name if len(name) <= MOST_LETTERS else f"too long::{name}"[:MOST_LETTERS]
