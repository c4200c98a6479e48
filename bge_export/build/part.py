"""The base of a recipe's tables: read strictly, and a key that is not known is answered with the one that was meant."""

from collections.abc import Sequence
from difflib import get_close_matches
from inspect import isclass
from pathlib import Path
from typing import Annotated, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError


class Part(BaseModel):
    """Base of a recipe and its parts. Unknown keys and other types are rejected."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=True)


AnyPath = Annotated[Path, Field(strict=False)]
"""A path; text in a TOML file."""


def reason_of(error: ValidationError, model: type[BaseModel]) -> str:
    """Return why a table is not valid, in one line: the first field that is wrong, and what is wrong with it.

    Args:
        error: what pydantic found.
        model: the class of the whole table.
    """
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])

    if first["type"] == "extra_forbidden":
        *above, key = first["loc"]
        reason = unknown_key(str(key), _keys_at(model, above))
    elif first["type"] == "value_error":
        reason = str(first["ctx"]["error"])
    else:
        reason = str(first["msg"])

    return f"{where}: {reason}" if where else reason


def unknown_key(key: str, known: Sequence[str]) -> str:
    """Return what is wrong with a key that is not known, and which one was probably meant."""
    meant = get_close_matches(key, known, n=1)
    return f"there is no such key; did you mean {meant[0]!r}?" if meant else f"there is no such key: {', '.join(known)}"


def _keys_at(model: type[BaseModel], place: Sequence[int | str]) -> tuple[str, ...]:
    """Return the keys of the table at a place in a model."""
    for key in place:
        if isinstance(key, int):  # an element of a list has the keys of its class
            continue

        annotation = model.model_fields[key].annotation
        model = next(one for one in (annotation, *get_args(annotation)) if isclass(one) and issubclass(one, BaseModel))

    return tuple(model.model_fields)
