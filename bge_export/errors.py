"""The error family. Every message says what is wrong, in which file or row, and what to do next.

    BgeExportError                  exit status
    ├── UsageError                  2   the command or its input is wrong; nothing was started
    │   ├── CheckpointError         2   a checkpoint that cannot be used: missing, corrupt, pickle, unknown
    │   ├── TextsError              2   a file of texts that cannot be read
    │   ├── OutputError             2   an output that must not be written, or replaced
    │   └── PolicyError             2   a file of limits that cannot be read
    └── MeasurementError            3   the work could not be done or finished
        ├── HubError                3   the Hub could not be reached or gave something else
        ├── ExportError             3   the exporter failed
        ├── ArtifactError           3   an artifact that is missing, damaged or not what its manifest says
        ├── ReportError             3   a report that cannot be read
        ├── MissingLibrary          3   a library is not installed; names the command that installs it
        ├── DeviceUnavailable       3   this machine or build lacks the device that was asked for
        ├── ClientError             3   a program that was driven (Node, Deno, a browser) failed, ended or hung
        └── RuntimeContractError    3   a runtime returned something that is no batch of embeddings

A parity failure is not an exception: it is a value, `bge_export.parity.gate.judge.Verdict`, and exit status 1.
"""

from typing import ClassVar


class BgeExportError(Exception):
    """Base of all errors that the package raises on purpose."""

    exit_status: ClassVar[int] = 3


class UsageError(BgeExportError):
    """The command line or its input cannot be used as it is."""

    exit_status = 2


class CheckpointError(UsageError):
    """A checkpoint that is missing, incomplete, corrupt, unsafe or of an unknown kind."""


class TextsError(UsageError):
    """A file of texts that is missing, empty or malformed."""


class OutputError(UsageError):
    """An output folder or file that cannot be made, or whose place holds what must not be replaced."""


class PolicyError(UsageError):
    """A file of limits that is missing, incomplete or malformed."""


class MeasurementError(BgeExportError):
    """The work could not be done or finished."""


class HubError(MeasurementError):
    """The Hub could not be reached, refused, or gave bytes that are not what it promised."""


class ExportError(MeasurementError):
    """An exporter could not write its artifact."""


class ArtifactError(MeasurementError):
    """An artifact that is missing, damaged or not what its manifest says."""


class ReportError(MeasurementError):
    """A report or a file of reference vectors that cannot be read."""


class MissingLibrary(MeasurementError):
    """A library that the task needs is not installed."""

    def __init__(self, library: str, extra: str, task: str) -> None:
        """Name the library, the extra that brings it, and the task that needs it."""
        super().__init__(
            f"{task} needs {library}, which is not installed here. Install it with: pip install 'bge-export[{extra}]'"
        )


class DeviceUnavailable(MeasurementError):
    """This machine, or the installed build of a runtime, lacks the device that was asked for."""


class ClientError(MeasurementError):
    """A JavaScript client that said no, ended by itself or did not answer in time."""


class RuntimeContractError(MeasurementError):
    """A runtime returned something that is not one embedding a text."""
