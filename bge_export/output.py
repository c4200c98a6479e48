"""Output folders that appear whole or not at all: written beside their place, then renamed into it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bge_export.bundle_files import MANIFEST
from bge_export.errors import OutputError

REFUSED = ".refused"
"""An export that the gate refused is left as `OUT.refused`, never as `OUT`."""


@contextmanager
def staged(out: Path, *, source: Path) -> Iterator[Path]:
    """Yield an empty folder beside `out`; it is gone afterwards unless `publish` moved it.

    Args:
        out: the folder that the user named: none yet, an empty one, or one that bge-export wrote.
        source: a folder that must survive: the checkpoint.

    Raises:
        OutputError: `out` must not be written, or its parent cannot be.
    """
    out = Path(os.path.abspath(out))
    try:
        _refuse(out, source.resolve())
        out.parent.mkdir(parents=True, exist_ok=True)
        _sweep(out)
        staging = _sibling(out, "partial", os.getpid())
        staging.mkdir()
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror}. Choose another folder with --output.") from error
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def publish(staging: Path, place: Path) -> None:
    """Move a finished folder to `place`, in place of what stood there."""
    place = Path(os.path.abspath(place))
    old = _sibling(place, "old", os.getpid())
    if place.exists():
        place.rename(old)
    staging.rename(place)
    shutil.rmtree(old, ignore_errors=True)


def refused_place(out: Path) -> Path:
    """Return where a refused export is left."""
    named = out if out.name not in ("", "..") else Path(os.path.abspath(out))
    return named.with_name(named.name + REFUSED)


def _refuse(out: Path, source: Path) -> None:
    real = out.resolve()
    if real == source or real in source.parents or source in real.parents:
        raise OutputError(
            f"{out} is the checkpoint itself, inside it or around it. Choose another folder with --output."
        )
    for place in (out, refused_place(out)):
        if not place.exists() and not place.is_symlink():
            continue
        if not place.is_dir() or place.is_symlink():
            raise OutputError(f"{place} is not a folder. Choose another one with --output.")
        ours = (place / MANIFEST).is_file()
        empty = not any(place.iterdir())
        if not empty and not ours:
            raise OutputError(f"{place} holds files that bge-export did not write. Choose another one with --output.")


def _sibling(out: Path, kind: str, pid: int) -> Path:
    return out.with_name(f".{out.name}.{pid}.{kind}")


def _sweep(out: Path) -> None:
    """Remove what a killed process left beside `out`: folders of processes that are no more."""
    for kind in ("partial", "old"):
        for path in out.parent.glob(f".{out.name}.*.{kind}"):
            pid = path.name.split(".")[-2]
            if pid.isdigit() and not _alive(int(pid)):
                shutil.rmtree(path, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
