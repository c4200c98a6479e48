"""Moves foreign files from a replaced bundle into the new one, and removes the files that bge-export had written.

Files are renamed, never copied, so owner, links and holes survive, and a process can go on writing into an open file.
If the move is interrupted, the next call continues it: the old folder's manifest, which tells foreign files from
bge-export's, is removed last.
"""

import contextlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from bge_export.bundle.foreign import is_folder, is_generated_card, left_in, may_give_way, own_files
from bge_export.bundle.integrity import CARD, LIMITS, MANIFEST, REPORT
from bge_export.errors import OutputError

ATTEMPTS = 10
"""How many times the old folder is scanned: a process may still be writing files into it."""


def hand_over(old: Path, new: Path) -> None:
    """Move the foreign files of `old` to `new`, and remove `old`.

    Raises:
        OutputError: a file cannot be moved; it stays in `old`.
    """
    try:
        for _ in range(ATTEMPTS):
            _move(left_in(old), old, new)
            if _is_removed(old, new):
                return
    except OSError as error:
        raise OutputError(f"{_rest(old, new)} The next export into {new} tries again. ({error})") from error

    raise OutputError(f"{_rest(old, new)} Something goes on writing into it. Stop it, and export again.")


def _move(names: Sequence[str], old: Path, new: Path) -> None:
    for name in names:  # parents first
        source, target = old / name, new / name
        if not os.path.lexists(source):  # moved together with its folder
            continue

        if os.path.lexists(target):
            if not may_give_way(source, target):
                raise OutputError(f"{_rest(old, new)} Both have a file {name}. Move one of them away.")
            continue

        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)

    # Folders that exist on both sides get their mode last, because it may forbid writing into them.
    for name in reversed(names):
        if is_folder(old / name) and is_folder(new / name):
            shutil.copystat(old / name, new / name)


def _is_removed(old: Path, new: Path) -> bool:
    """Remove bge-export's files, empty folders, and `old` itself; return False if `old` holds anything else."""
    own = {REPORT, LIMITS, *(own_files(old) if (old / MANIFEST).is_file() else ())}
    if os.path.lexists(new / CARD) and is_generated_card(old / CARD):
        own.add(CARD)

    for here, folders, files in os.walk(old, topdown=False):
        for path in (Path(here) / name for name in files):
            if path.relative_to(old).as_posix() in own:
                path.unlink()
        for path in (Path(here) / name for name in folders):
            with contextlib.suppress(OSError):  # not empty, or replaced by a link in the meantime
                path.rmdir()

    if {path.name for path in old.iterdir()} - {MANIFEST}:
        return False

    (old / MANIFEST).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # a file was added at the last moment
        old.rmdir()
    return not old.exists()


def _rest(old: Path, new: Path) -> str:
    return f"{new} is new, but not all that you had put there could be moved into it: the rest lies in {old}."
