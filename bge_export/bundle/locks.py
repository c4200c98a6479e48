"""Locks on output folders: two exports of a user never write to one folder at once.

Lock files lie in the user's cache folder, not beside the output. Exports of different users or machines into one
shared folder do not see each other's locks.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from bge_export.errors import OutputError
from bge_export.files.cache import locks_folder


@contextmanager
def locked(folder: Path, purpose: str = "") -> Iterator[None]:
    """Hold the lock of an output folder.

    Args:
        folder: the folder.
        purpose: the name of a lock apart: one that is held while others of the same folder are taken and given back.

    Raises:
        OSError: no lock can be made.
        OutputError: another export holds it.
    """
    path = locks_folder() / _name(folder, purpose)
    lock = FileLock(path)

    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise OutputError(
            f"Another export writes {folder} at this moment. Wait until it is done, or choose another folder "
            "with --output."
        ) from error

    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows removes the file itself
            path.unlink()  # while still locked: a waiting `FileLock` never locks an unlinked file
        lock.release()


def _name(folder: Path, purpose: str) -> str:
    """Return the lock's name: one for every path that leads to the same folder entry.

    The last name is not resolved: an export replaces a link there, not the folder that the link leads to.
    """
    real = os.fsencode(folder.parent.resolve() / folder.name)
    own = f"-{purpose}" if purpose else ""
    return f"{hashlib.sha256(real).hexdigest()[:32]}{own}.lock"
