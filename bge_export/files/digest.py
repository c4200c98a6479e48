"""Digests of files and sets of files, which identify the exact bytes of checkpoints, artifacts and reports."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from bge_export.files.regular import open_regular

CHUNK_BYTES = 1 << 20


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hexadecimal.

    Raises:
        OSError: the file cannot be read or is not a regular file.
    """
    digest = hashlib.sha256()
    with open_regular(path) as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def file_digests(root: Path, names: Iterable[str]) -> dict[str, str]:
    """Return name -> sha256 for files given relative to `root`, sorted by name.

    Raises:
        OSError: a file cannot be read.
    """
    return {name: file_sha256(root / name) for name in sorted(set(names))}


def combined_digest(digests: Mapping[str, str]) -> str:
    """Return one sha256 over file names and content digests, independent of the mapping's order."""
    combined = hashlib.sha256()
    for name in sorted(digests):
        # A file name cannot contain a zero byte, so two sets of files never produce the same text.
        combined.update(f"{name}\0{digests[name]}\n".encode())
    return combined.hexdigest()


def tree_digest(root: Path, names: Iterable[str]) -> str:
    """Return one sha256 over the names and contents of files given relative to `root`.

    Raises:
        OSError: a file cannot be read.
    """
    return combined_digest(file_digests(root, names))
