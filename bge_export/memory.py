"""Memory that is free in this process, but still held for it."""

import ctypes


def release() -> None:
    """Give freed memory back to the system, which glibc does not by itself where calibration left many small pieces.

    Of bge-small-en it is more than 1 GiB after int8 was planned. Called after each layer and after each lane, it keeps
    what one left behind from being added to the next one's peak.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # other C libraries have no such function; on Windows there is no None
        return
