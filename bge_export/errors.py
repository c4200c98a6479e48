"""The error hierarchy. Every message says what is wrong, in which file or row, and what to do next.

    BgeExportError                  exit status
    ├── UsageError                  2   the command or its input is wrong; no work was started
    │   ├── CheckpointError         2   an unusable checkpoint: missing, corrupt, pickle, unknown architecture
    │   ├── TextsError              2   an unreadable file of texts
    │   ├── OutputError             2   an output that must not be written or replaced
    │   └── PolicyError             2   an unreadable file of limits
    └── MeasurementError            3   the work could not be started or finished
        ├── HubError                3   the Hub is unreachable or returned unexpected data
        ├── ExportError             3   the exporter failed
        ├── ArtifactError           3   an artifact that is missing, damaged or different from its manifest
        ├── ReportError             3   an unreadable report
        ├── MissingLibrary          3   a library is not installed; the message gives the command that installs it
        ├── DeviceUnavailable       3   this machine or build lacks the requested device
        ├── ClientError             3   a driven program (Node, Deno, a browser) failed, exited or hung
        └── RuntimeContractError    3   a runtime returned something other than a batch of embeddings

A parity failure is not an exception but a value, `bge_export.parity.gate.judge.Verdict`, with exit status 1.
"""

from typing import ClassVar


class BgeExportError(Exception):
    """Base class of all errors that the package raises on purpose."""

    exit_status: ClassVar[int] = 3


class UsageError(BgeExportError):
    """The command line or its input is wrong; no work was started."""

    exit_status = 2


class CheckpointError(UsageError):
    """A checkpoint that is missing, incomplete, corrupt, unsafe or of an unknown architecture."""


class TextsError(UsageError):
    """A file of texts that is missing, empty or malformed."""


class OutputError(UsageError):
    """An output folder or file that cannot be created, or would replace something that must stay."""


class PolicyError(UsageError):
    """A file of limits that is missing, incomplete or malformed."""


class MeasurementError(BgeExportError):
    """The work could not be started or finished."""


class HubError(MeasurementError):
    """The Hub is unreachable, refused the request, or returned other bytes than it promised."""


class ExportError(MeasurementError):
    """An exporter could not write its artifact."""


class ArtifactError(MeasurementError):
    """An artifact that is missing, damaged or different from its manifest."""


class ReportError(MeasurementError):
    """An unreadable report or file of reference vectors."""


class MissingLibrary(MeasurementError):
    """A library that the task needs is not installed."""

    def __init__(self, library: str, extra: str, task: str) -> None:
        """Name the library, the extra that installs it, and the task that needs it."""
        super().__init__(
            f"{task} needs {library}, which is not installed here. Install it with: pip install 'bge-export[{extra}]'"
        )


class DeviceUnavailable(MeasurementError):
    """This machine, or the installed build of a runtime, lacks the requested device."""


class ClientError(MeasurementError):
    """A JavaScript client reported an error, exited or did not answer in time."""


class RuntimeContractError(MeasurementError):
    """A runtime returned something other than one embedding per text."""
