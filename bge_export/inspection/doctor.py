"""What this machine can run, and the command that installs what is missing."""

import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bge_export.errors import MissingLibrary
from bge_export.runtimes import find_runtime, runtime_names

LIBRARIES: tuple[tuple[str, str], ...] = (
    ("torch", "export"), ("transformers", "export"), ("optimum", "export"), ("onnx", "export"),
    ("onnxscript", "export"), ("onnxruntime", "onnxruntime"), ("openvino", "openvino"), ("tokenizers", ""),
    ("safetensors", ""), ("huggingface_hub", ""), ("scipy", "evaluate"),
)  # fmt: skip
"""Libraries and the extra that brings each; without one they come with the package itself."""


@dataclass(frozen=True)
class LibraryFacts:
    """One library: its version, or None and the command that installs it."""

    name: str
    version: str | None
    install: str


@dataclass(frozen=True)
class DeviceFacts:
    """One runtime on one device: None, or why it cannot be used."""

    runtime: str
    device: str
    unavailable: str | None


@dataclass(frozen=True)
class MachineFacts:
    """This machine."""

    python: str
    system: str
    processor: str
    instructions: tuple[str, ...]
    cores: int
    libraries: tuple[LibraryFacts, ...]
    devices: tuple[DeviceFacts, ...]


def examine_machine() -> MachineFacts:
    """Return what this machine has. Runtimes are imported to ask them for their devices; models are not loaded."""
    return MachineFacts(
        python=platform.python_version(),
        system=platform.platform(),
        processor=_cpu_field("model name") or platform.machine(),
        instructions=instructions(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        libraries=tuple(_library(name, extra) for name, extra in LIBRARIES),
        devices=tuple(device for name in runtime_names() for device in _devices(name)),
    )


def _library(name: str, extra: str) -> LibraryFacts:
    install = f"pip install 'bge-export[{extra}]'" if extra else "pip install bge-export"
    try:
        return LibraryFacts(name, version(name), install)
    except PackageNotFoundError:
        return LibraryFacts(name, None, install)


def _devices(runtime: str) -> tuple[DeviceFacts, ...]:
    try:
        devices = find_runtime(runtime).devices()
    except MissingLibrary as error:
        return (DeviceFacts(runtime, "any", str(error)),)
    return tuple(DeviceFacts(runtime, device, reason) for device, reason in devices.items())


WATCHED = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
    "asimddp",
    "i8mm",
    "bf16",
)
"""What decides how fast and how exactly 8-bit and 16-bit arithmetic runs."""


def instructions() -> tuple[str, ...]:
    """Return which of the watched instructions the processor has; none where the system does not say."""
    flags = set((_cpu_field("flags") or _cpu_field("Features")).split())
    return tuple(name for name in WATCHED if name in flags)


def _cpu_field(name: str) -> str:
    """Return a field of /proc/cpuinfo, empty where the system has none."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.split("\t")[0].strip() == name), "")
