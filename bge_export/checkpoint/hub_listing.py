"""Asks the Hub for the files of a model at a revision, with their digests and sizes."""

from collections.abc import Mapping
from dataclasses import dataclass

from bge_export.checkpoint.hub_guard import COMMIT, run
from bge_export.checkpoint.hub_transfer import Transfer
from bge_export.errors import HubError
from bge_export.files.regular import MIB

STEP_SECONDS = 5.0
"""Timeout of the request for its connection, and again for its answer."""
CONTACT_SECONDS = 6.0
"""Timeout of the whole request, including name resolution, which no HTTP client limits."""
LISTING_BYTES = 32 * MIB
"""The size limit of the answer; a repository with a hundred thousand files stays below it."""


@dataclass(frozen=True)
class Listing:
    """The Hub's description of a commit.

    Attributes:
        commit: its 40 hexadecimal digits.
        digests: file -> sha256 of large files, git's blob hash of small ones, None if not given.
        sizes: file -> bytes, None if not given.
    """

    commit: str
    digests: Mapping[str, str | None]
    sizes: Mapping[str, int | None]


def list_files(model_id: str, revision: str | None) -> Listing:
    """Return the files of a model at a revision, by default its main branch.

    Raises:
        HubError: the Hub's answer names no commit.
        Exception: any error of huggingface_hub; the caller explains it.
    """
    from huggingface_hub import HfApi

    def ask() -> Listing:
        info = HfApi().model_info(model_id, revision=revision or "main", files_metadata=True, timeout=STEP_SECONDS)
        files = info.siblings or []
        return Listing(
            str(info.sha),
            {str(f.rfilename): f.lfs.sha256 if f.lfs else f.blob_id for f in files},
            {str(f.rfilename): f.lfs.size if f.lfs else f.size for f in files},
        )

    listing = run(Transfer(model_id, LISTING_BYTES), ask, CONTACT_SECONDS)
    if not COMMIT.fullmatch(listing.commit):
        raise HubError(
            f"{model_id}: the Hub gives the commit {listing.commit[:80]!r}, which is not 40 hexadecimal digits, so "
            "nothing was fetched. A proxy or mirror answers in its place: check HF_ENDPOINT."
        )

    return listing
