"""The files of a folder that are published: those of its manifest, the manifest, the report and the card.

A signed folder is published as it was signed: every file that its signature names, and the signature.

Each is read once, through no link, and compared with the manifest at that moment. Small files are then held in memory,
so that what is uploaded is what was compared.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bge_export.bundle.documents import SIGNATURE, entries
from bge_export.bundle.integrity import CARD, MANIFEST, REPORT
from bge_export.bundle.manifest import Manifest
from bge_export.errors import ArtifactError, OutputError
from bge_export.files.digest import file_sha256
from bge_export.files.regular import MIB, REPORT_BYTES, SETTINGS_BYTES, read_regular

HELD_BYTES = 8 * MIB
"""Larger files stay on disk; the Hub stores them apart from git, by their sha256."""


@dataclass(frozen=True)
class PublishedFile:
    """One file as it is published.

    Attributes:
        name: its path in the repository.
        size: its bytes.
        sha256: the digest of its bytes.
        content: its bytes if it is small, else None.
        path: where it lies; None if it was made for publishing.
    """

    name: str
    size: int
    sha256: str
    content: bytes | None
    path: Path | None

    @classmethod
    def of_bytes(cls, name: str, content: bytes, path: Path | None = None) -> "PublishedFile":
        """Return a file whose bytes are in memory."""
        return cls(name, len(content), hashlib.sha256(content).hexdigest(), content, path)

    def is_held_as(self, digest: str | None) -> bool:
        """Return whether a digest that the Hub gives is that of this file: a sha256, or git's blob hash."""
        if digest is None or len(digest) != 40:
            return digest == self.sha256
        if self.content is None:
            return False

        blob = b"blob %d\0" % self.size + self.content
        return digest == hashlib.sha1(blob, usedforsecurity=False).hexdigest()


def proof_files(folder: Path) -> Mapping[str, PublishedFile]:
    """Return manifest and report of a folder, with their bytes.

    Raises:
        ArtifactError: one of them is missing or cannot be read.
    """
    return {
        name: PublishedFile.of_bytes(name, _read(folder / name, most), folder / name)
        for name, most in ((MANIFEST, SETTINGS_BYTES), (REPORT, REPORT_BYTES))
    }


def listed_files(folder: Path, manifest: Manifest) -> Sequence[PublishedFile]:
    """Return the files that a manifest lists, each with the digest that the manifest gives.

    Raises:
        ArtifactError: a file cannot be read, or its bytes are others.
    """
    return [_listed(folder / name, name, digest) for name, digest in sorted(manifest.files.items())]


def own_card(folder: Path) -> PublishedFile | None:
    """Return the folder's `README.md`, None if it has none.

    Raises:
        ArtifactError: it cannot be read.
    """
    path = folder / CARD
    return PublishedFile.of_bytes(CARD, _read(path, SETTINGS_BYTES), path) if path.exists() else None


def as_signed(folder: Path, proven: Sequence[PublishedFile], digests: Mapping[str, str]) -> list[PublishedFile]:
    """Return the files that a folder's signature names, and the signature.

    Args:
        folder: the folder.
        proven: its files that the gate passed, without the card.
        digests: name -> sha256, as the signature says; by whom it was made is not asked here.

    Raises:
        ArtifactError: the signature is of other bytes, or of other files.
        OutputError: it is not of a card, without which nothing is published.
    """
    if CARD not in digests:
        raise OutputError(
            f"{folder} was signed without a {CARD}, and a card that is made now would not be signed. Publish it with "
            f"--sign, or put a {CARD} there and sign again."
        )

    known = {file.name: file for file in proven}
    there = {name for name, _ in entries(folder)}
    if other := sorted((known.keys() - digests.keys()) | (digests.keys() - there)):
        raise ArtifactError(
            f"{folder / SIGNATURE} is of other files: {other[0]} is missing there or here. Sign the folder again."
        )

    found = [known.get(name) or _file(folder / name, name) for name in sorted(digests)]
    for file in found:
        if file.sha256 != digests[file.name]:
            raise ArtifactError(f"{folder / file.name} changed after it was signed. Sign the folder again.")

    path = folder / SIGNATURE
    return [*found, PublishedFile.of_bytes(SIGNATURE, _read(path, SETTINGS_BYTES), path)]


def _file(path: Path, name: str) -> PublishedFile:
    try:
        size = path.stat().st_size
        if size > HELD_BYTES:
            return PublishedFile(name, size, file_sha256(path), None, path)
        return PublishedFile.of_bytes(name, read_regular(path, HELD_BYTES), path)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}. Export the folder again.") from error


def _listed(path: Path, name: str, digest: str) -> PublishedFile:
    file = _file(path, name)
    if file.sha256 != digest:
        raise ArtifactError(f"{path} changed while it was read. Let nothing write into the folder, and publish again.")
    return file


def _read(path: Path, most_bytes: int) -> bytes:
    try:
        return read_regular(path, most_bytes)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror or error}. Export the folder again.") from error
