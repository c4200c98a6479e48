"""Verifies files in the local Hub cache; trusts and removes a file only if it lies inside the cache folder."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from bge_export.errors import HubError
from bge_export.files.digest import CHUNK_BYTES

DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
MOST_LINKS = 8
"""huggingface_hub creates one link, or two if files are shared between models."""


def verify(path: Path, model_id: str, name: str, promised: str | None) -> None:
    """Compare a cached file with its digest, and remove it from the cache if they differ.

    Raises:
        HubError: the bytes differ, or the file is outside the cache.
    """
    chain = tuple(_link_chain(path, model_id, name))

    # The cache names the file behind a link by its ETag, which on the Hub is the digest.
    named = chain[1].name if len(chain) > 1 else ""
    digest = (promised or named).lower()
    if not DIGEST.fullmatch(digest):
        return

    found = _git_blob_sha1(path) if len(digest) == 40 else _sha256(path)
    if found == digest:
        return

    for link in chain:
        link.unlink(missing_ok=True)
    raise HubError(
        f"{model_id}: the bytes of {name} are not what the Hub promises (digest {digest[:12]}…, got {found[:12]}…). "
        "The file was taken out of the cache: run the command again. If it happens again, a proxy or mirror changes it."
    )


def refuse_foreign(folder: Path, model_id: str) -> None:
    """Raise HubError if a file in a model's folder leads out of the cache."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or path.is_file():
            tuple(_link_chain(path, model_id, path.relative_to(folder).as_posix()))


def _link_chain(path: Path, model_id: str, name: str) -> Iterator[Path]:
    """Yield a cached file and every target in its chain of links, the file with the bytes last.

    Raises:
        HubError: one of them is outside the cache folder, or the chain does not end.
    """
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE).resolve()
    for _ in range(MOST_LINKS):
        # Only the folder is resolved: the last component is the link itself.
        link = path.parent.resolve() / path.name
        if path.name in ("", "..") or not link.is_relative_to(cache):
            break

        yield link
        if not link.is_symlink():
            return
        path = link.parent / link.readlink()

    raise HubError(
        f"{model_id}: {name} in the Hub's cache is a link that leads out of it, to {path}. It was neither read nor "
        "removed. Remove the link, or set HF_HOME to another folder, and run the command again."
    )


def _sha256(path: Path) -> str:
    return _hashed(path, "sha256", b"")


def _git_blob_sha1(path: Path) -> str:
    """Return git's blob hash of a file, which the Hub uses for files that are not in LFS."""
    return _hashed(path, "sha1", f"blob {path.stat().st_size}\0".encode())


def _hashed(path: Path, algorithm: str, start: bytes) -> str:
    digest = hashlib.new(algorithm, start, usedforsecurity=False)
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)

    return digest.hexdigest()
