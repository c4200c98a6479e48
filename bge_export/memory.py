"""Memory that is free in this process, but still held for it, and objects that wait on disk."""

import ctypes
import gc
import pickle  # reads nothing but what this process wrote into a file without a name
import tempfile
from typing import Generic, TypeVar

T = TypeVar("T")


def release() -> None:
    """Give freed memory back to the system, which glibc does not by itself where calibration left many small pieces.

    Of bge-small-en it is more than 1 GiB after int8 was planned, half of it in cycles that tracing left. Called after
    each layer and around each lane, it keeps what one left behind from being added to the next one's peak.
    """
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # other C libraries have no such function; on Windows there is no None
        return


class Parked(Generic[T]):
    """An object that waits in a temporary file, which vanishes with it."""

    def __init__(self, value: T) -> None:
        """Write the object; the caller lets go of it."""
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed when this object is collected
        pickle.dump(value, self._file, protocol=pickle.HIGHEST_PROTOCOL)

    def load(self) -> T:
        """Read the object."""
        self._file.seek(0)
        value: T = pickle.load(self._file)  # noqa: S301 - see above
        return value
