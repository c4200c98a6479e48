"""Exporters: one file each, named after its format, found by its name. Listing them imports none."""

from bge_export.contracts import Exporter
from bge_export.plugins import find, names


def format_names() -> tuple[str, ...]:
    """Return the names of all formats."""
    return names(__name__)


def find_exporter(name: str, **options: object) -> Exporter:
    """Return the exporter of that format, with options of its own.

    Raises:
        UsageError: there is no such format.
        MissingLibrary: the exporter's library is not installed.
    """
    exporter: Exporter = find(__name__, name, "EXPORTER")(**options)
    return exporter
