"""Foreign files in a bundle, such as a model card that a user added: no export removes, changes or copies them.

A file belongs to bge-export if the folder's manifest lists it and an export writes files of its kind. The listing alone
is not enough, because a manifest from elsewhere may list anything.
"""

import os
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

from bge_export.bundle.integrity import CARD, GENERATED_CARD, LIMITS, MANIFEST, REPORT, decides
from bge_export.bundle.manifest import read_manifest
from bge_export.errors import ArtifactError, OutputError
from bge_export.files.digest import file_sha256


def foreign_files(folder: Path) -> tuple[str, ...]:
    """Return the relative names of foreign files, links and folders in a folder, parents first.

    Links are never followed. A folder, even an empty one, is foreign if it holds no file of bge-export.

    Args:
        folder: a path that does not exist yet, an empty folder, or a folder that bge-export wrote.

    Raises:
        OutputError: the path is anything else; no manifest tells which files bge-export wrote; or a foreign file cannot
            stay there.
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
    """Return the foreign files of a folder from which bge-export's files are being removed, the manifest last.

    Raises:
        OutputError: a foreign file cannot stay there.
    """
    return foreign_files(folder) if (folder / MANIFEST).is_file() else _checked(folder, set())


def own_files(folder: Path) -> dict[str, str]:
    """Return the files that bge-export wrote into a folder -> their digests, without manifest and report.

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

    # The manifest may come from elsewhere: keep only paths inside the folder, of kinds that an export writes.
    paths = {PurePosixPath(name): digest for name, digest in manifest.files.items()}
    return {
        str(path): digest
        for path, digest in paths.items()
        if not path.is_absolute() and ".." not in path.parts and decides(PurePosixPath(str(path).lower()))
    }


def refuse_loss(old: Path, new: Path) -> None:
    """Refuse to replace a folder if a foreign file would be lost.

    Args:
        old: the folder to replace: missing, empty, or written by bge-export.
        new: the folder that replaces it.

    Raises:
        OutputError: a foreign file of the old folder has the name of a file in the new one; or a file that only the old
            folder has differs from the one that bge-export wrote.
    """
    for name in foreign_files(old):
        blocked = any((new / parent).is_file() for parent in PurePosixPath(name).parents)
        if blocked or (os.path.lexists(new / name) and not may_give_way(old / name, new / name)):
            raise OutputError(
                f"{old / name} was not written by bge-export, and the export has a file of that name. "
                "Move it away and export again, or choose another folder with --output."
            )

    # A listed file that the new folder lacks is removed, so it must still be the file that bge-export wrote.
    for name, digest in own_files(old).items() if (old / MANIFEST).is_file() else ():
        leaves = (old / name).is_file() and not (new / name).exists()
        if leaves and file_sha256(old / name) != digest:
            raise OutputError(
                f"{old / name} is not the file that {MANIFEST} lists, so it may be yours, and it would be removed. "
                "Move it away and export again, or choose another folder with --output."
            )


def may_give_way(old: Path, new: Path) -> bool:
    """Return whether `new` may replace a foreign path: a generated card, or a folder if both are folders."""
    return is_generated_card(old) or (is_folder(old) and is_folder(new))


def is_folder(path: Path) -> bool:
    """Return whether a path is a folder, not a link to one."""
    return path.is_dir() and not path.is_symlink()


def is_generated_card(path: Path) -> bool:
    """Return whether a file is a card that bge-export wrote; manifests do not list cards."""
    return path.name == CARD and path.is_file() and GENERATED_CARD in path.read_text("utf-8", errors="replace")


def _checked(folder: Path, listed: set[str]) -> tuple[str, ...]:
    """Return the foreign names in a folder; raise OutputError if one of them cannot stay."""
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

    moves = str(PurePosixPath(name).parent) not in names  # the content of a foreign folder moves with it
    if moves and is_folder(path) and not os.access(path, os.W_OK):
        raise OutputError(
            f"{path} was not written by bge-export and is write-protected, so it cannot be moved into the new folder. "
            "Make it writable, or choose another folder with --output."
        )


def _unlisted(root: Path, listed: set[str]) -> Iterator[str]:
    """Yield the names below `root` that are neither listed nor a parent folder of a listed name."""
    above = {str(parent) for name in listed for parent in PurePosixPath(name).parents}

    for here, folders, files in os.walk(root, onerror=_raise):
        folders.sort()
        for path in (Path(here) / name for name in (*folders, *sorted(files))):
            name = path.relative_to(root).as_posix()
            if name not in listed and (name not in above or path.is_symlink()):
                yield name


def _raise(error: OSError) -> None:
    """Raise the error that `os.walk` would ignore: a folder that cannot be listed must not be lost."""
    raise error
