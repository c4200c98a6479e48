"""Finds the user's cache folder: files that every run may make again, and locks."""

import os
import tempfile
from pathlib import Path


def cache_folder() -> Path:
    """Return the package's folder in the user's cache; nothing is made there.

    Raises:
        RuntimeError: the user has no home folder.
    """
    return Path.home() / ".cache" / "bge_export"


def locks_folder() -> Path:
    """Return a folder for locks, and make it: in the cache, or in the temporary folder if the cache is not writable.

    Every process of a user on a machine finds the same one.

    Raises:
        OSError: neither can be written.
    """
    try:
        return _writable(cache_folder() / "locks")
    except (OSError, RuntimeError):  # a container may have a read-only home, or none
        user = f"-{os.getuid()}" if hasattr(os, "getuid") else ""
        return _writable(Path(tempfile.gettempdir()) / f"bge_export{user}" / "locks")


def _writable(folder: Path) -> Path:
    """Make a folder for this user alone, unless it exists; raise OSError if no file can be made in it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()
    return folder
