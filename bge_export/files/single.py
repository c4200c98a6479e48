"""Writes a file whole or not at all, and never over a file that bge-export did not write."""

import contextlib
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bge_export.errors import OutputError

HEAD_BYTES = 4096

LEFT = re.compile(r"\.(?P<name>.+)\.(?P<process>[0-9]{1,10})\.tmp")
"""Names of unfinished files: the file's own, and the process that writes it."""
LEFT_SECONDS = 3600.0
"""Seconds without a change after which nobody writes an unfinished file any more."""


def refuse_path(path: Path, what: str, ours: re.Pattern[bytes] | None = None) -> None:
    """Raise OutputError unless `path` can be written without losing data. Call it before work that takes minutes.

    Args:
        path: the file to write.
        what: the kind of content, for messages, such as "report".
        ours: the pattern in the first `HEAD_BYTES` of a file that may be replaced; None if no file may be replaced.
    """
    if not path.parent.is_dir():
        state = "is not a folder" if os.path.lexists(path.parent) else "does not exist"
        raise OutputError(f"{path.parent} {state}, so no {what} can be written there. Make it, or name another path.")

    if not os.path.lexists(path):
        return

    if path.is_dir():
        raise OutputError(f"{path} is a folder. Name the file to write in it.")
    if ours is None:
        raise OutputError(f"{path} exists already. Remove it, or name another file.")

    # A symbolic link may lead to a file of any origin, so it is never replaced.
    if path.is_symlink() or not path.is_file() or not ours.search(_head(path)):
        raise OutputError(
            f"{path} exists and is not a {what} that bge-export wrote, so it is not replaced. "
            "Remove it, or name another file."
        )


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path`; it replaces `path` at the end, or is removed if the block fails.

    What a process that was killed meanwhile left of the same file is removed too.
    """
    _remove_left(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def is_left(name: str) -> bool:
    """Return whether a file is called like the unfinished part of another: one that a killed process may have left."""
    return LEFT.fullmatch(name) is not None


def _remove_left(path: Path) -> None:
    """Remove unfinished parts of a file that are old, and whose processes run no more.

    A process of another machine or container may write to the same folder, and its number says nothing here.
    """
    with contextlib.suppress(OSError):
        for other in path.parent.iterdir():
            found = LEFT.fullmatch(other.name)
            if not found or found["name"] != path.name or _runs(int(found["process"])):
                continue
            if time.time() - other.stat().st_mtime > LEFT_SECONDS:
                other.unlink()


def _runs(process: int) -> bool:
    """Return whether a process of this machine may still run; on Windows, where asking would stop it, it may."""
    if os.name == "nt":
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it is somebody else's
        return True
    return True


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(HEAD_BYTES)
    except OSError as error:
        raise OutputError(f"{path} cannot be read: {error.strerror}. Remove it, or name another file.") from error
