"""Fetches what was published: the files that a repository's manifest lists, and their proof, as a folder to check.

The names come from the Hub, so only plain ones become paths. Nothing that is not fetched is trusted: a file that
neither the manifest lists nor a document may be is refused by its name alone.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from bge_export.bundle.documents import SIGNATURE, is_document
from bge_export.bundle.integrity import CARD, MANIFEST, REPORT
from bge_export.bundle.manifest import read_manifest
from bge_export.checkpoint.hub_errors import explain
from bge_export.checkpoint.hub_files import fetch_file
from bge_export.checkpoint.hub_listing import Listing, list_files
from bge_export.errors import ArtifactError
from bge_export.files.cache import cache_folder
from bge_export.files.regular import REPORT_BYTES, SETTINGS_BYTES, WEIGHTS_BYTES
from bge_export.progress import advance, stage
from bge_export.publish.envelope import IGNORED
from bge_export.publish.repository import shown

NAME = re.compile(r"(?!.*(?:^|/)\.\.?(?:/|$))[\w.+-]+(?:/[\w.+-]+)*", re.ASCII)
"""Names that become paths: every name that an export writes is one."""
LIMITS = {MANIFEST: SETTINGS_BYTES, REPORT: REPORT_BYTES, CARD: SETTINGS_BYTES}


@dataclass(frozen=True)
class Fetched:
    """A published folder as it was fetched.

    Attributes:
        folder: a folder that holds the files, for as long as the block runs.
        commit: the revision that they were fetched from.
    """

    folder: Path
    commit: str


@contextmanager
def fetched(repository: str, revision: str | None) -> Iterator[Fetched]:
    """Yield the files of a repository that its manifest lists, with manifest, report and card; all if it is signed.

    Raises:
        ArtifactError: nothing was published there by bge-export, or it holds files that the manifest does not list.
        CheckpointError: the repository or the revision does not exist.
        HubError: the Hub cannot be reached, or sends other bytes than it promised.
    """
    try:
        listing = list_files(repository, revision)
    except Exception as error:
        raise explain(error, repository, revision) from error

    if MANIFEST not in listing.digests or REPORT not in listing.digests:
        missing = MANIFEST if MANIFEST not in listing.digests else REPORT
        raise ArtifactError(f"{repository} at {listing.commit[:12]} holds no {missing}: nothing there was proven.")

    with _temporary() as folder:
        _place(repository, MANIFEST, listing, folder)
        names = _wanted(repository, folder, listing)
        with stage(f"fetching {repository}", len(names)):
            for name in names:
                _place(repository, name, listing, folder)
                advance()
        yield Fetched(folder, listing.commit)


def _wanted(repository: str, folder: Path, listing: Listing) -> list[str]:
    """Return the names of the files to fetch besides the manifest."""
    where = f"{repository} at {listing.commit[:12]}"
    listed = set(read_manifest(folder).files)

    if strange := sorted(name for name in listed if not NAME.fullmatch(name)):
        raise ArtifactError(f"{where}: {MANIFEST} lists {shown(strange)}, which no export writes. Do not use it.")

    unlisted = [name for name in listing.digests if name not in listed and name not in LIMITS]
    if others := sorted(name for name in unlisted if not is_document(PurePosixPath(name))):
        raise ArtifactError(
            f"{where} holds {shown(others)}, which {MANIFEST} does not list, so nothing is known of it. Do not use it."
        )

    if missing := sorted(listed - set(listing.digests)):
        raise ArtifactError(f"{where} lacks {shown(missing)}, which {MANIFEST} lists. Do not use it.")
    beside = {REPORT, CARD} & set(listing.digests)
    if SIGNATURE in listing.digests:
        beside |= _signed_beside(where, unlisted)
    return sorted((listed | beside) - {MANIFEST})


def _signed_beside(where: str, unlisted: Sequence[str]) -> set[str]:
    """Return the documents of a signed repository, and its signature: a file that was not signed is to be seen."""
    names = {name for name in unlisted if name not in IGNORED - {SIGNATURE}}
    if strange := sorted(name for name in names if not NAME.fullmatch(name)):
        raise ArtifactError(f"{where} holds {shown(strange)}, which no signed folder holds. Do not use it.")
    return names


def _place(repository: str, name: str, listing: Listing, folder: Path) -> None:
    """Fetch a file, and put it into the folder: the cache holds links, which a folder must not."""
    path = fetch_file(repository, name, listing, LIMITS.get(name, WEIGHTS_BYTES)).resolve()
    target = folder / name

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, target)
        except OSError:  # another file system, or one without hard links
            shutil.copyfile(path, target)
    except OSError as error:
        raise ArtifactError(
            f"{repository}: {name} cannot be put into a folder with the other files: {error.strerror or error}."
        ) from error


@contextmanager
def _temporary() -> Iterator[Path]:
    """Yield a folder that is removed at the end, on the file system of the user's cache if that can be written."""
    parent: Path | None = None
    with contextlib.suppress(OSError, RuntimeError):
        cache_folder().mkdir(parents=True, exist_ok=True)
        parent = cache_folder()

    with TemporaryDirectory(prefix="verify-", dir=parent) as name:
        yield Path(name)
