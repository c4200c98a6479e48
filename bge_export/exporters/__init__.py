"""Exporters, one module per format, found by the module's name; listing the formats imports no exporter."""

from itertools import chain

from bge_export.contracts import Attempts, Exporter
from bge_export.plugins import find, names


def format_names() -> tuple[str, ...]:
    """Return the names of all formats."""
    return names(__name__)


def find_exporter(name: str, **options: object) -> Exporter:
    """Return the exporter of a format, created with its options.

    Raises:
        UsageError: the format does not exist.
        MissingLibrary: the exporter's library is not installed.
    """
    exporter: Exporter = find(__name__, name, "EXPORTER")(**options)
    return exporter


def started(attempts: Attempts) -> Attempts:
    """Return the same attempts, the first one written already: later exports may change what it is made of."""
    return chain([next(attempts)], attempts)
