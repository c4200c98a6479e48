"""What others put into a folder that bge-export wrote (a model card, say): no export removes, changes or shares it."""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from bge_export.bundle_files import CARD, GENERATED_CARD, MANIFEST, REPORT, decides
from bge_export.errors import ArtifactError, OutputError
from bge_export.manifest import read_manifest


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
    try:
        manifest = read_manifest(folder)
    except ArtifactError as error:
        raise OutputError(
            f"{folder / MANIFEST} cannot be read, so nothing tells which files there are yours and which can be "
            "replaced. Move the folder away, or choose another one with --output."
        ) from error
    names = tuple(_unlisted(folder, {MANIFEST, REPORT, *manifest.files}))
    for name in names:
        _refuse_what_cannot_stay(folder / name)
    return names


def carry(names: Sequence[str], source: Path, target: Path) -> None:
    """Copy what others put into `source` to `target`: links as links, with modes and times.

    Raises:
        OutputError: `target` has a file of that name.
        OSError: something cannot be copied.
    """
    for name in names:
        old, new = source / name, target / name
        folder = old.is_dir() and not old.is_symlink()
        if os.path.lexists(new) and _is_generated_card(old):
            continue  # the export wrote a newer one
        if os.path.lexists(new) and not (folder and new.is_dir()):
            raise OutputError(
                f"{old} was not written by bge-export, and the export has a file of that name. "
                "Move it away and export again, or choose another folder with --output."
            )
        (new if folder else new.parent).mkdir(parents=True, exist_ok=True)
        if not folder:
            shutil.copy2(old, new, follow_symlinks=False)
    for name in reversed(names):  # a folder's mode comes last: it may forbid writing into it
        if (source / name).is_dir() and not (source / name).is_symlink():
            shutil.copystat(source / name, target / name)


def _is_generated_card(path: Path) -> bool:
    return path.name == CARD and path.is_file() and GENERATED_CARD in path.read_text("utf-8", errors="replace")


def _refuse_what_cannot_stay(path: Path) -> None:
    if decides(PurePosixPath(path.name.lower())) and path.is_file():
        raise OutputError(
            f"{path} is a model, or decides what loading one gives, and bge-export did not write it: it would be "
            "published unproven. "
            "Move it away, or choose another folder with --output."
        )
    copyable = path.is_symlink() or path.is_dir() or (path.is_file() and os.access(path, os.R_OK))
    if not copyable:
        raise OutputError(
            f"{path} was not written by bge-export and cannot be copied: it is no file, folder or link that can be "
            "read. Move it away, or choose another folder with --output."
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
