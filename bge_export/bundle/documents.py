"""The files that may lie in a bundle although its manifest does not list them: documents, and what the tool writes.

Everything else is refused, whatever its name ends in, because people publish whole folders. Links are refused too: a
copy of the folder could lead elsewhere. Only what Git and huggingface_hub keep for themselves is left alone: neither
uploads it, and no loader of models reads it.
"""

import os
import re
import stat
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

from bge_export.files.single import is_left

DOCUMENTS = re.compile(
    r"readme([-_.][a-z]{2}([-_][a-z]{2,4})?)?\.md"
    r"|(licen[cs]e|notice|copying)([-_][a-z0-9]+|\.[0-9]+|\.(apache|bsd|gpl|lesser|lib|mit))*(\.(md|txt|rst))?"
    r"|\.gitattributes|\.gitignore"
    r"|[^/]+\.(png|jpe?g|svg|gif|webp)"
)
"""Names, in lower case, of files that may lie in any folder of a bundle."""

SIGNATURE = "model.sig"
"""The signature of a folder by OpenSSF model signing; it names every other file with its digest."""
STATEMENT = "parity.intoto.jsonl"
"""The signed in-toto statement of a folder: the limits, lanes and worst figures by which it was proven."""

REPORTS = re.compile(
    r"(parity|bench)[-_.a-z0-9]*\.(json|html)|bge_export\.limits\.toml|model\.sig|parity\.intoto\.jsonl"
)
"""Names, in lower case, of files at the top of a bundle that hold what the tool writes about it."""

EVALUATIONS = re.compile(r"\.eval_results/[a-z0-9][-_.a-z0-9]*\.yaml")
"""Paths, in lower case, of scores that the Hub shows."""

PRIVATE = frozenset({".git", ".cache/huggingface"})
"""Paths that Git and huggingface_hub keep for themselves. They are not looked into."""

KINDS = "a README.md, LICENSE or NOTICE, .gitattributes, .gitignore, a picture, or a report or signature of bge-export"
"""The allowed kinds, for messages."""


def is_document(path: PurePosixPath) -> bool:
    """Return whether a file, relative to its bundle, may lie there unlisted."""
    if DOCUMENTS.fullmatch(path.name.lower()) or EVALUATIONS.fullmatch(path.as_posix().lower()):
        return True
    return len(path.parts) == 1 and REPORTS.fullmatch(path.name.lower()) is not None


def strangers(root: Path, listed: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield the relative name of each path that must not lie in a bundle, and the reason.

    Args:
        root: the folder.
        listed: the files that its manifest lists, and the manifest.

    Raises:
        OSError: a folder cannot be listed.
    """
    for name, mode in entries(root):
        if stat.S_ISLNK(mode):
            yield name, "is a link, and the file it leads to may be another one elsewhere"
        elif not stat.S_ISREG(mode):
            yield name, "is a pipe, socket or device, not a file"
        elif name not in listed and is_left(PurePosixPath(name).name):
            yield name, "is the unfinished part of a file, left by a process that was ended while it wrote it"
        elif name not in listed and not is_document(PurePosixPath(name)):
            yield name, "is not in bge_export.json, so nothing is known of it"


def entries(root: Path) -> Iterator[tuple[str, int]]:
    """Yield name and mode of everything below `root` that is not a folder, without following links."""
    for here, folders, files in os.walk(root, onerror=_raise):
        paths = {name: (Path(here) / name).relative_to(root).as_posix() for name in (*folders, *files)}
        modes = {name: os.lstat(Path(here) / name).st_mode for name in paths if paths[name] not in PRIVATE}

        folders[:] = sorted(name for name in folders if name in modes and stat.S_ISDIR(modes[name]))
        for name in sorted(modes):
            if not stat.S_ISDIR(modes[name]):
                yield paths[name], modes[name]


def _raise(error: OSError) -> None:
    """Raise the error that `os.walk` would ignore: what cannot be listed is not known."""
    raise error
