"""Finds the modules of a package by file name, so that nothing lists formats, runtimes and precisions."""

import importlib
import pkgutil
from pathlib import Path
from typing import Any

from bge_export.errors import MissingLibrary, UsageError


def names(package: str) -> tuple[str, ...]:
    """Return a package's module names, sorted, without importing them; a leading underscore hides a module."""
    folder = Path(__file__).parent.joinpath(*package.split(".")[1:])
    return tuple(sorted(m.name for m in pkgutil.iter_modules([str(folder)]) if not m.name.startswith("_")))


def find(package: str, name: str, constant: str) -> Any:  # noqa: ANN401 - the callers name the type
    """Import `package.name` and return its `constant`.

    Raises:
        UsageError: the module does not exist.
        MissingLibrary: a library that the module imports is not installed.
    """
    if name not in names(package):
        kind = package.rpartition(".")[2]
        raise UsageError(f"there is no {name!r} among the {kind}: {', '.join(names(package))}")

    try:
        module = importlib.import_module(f"{package}.{name}")
    except ImportError as error:
        # A failed import of our own code is a bug, not a missing library.
        if error.name is None or error.name.startswith("bge_export"):
            raise
        raise MissingLibrary(error.name, "export" if constant == "EXPORTER" else name, f"{name!r}") from error

    return getattr(module, constant)
