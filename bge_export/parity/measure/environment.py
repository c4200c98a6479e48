"""Describe the machine of a measurement, without user, host or folder names: a report may be published."""

import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("bge-export", "numpy", "tokenizers")


def describe_environment(libraries: Iterable[str]) -> dict[str, str]:
    """Return the Python version, platform, processor, and the versions of `PACKAGES` and of `libraries`."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu": _cpu(),
        "cores": str(os.cpu_count()),
        **{name: _version(name) for name in sorted({*PACKAGES, *libraries})},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _cpu() -> str:
    """Return the processor's name from /proc/cpuinfo, since `platform.processor` does not know it on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return platform.processor()

    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model\t"))]
    return names[0] if names else platform.processor()
