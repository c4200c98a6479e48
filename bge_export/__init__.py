"""Exports sentence-embedding checkpoints and proves that every artifact gives the same embeddings.

Public names are listed in `__init__.pyi` and loaded on first use, so that importing the package loads no heavy library.
"""

import ast
from importlib import import_module
from pathlib import Path


def _listed() -> dict[str, str]:
    """Return public name -> the module that owns it, as the stub lists them."""
    stub = ast.parse(Path(__file__).with_suffix(".pyi").read_text("utf-8"))
    imports = [line for line in stub.body if isinstance(line, ast.ImportFrom)]
    return {alias.name: line.module or "" for line in imports for alias in line.names}


_OWNERS = _listed()
__all__ = sorted(_OWNERS)


def __getattr__(name: str) -> object:
    """Load a public name from the module that owns it."""
    if name not in _OWNERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_OWNERS[name]), name)
