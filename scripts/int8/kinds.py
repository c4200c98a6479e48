"""Which fixture texts are everyday ones, which are there to stress a model."""

from collections.abc import Mapping
from typing import Literal

from bge_export.corpus import Text, builtin_corpus

Kind = Literal["everyday", "stress"]
KINDS: tuple[Kind, ...] = ("everyday", "stress")

STRESS_TAGS = frozenset(
    [
        "arabic",
        "astral",
        "boundary",
        "character",
        "control",
        "emoji",
        "empty",
        "greek",
        "hebrew",
        "hindi",
        "japanese",
        "korean",
        "long-word",
        "repeated",
        "russian",
        "special-token",
        "thai",
        "truncated",
        "whitespace",
        "width",
    ]
)


def kind(text: Text) -> Kind:
    """Return the kind of a text."""
    return "stress" if text.tag in STRESS_TAGS else "everyday"


def kinds_by_id() -> Mapping[str, Kind]:
    """Return the id of each fixture text -> its kind."""
    return {text.id: kind(text) for text in builtin_corpus().texts}
