"""Finds the modules of a folder by file name, so that adding a format or a runtime is adding one file."""

import importlib
import pkgutil
from pathlib import Path
from typing import Any

from bge_export.errors import MissingLibrary, UsageError


def names(package: str) -> tuple[str, ...]:
    """Return the names of a package's modules, sorted, without importing them; a leading underscore hides one."""
    folder = Path(__file__).parent.joinpath(*package.split(".")[1:])
    return tuple(sorted(m.name for m in pkgutil.iter_modules([str(folder)]) if not m.name.startswith("_")))


def find(package: str, name: str, constant: str) -> Any:  # noqa: ANN401 - the callers name the type
    """Import `package.name` and return its `constant`.

    Raises:
        UsageError: there is no such module.
        MissingLibrary: the module is there and a library that it imports is not.
    """
    if name not in names(package):
        kind = package.rpartition(".")[2]
        raise UsageError(f"there is no {name!r} among the {kind}: {', '.join(names(package))}")
    try:
        module = importlib.import_module(f"{package}.{name}")
    except ImportError as error:
        if error.name is None or error.name.startswith("bge_export"):
            raise
        raise MissingLibrary(error.name, "export" if constant == "EXPORTER" else name, f"{name!r}") from error
    return getattr(module, constant)
