"""Reads the processor's name and features, and the peak memory of a process, from Linux's `/proc`."""

import platform
import sys
from importlib import import_module
from pathlib import Path

PROCESSES = Path("/proc")
CPU_INFO = PROCESSES / "cpuinfo"


def processor_name() -> str:
    """Return the processor's name, which `platform.processor` does not know on Linux; else that of its architecture."""
    # Boards with an ARM processor name themselves instead of it.
    return _cpu_field("model name") or _cpu_field("Model") or platform.processor() or platform.machine()


def processor_features() -> set[str]:
    """Return the processor's features, such as `avx512_vnni`; empty if the system does not report them."""
    return set((_cpu_field("flags") or _cpu_field("Features")).split())


def peak_bytes(pid: int | None = None) -> int | None:
    """Return the peak resident memory of a process in bytes; None if the system does not report it.

    Args:
        pid: the process; by default this one, whose peak is known on every system but Windows.
    """
    path = PROCESSES / ("self" if pid is None else str(pid)) / "status"
    try:
        lines = path.read_text("ascii", "replace").splitlines()
    except OSError:
        return _own_peak_by_usage() if pid is None else None

    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)


def forget_peak() -> bool:
    """Let this process's peak start again from what it holds now; return whether the system can."""
    try:
        (PROCESSES / "self/clear_refs").write_text("5", "ascii")
    except OSError:
        return False
    return True


def _own_peak_by_usage() -> int | None:
    """Return this process's peak as `getrusage` reports it, which on Linux would include the parent's."""
    try:
        resource = import_module("resource")
    except ImportError:  # Windows
        return None

    unit = 1 if sys.platform == "darwin" else 1024
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit


def _cpu_field(name: str) -> str:
    """Return a field of the first processor that has it; empty if none has, or the system has no such file."""
    try:
        lines = CPU_INFO.read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""

    fields = [line.partition(":") for line in lines]
    return next((value.strip() for key, _, value in fields if key.strip() == name), "")
