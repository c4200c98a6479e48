"""What others put into a folder that bge-export wrote (a model card, say): no export removes, changes or copies it.

A file is bge-export's own if the folder's manifest lists it and it is of a kind that an export writes: a manifest that
somebody else brought may list anything.
"""

import os
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

from bge_export.bundle.integrity import CARD, GENERATED_CARD, LIMITS, MANIFEST, REPORT, decides
from bge_export.bundle.manifest import read_manifest
from bge_export.errors import ArtifactError, OutputError
from bge_export.files.digest import file_sha256


def others_in(folder: Path) -> tuple[str, ...]:
    """Return the relative names of what bge-export did not write, parents first.

    These are files, links (never followed), and folders that hold nothing of bge-export's, empty ones too.

    Args:
        folder: none yet, an empty one, or one that bge-export wrote.

    Raises:
        OutputError: it is not such a folder; nothing tells what bge-export wrote there; or something cannot stay there.
    """
    if not os.path.lexists(folder):
        return ()
    if not folder.is_dir() or folder.is_symlink():
        raise OutputError(f"{folder} is not a folder. Choose another one with --output.")
    if not any(folder.iterdir()):
        return ()
    if not (folder / MANIFEST).is_file():
        raise OutputError(
            f"{folder} holds files that bge-export did not write, which --overwrite does not replace. "
            "Choose another one with --output."
        )
    return _checked(folder, {MANIFEST, REPORT, LIMITS, *own_files(folder)})


def left_in(folder: Path) -> tuple[str, ...]:
    """Return the same of a folder from which bge-export's files are being removed, the manifest last.

    Raises:
        OutputError: something cannot stay.
    """
    return others_in(folder) if (folder / MANIFEST).is_file() else _checked(folder, set())


def own_files(folder: Path) -> dict[str, str]:
    """Return the files that bge-export wrote into a folder -> their digests, but for manifest and report.

    Raises:
        OutputError: the manifest cannot be read.
    """
    try:
        manifest = read_manifest(folder)
    except ArtifactError as error:
        raise OutputError(
            f"{folder / MANIFEST} cannot be read, so nothing tells which files there are yours and which can be "
            "replaced. Move the folder away, or choose another one with --output."
        ) from error
    paths = {PurePosixPath(name): digest for name, digest in manifest.files.items()}
    return {
        str(path): digest
        for path, digest in paths.items()
        if not path.is_absolute() and ".." not in path.parts and decides(PurePosixPath(str(path).lower()))
    }


def refuse_loss(old: Path, new: Path) -> None:
    """Refuse to put one folder in place of another where something of others would be lost.

    Args:
        old: the folder that stands there: none, an empty one, or one that bge-export wrote.
        new: the folder that is to stand there.

    Raises:
        OutputError: both have a file of the same name that bge-export did not write into the old one; or a file of the
            old one, which the new one lacks, is not the one that bge-export wrote.
    """
    for name in others_in(old):
        blocked = any((new / parent).is_file() for parent in PurePosixPath(name).parents)
        if blocked or (os.path.lexists(new / name) and not may_give_way(old / name, new / name)):
            raise OutputError(
                f"{old / name} was not written by bge-export, and the export has a file of that name. "
                "Move it away and export again, or choose another folder with --output."
            )

    for name, digest in own_files(old).items() if (old / MANIFEST).is_file() else ():
        leaves = (old / name).is_file() and not (new / name).exists()
        if leaves and file_sha256(old / name) != digest:
            raise OutputError(
                f"{old / name} is not the file that {MANIFEST} lists, so it may be yours, and it would be removed. "
                "Move it away and export again, or choose another folder with --output."
            )


def may_give_way(old: Path, new: Path) -> bool:
    """Return whether a file or folder of others needs no place of its own beside `new`."""
    return is_generated_card(old) or (is_folder(old) and is_folder(new))


def is_folder(path: Path) -> bool:
    """Return whether a path is a folder itself, not a link to one."""
    return path.is_dir() and not path.is_symlink()


def is_generated_card(path: Path) -> bool:
    """Return whether a file is a card that bge-export wrote, which no manifest lists."""
    return path.name == CARD and path.is_file() and GENERATED_CARD in path.read_text("utf-8", errors="replace")


def _checked(folder: Path, listed: set[str]) -> tuple[str, ...]:
    names = tuple(_unlisted(folder, listed))
    for name in names:
        _refuse_what_cannot_stay(folder, name, names)
    return names


def _refuse_what_cannot_stay(folder: Path, name: str, names: Collection[str]) -> None:
    path = folder / name
    if decides(PurePosixPath(name.lower())) and path.is_file():
        raise OutputError(
            f"{path} is a model, or decides what loading one gives, and bge-export did not write it: it would be "
            "published unproven. "
            "Move it away, or choose another folder with --output."
        )

    if os.path.ismount(path):
        raise OutputError(
            f"{path} was not written by bge-export and is a mount point, which cannot be moved into the new folder. "
            "Unmount it, or choose another folder with --output."
        )

    moves = str(PurePosixPath(name).parent) not in names  # what lies in a folder of others moves with it
    if moves and is_folder(path) and not os.access(path, os.W_OK):
        raise OutputError(
            f"{path} was not written by bge-export and is write-protected, so it cannot be moved into the new folder. "
            "Make it writable, or choose another folder with --output."
        )


def _unlisted(root: Path, listed: set[str]) -> Iterator[str]:
    above = {str(parent) for name in listed for parent in PurePosixPath(name).parents}
    for here, folders, files in os.walk(root, onerror=_raise):
        folders.sort()
        for path in (Path(here) / name for name in (*folders, *sorted(files))):
            name = path.relative_to(root).as_posix()
            if name not in listed and (name not in above or path.is_symlink()):
                yield name


def _raise(error: OSError) -> None:
    """Raise what `os.walk` would pass over: a folder that cannot be listed must not be lost."""
    raise error
