"""Runtimes that embed texts with artifacts: one module each, found by its name. Listing them imports none."""

from bge_export.contracts import Runtime
from bge_export.plugins import find, names


def runtime_names() -> tuple[str, ...]:
    """Return the names of all runtimes."""
    return names(__name__)


def formats_of(name: str) -> frozenset[str]:
    """Return the formats that a runtime reads; empty if the name is unknown."""
    return find_runtime(name).formats if name in runtime_names() else frozenset()


def find_runtime(name: str) -> Runtime:
    """Return the runtime of that name.

    Raises:
        UsageError: the name is unknown.
    """
    runtime: Runtime = find(__name__, name, "RUNTIME")
    return runtime
