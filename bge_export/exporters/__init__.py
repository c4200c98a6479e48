"""Exporters, one module per format, found by the module's name; listing the formats imports no exporter."""

from collections.abc import Mapping
from dataclasses import fields
from itertools import chain
from typing import get_type_hints

from bge_export.contracts import Attempts, Exporter
from bge_export.errors import UsageError
from bge_export.plugins import find, names


def format_names() -> tuple[str, ...]:
    """Return the names of all formats."""
    return names(__name__)


def find_exporter(name: str, options: Mapping[str, object] = {}) -> Exporter:
    """Return the exporter of a format, created with its options.

    Raises:
        UsageError: the format does not exist, or an option or its value is not one of this exporter.
        MissingLibrary: the exporter's library is not installed.
    """
    from pydantic import TypeAdapter, ValidationError  # not needed to list the formats

    exporter = find(__name__, name, "EXPORTER")
    known = [field.name for field in fields(exporter)]
    if unknown := [option for option in options if option not in known]:
        raise UsageError(f"{name} has no option {unknown[0]!r}: {', '.join(known)}")

    hints = get_type_hints(exporter)
    values = {}
    for option, value in options.items():
        try:
            # A list of a TOML file stands for a tuple.
            given = tuple(value) if isinstance(value, list) else value
            values[option] = TypeAdapter(hints[option]).validate_python(given, strict=True)
        except ValidationError as error:
            raise UsageError(f"{name}: {option} is {value!r}: {error.errors()[0]['msg']}.") from error

    made: Exporter = exporter(**values)
    return made


def started(attempts: Attempts) -> Attempts:
    """Return the same attempts, the first one written already: later exports may change what it is made of."""
    return chain([next(attempts)], attempts)
