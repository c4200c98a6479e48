"""Plans a benchmark: every file on every lane that reads it, and the entry that each one is compared with."""

from collections.abc import Sequence
from dataclasses import dataclass

from bge_export.bench.files import SOME_IDS, BenchFile
from bge_export.bench.report import lane_name
from bge_export.bench.shapes import Shape
from bge_export.errors import DeviceUnavailable, UsageError
from bge_export.parity.measure.measurement import RuntimeDevice

WIDE = ("fp32", "unknown")
"""Precisions that are not chosen for speed."""


@dataclass(frozen=True)
class Entry:
    """One file on one runtime and device, with one number of threads."""

    file: BenchFile
    device: RuntimeDevice
    threads: int

    @property
    def name(self) -> str:
        """Return the entry's readable name."""
        return lane_name(self.file.name, self.device.runtime.name, self.device.device, self.threads)

    def beside(self, other: "Entry") -> bool:
        """Return whether both run on the same runtime and device with the same number of threads."""
        return (self.device, self.threads) == (other.device, other.threads)


@dataclass(frozen=True)
class Plan:
    """All combinations of files, lanes (a runtime and a device), numbers of threads, and shapes.

    Attributes:
        base: the file, one of `files`, that the others are compared with.
        within: whether each lane is compared with the base measured there, rather than all with the first lane's base.
    """

    files: tuple[BenchFile, ...]
    base: BenchFile
    devices: tuple[RuntimeDevice, ...]
    threads: tuple[int, ...]
    shapes: tuple[Shape, ...]
    seed: int
    within: bool = False

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Return every file on every lane that reads it, with each number of threads."""
        return tuple(
            Entry(file, device, threads)
            for file in self.files
            for device in self.devices
            if device.reads(file.artifact)
            for threads in self.threads
        )

    @property
    def processes(self) -> tuple[tuple[Entry, ...], ...]:
        """Return the entries grouped by lane and number of threads; a group shares one process."""
        together: dict[tuple[RuntimeDevice, int], list[Entry]] = {}
        for entry in self.entries:
            together.setdefault((entry.device, entry.threads), []).append(entry)
        return tuple(map(tuple, together.values()))

    @property
    def vocabulary(self) -> int:
        """Return the smallest vocabulary size of the files: ids below it are valid in all of them."""
        return min((file.vocabulary for file in self.files if file.vocabulary), default=SOME_IDS)

    def base_of(self, entry: Entry) -> Entry:
        """Return the base entry with as many threads: on the entry's own lane if `within`, else on the first one."""
        return next(
            one
            for one in self.entries
            if one.file == self.base
            and one.threads == entry.threads
            and (not self.within or one.device == entry.device)
        )

    def fp32_of(self, entry: Entry) -> Entry | None:
        """Return the fp32 entry to compare a narrower one with, preferably of its format; None if there is none."""
        if entry.file.precision in WIDE:
            return None

        wide = [one for one in self.entries if one.file.precision == "fp32" and one.beside(entry)]
        own = entry.file.artifact.target.format
        return min(wide, key=lambda one: one.file.artifact.target.format != own, default=None)

    def refuse_impossible(self) -> None:
        """Refuse a plan that cannot be measured completely, before anything is measured.

        Raises:
            UsageError: no runtime reads a file, a runtime reads no file, or a shape is too long.
            DeviceUnavailable: a device is not available.
        """
        for file in self.files:
            if not any(entry.file == file for entry in self.entries):
                raise UsageError(
                    f"{file.name}: no runtime that was named, or is installed, reads {file.artifact.target.format}. "
                    "Name one with --runtime; 'bge-export doctor' says what this machine has."
                )

            for shape in self.shapes:
                if 0 < file.artifact.spec.inputs.max_tokens < shape.tokens:
                    raise UsageError(
                        f"shape {shape}: {file.name} takes {file.artifact.spec.inputs.max_tokens} tokens at most"
                    )

        for device in self.devices:
            if not any(entry.device == device for entry in self.entries):
                formats = ", ".join(sorted(device.runtime.formats))
                raise UsageError(f"{device.runtime.name}:{device.device} reads none of these files, only {formats}")

            if self.within and not device.reads(self.base.artifact):
                raise UsageError(
                    f"{device.runtime.name}:{device.device} does not read {self.base.name}, so nothing can be compared "
                    "with it there. Leave out --within or this runtime, or name another file with --against."
                )

        _refuse_unavailable(self.devices)
        torch = next((device.runtime.name for device in self.devices if device.runtime.library == "torch"), None)
        if torch and len(self.threads) > 1:
            raise UsageError(f"{torch}: torch has one number of threads a process. Give one --threads.")


def _refuse_unavailable(devices: Sequence[RuntimeDevice]) -> None:
    for device in devices:
        known = device.runtime.devices()
        reason = known.get(device.device, f"it has no such device, only {', '.join(known)}")
        if reason is not None:
            raise DeviceUnavailable(f"{device.runtime.name} cannot run on {device.device!r}: {reason}")
