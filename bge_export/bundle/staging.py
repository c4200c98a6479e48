"""Output folders that appear whole or not at all: written beside their place, then renamed into it.

While an export runs it holds `.OUT.bge-export.lock`; `.OUT.bge-export.partial` is what it writes, and what stood at OUT
is `.OUT.bge-export.old` from the moment it makes way until all that others had put into it is in the new folder. The
same names with OUT.refused in place of OUT are for refused targets of an export whose other targets are proven. A
killed export leaves these, and the next one into the same place puts the old folder back, or goes on where it ended.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from bge_export.bundle.foreign import others_in, refuse_loss
from bge_export.bundle.handover import hand_over
from bge_export.errors import OutputError

REFUSED = ".refused"
"""An export that the gate refused is left as `OUT.refused`, never as `OUT`."""


@contextmanager
def staged(out: Path, *, source: Path) -> Iterator[Path]:
    """Yield an empty folder beside `out`; it is gone afterwards unless `publish` moved it.

    Nobody else exports into `out` until then.

    Args:
        out: the folder that the user named: none yet, an empty one, or one that bge-export wrote.
        source: a folder that must survive: the checkpoint.

    Raises:
        OutputError: `out` must not be written, its parent cannot be, or another export writes there.
    """
    out = Path(os.path.abspath(out))
    with ExitStack() as stack:
        try:
            _refuse_place(out, source.resolve())
            _refuse_place(refused_place(out), source.resolve())
            places = (out, refused_place(out))
            out.parent.mkdir(parents=True, exist_ok=True)
            for place in places:
                stack.enter_context(_locked(place))
            _recover(out)
            for place in places:
                others_in(place)  # refuses what could not stay
            stack.callback(_tidy, out)
            staging = _sibling(out, "partial")
            staging.mkdir()
        except OSError as error:
            raise OutputError(
                f"{error.filename or out} cannot be written: {error.strerror}. Choose another folder with --output."
            ) from error
        yield staging


def refused_staging(out: Path) -> Path:
    """Return a new, empty folder for what is to be published as `OUT.refused`; `staged` removes it at its end."""
    folder = _sibling(refused_place(Path(os.path.abspath(out))), "partial")
    folder.mkdir()
    return folder


def publish(staging: Path, place: Path) -> None:
    """Move a finished folder to `place`, in place of what stood there; what others put there stays there.

    Whatever stops this half way, `staged` puts the old folder back, or brings over what is still in it.

    Raises:
        OutputError: something of others would be lost, and nothing was moved; or it cannot be moved, and the message
            says where it lies.
    """
    place = Path(os.path.abspath(place))
    old = _sibling(place, "old")
    refuse_loss(place, staging)
    if place.exists():
        place.rename(old)
    staging.rename(place)
    if old.exists():
        hand_over(old, place)


def refused_place(out: Path) -> Path:
    """Return where a refused export is left."""
    return out.with_name(out.name + REFUSED)


def _refuse_place(out: Path, source: Path) -> None:
    """Raise OutputError where no folder of ours may come to stand, whatever is there now."""
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
        raise OutputError(f"{above} is not a folder, so {out} cannot be in it. Choose another place with --output.")


@contextmanager
def _locked(place: Path) -> Iterator[None]:
    path = _sibling(place, "lock")
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        if not path.exists():
            raise OutputError(
                f"{path.parent} takes no new file, so nothing can be written there. "
                "Choose another folder with --output."
            ) from error
        raise OutputError(
            f"Another export writes {place} at this moment. Wait until it is done, or choose another folder "
            "with --output."
        ) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows removes it itself
            path.unlink()  # while it is held: `FileLock` takes no lock on a file without a name
        lock.release()


def _recover(out: Path) -> None:
    """Put back what an export that did not end set aside, or end it, and remove what it left. The lock must be held.

    Raises:
        OutputError: something else stands where the old folder was, or what others put there cannot be moved.
    """
    for place in (out, refused_place(out)):
        staging, old = _sibling(place, "partial"), _sibling(place, "old")
        if old.exists() and place.exists() and not staging.exists():  # the new folder came to stand
            hand_over(old, place)
        elif old.exists():
            _put_back(old, place)
        if staging.exists():
            shutil.rmtree(staging)


def _put_back(old: Path, place: Path) -> None:
    try:
        old.rename(place)
    except OSError as error:
        raise OutputError(
            f"{old} is what stood at {place} before an export that was killed, and something else stands there "
            "now. Move one of them away."
        ) from error


def _tidy(out: Path) -> None:
    with contextlib.suppress(OSError, OutputError):  # the next export says what cannot be removed
        _recover(out)


def _sibling(place: Path, kind: str) -> Path:
    return place.with_name(f".{place.name}.bge-export.{kind}")
