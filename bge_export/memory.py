"""Keeps peak memory low: returns freed memory to the system and parks objects on disk."""

import ctypes
import gc
import pickle  # reads only data that this process wrote to an anonymous file
import tempfile
import weakref
from typing import Generic, TypeVar

T = TypeVar("T")


def release() -> None:
    """Return freed memory to the system; glibc keeps it if calibration left it in many small pieces.

    For bge-small-en this is more than 1 GiB after int8 planning, half of it in reference cycles from tracing. A call
    after each layer and around each lane keeps the leftovers of one out of the peak of the next.
    """
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # other C libraries lack the function; Windows has no CDLL(None)
        return


class Parked(Generic[T]):
    """An object stored in a temporary file, which is deleted with it."""

    def __init__(self, value: T) -> None:
        """Write the object to disk; the caller drops its own reference."""
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed when this object is collected
        weakref.finalize(self, self._file.close)
        pickle.dump(value, self._file, protocol=pickle.HIGHEST_PROTOCOL)

    def load(self) -> T:
        """Read the object back."""
        self._file.seek(0)
        value: T = pickle.load(self._file)  # noqa: S301 - see above
        return value
