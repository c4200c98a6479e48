"""Reports which runtimes and devices work on this machine, and the commands that install missing libraries."""

import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from bge_export.errors import MissingLibrary
from bge_export.files.proc import processor_features, processor_name
from bge_export.runtimes import find_runtime, runtime_names

LIBRARIES: tuple[tuple[str, str], ...] = (
    ("torch", "export"),
    ("transformers", "export"),
    ("onnx", "export"),
    ("onnxscript", "export"),
    ("onnxruntime", "onnxruntime"),
    ("openvino", "openvino"),
    ("tokenizers", ""),
    ("safetensors", ""),
    ("huggingface_hub", ""),
    ("scipy", "evaluate"),
)
"""(library, extra that installs it); an empty extra means that the package itself requires the library."""


@dataclass(frozen=True)
class LibraryFacts:
    """One library: its version, None if it is missing, and the command that installs it."""

    name: str
    version: str | None
    install: str


@dataclass(frozen=True)
class DeviceFacts:
    """One runtime on one device, and the reason why it cannot be used; None if it can."""

    runtime: str
    device: str
    unavailable: str | None


@dataclass(frozen=True)
class MachineFacts:
    """The hardware, the libraries and the devices of this machine."""

    python: str
    system: str
    processor: str
    instructions: tuple[str, ...]
    cores: int
    libraries: tuple[LibraryFacts, ...]
    devices: tuple[DeviceFacts, ...]


def examine_machine() -> MachineFacts:
    """Return the facts of this machine. Runtimes are imported to query their devices; models are not loaded."""
    return MachineFacts(
        python=platform.python_version(),
        system=platform.platform(),
        processor=processor_name(),
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
"""CPU features that decide the speed and accuracy of 8-bit and 16-bit arithmetic."""


def instructions() -> tuple[str, ...]:
    """Return the watched CPU features that the processor has; empty if the system does not report them."""
    features = processor_features()
    return tuple(name for name in WATCHED if name in features)
