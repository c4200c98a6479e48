"""All-or-nothing output folders: an export is staged in a sibling folder, then renamed to its final path.

While an export runs, it writes into `.OUT.bge-export.partial`, under a lock in the user's cache folder. When it
publishes, the previous OUT is renamed to `.OUT.bge-export.old`, until its foreign files are all moved into the new
folder. If only some targets are refused, they are staged under the same names with OUT.refused in place of OUT. A
killed export leaves these folders; the next export to the same path puts the old folder back, or continues the move.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bge_export.bundle.foreign import foreign_files, refuse_loss
from bge_export.bundle.handover import hand_over
from bge_export.bundle.locks import locked
from bge_export.errors import OutputError

REFUSED = ".refused"
"""Suffix of the folder for refused targets; `OUT` holds none of them."""


@contextmanager
def staged(out: Path, *, source: Path) -> Iterator[Path]:
    """Yield an empty folder beside `out`, locked against other exports; remove it at the end unless it was published.

    Args:
        out: the path that the user named: missing, an empty folder, or a folder that bge-export wrote.
        source: the checkpoint's folder, which must not be overwritten.

    Raises:
        OutputError: `out` must not be replaced, its parent is not writable, or another export writes there.
    """
    out = Path(os.path.abspath(out))

    with ExitStack() as stack:
        try:
            _refuse_path(out, source.resolve())
            _refuse_path(refused_folder(out), source.resolve())

            paths = (out, refused_folder(out))
            out.parent.mkdir(parents=True, exist_ok=True)
            for path in paths:
                stack.enter_context(locked(path))

            _recover(out)
            for path in paths:
                foreign_files(path)  # raises if a foreign file could not stay

            stack.callback(_tidy, out)
            staging = _sibling(out, "partial")
            staging.mkdir()
        except OSError as error:
            raise OutputError(
                f"{error.filename or out} cannot be written: {error.strerror}. Choose another folder with --output."
            ) from error

        yield staging


def recover(out: Path) -> None:
    """Finish or undo what was killed while it wrote into `out`, so that what stands there can be looked at.

    Raises:
        OSError: something cannot be removed.
        OutputError: another export writes there at this moment, or something stands in the way.
    """
    out = Path(os.path.abspath(out))
    with locked(out), locked(refused_folder(out)):
        _recover(out)
        for path in out.parent.iterdir():
            if path.name.startswith(_sibling(out, "").name) and path.suffix == ".tmp":
                shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextmanager
def replaced_file(out: Path, name: str) -> Iterator[Path]:
    """Yield a path in a new folder beside `out`; what is written there replaces the file of that name in `out`.

    Whatever ends this, the folder never holds a file that the gate does not know.

    Raises:
        OutputError: an export writes into the folder at this moment.
    """
    out = Path(os.path.abspath(out))
    temporary = _sibling(out, f"{name}.tmp")
    temporary.mkdir(exist_ok=True)
    try:
        yield temporary / name
        with locked(out):
            (temporary / name).replace(out / name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def standing_at(out: Path) -> Path:
    """Return the folder whose content stands at `out`: after a killed export, it may be set aside beside it."""
    old = _sibling(Path(os.path.abspath(out)), "old")
    return old if old.exists() and not out.exists() else out


def refused_staging(out: Path) -> Path:
    """Return a new, empty folder for targets to publish as `OUT.refused`; `staged` removes it at the end."""
    folder = _sibling(refused_folder(Path(os.path.abspath(out))), "partial")
    folder.mkdir()
    return folder


def publish(staging: Path, path: Path) -> None:
    """Rename a finished folder to `path`, replacing the folder there but keeping its foreign files.

    If this is interrupted, `staged` puts the old folder back, or moves the files that are still in it.

    Raises:
        OutputError: a foreign file would be lost, and nothing was moved; or it cannot be moved, and the message says
            where it is.
    """
    path = Path(os.path.abspath(path))
    old = _sibling(path, "old")
    refuse_loss(path, staging)

    if path.exists():
        path.rename(old)
    staging.rename(path)

    if old.exists():
        hand_over(old, path)


def refused_folder(out: Path) -> Path:
    """Return the path of a refused export."""
    return out.with_name(out.name + REFUSED)


def _refuse_path(out: Path, source: Path) -> None:
    """Raise OutputError if no export may ever be published at `out`, whatever that folder holds."""
    real, here = out.resolve(), Path.cwd()

    if real == source or real in source.parents or source in real.parents:
        raise OutputError(
            f"{out} is the checkpoint itself, inside it or around it. Choose another folder with --output."
        )

    if real == here or real in here.parents:
        raise OutputError(
            f"{out} is the folder you are in, or around it: a new folder would take its place under your feet. "
            "Go elsewhere, or choose another folder with --output."
        )

    if os.path.ismount(out):
        raise OutputError(f"{out} is a mount point, which cannot be replaced. Choose a folder in it with --output.")

    above = next(parent for parent in out.parents if os.path.lexists(parent))
    if not above.is_dir():
        raise OutputError(f"{above} is not a folder, so {out} cannot be in it. Choose another path with --output.")


def _recover(out: Path) -> None:
    """Finish or undo an interrupted export, and remove the files it left. The caller must hold the lock.

    Raises:
        OutputError: another folder now exists at the old one's path, or a foreign file cannot be moved.
    """
    for folder in (out, refused_folder(out)):
        staging, old = _sibling(folder, "partial"), _sibling(folder, "old")

        if old.exists() and folder.exists() and not staging.exists():  # the new folder was already published
            hand_over(old, folder)
        elif old.exists():
            _put_back(old, folder)

        if staging.exists():
            shutil.rmtree(staging)


def _put_back(old: Path, path: Path) -> None:
    try:
        old.rename(path)
    except OSError as error:
        raise OutputError(
            f"{old} is what stood at {path} before an export that was killed, and something else stands there "
            "now. Move one of them away."
        ) from error


def _tidy(out: Path) -> None:
    with contextlib.suppress(OSError, OutputError):  # the next export reports what cannot be removed
        _recover(out)


def _sibling(path: Path, kind: str) -> Path:
    return path.with_name(f".{path.name}.bge-export.{kind}")
