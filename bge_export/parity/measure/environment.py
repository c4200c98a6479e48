"""Describe the machine of a measurement, without user, host or folder names: a report may be published."""

import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

from bge_export.files.proc import processor_name

PACKAGES = ("bge-export", "numpy", "tokenizers")


def describe_environment(libraries: Iterable[str]) -> dict[str, str]:
    """Return the Python version, platform, processor, and the versions of `PACKAGES` and of `libraries`."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu": processor_name(),
        "cores": str(os.cpu_count()),
        **{name: version_of(name) for name in sorted({*PACKAGES, *libraries})},
    }


def version_of(package: str) -> str:
    """Return the installed version of a package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
