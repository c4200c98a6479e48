"""Digests of files and of sets of files, which tie checkpoints, artifacts and reports to their bytes."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from bge_export.files.regular import open_regular

CHUNK_BYTES = 1 << 20


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hexadecimal.

    Raises:
        OSError: the file cannot be read, or is no regular file.
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
    """Return one sha256 over names and the digests of their content, whatever the mapping's order."""
    combined = hashlib.sha256()
    for name in sorted(digests):
        # The zero byte cannot be in a file name, so no two sets of files share one text.
        combined.update(f"{name}\0{digests[name]}\n".encode())
    return combined.hexdigest()


def tree_digest(root: Path, names: Iterable[str]) -> str:
    """Return one sha256 over the names and the content of files given relative to `root`.

    Raises:
        OSError: a file cannot be read.
    """
    return combined_digest(file_digests(root, names))
