"""Fetches single files of a model into the Hub's cache, each limited in size and compared with the Hub's digest."""

import time
from pathlib import Path

from bge_export.checkpoint.hub_cache import DIGEST, verify
from bge_export.checkpoint.hub_errors import explain, is_worth_repeating
from bge_export.checkpoint.hub_guard import run
from bge_export.checkpoint.hub_listing import Listing
from bge_export.checkpoint.hub_settings import plain_transfers, progress_on_terminals_only
from bge_export.checkpoint.hub_transfer import Transfer
from bge_export.errors import BgeExportError, HubError

ATTEMPTS = 3


def transfer_of(model_id: str, name: str, listing: Listing, most: int) -> Transfer:
    """Return the limits of one file's transfer.

    Args:
        model_id: the model.
        name: the file.
        listing: what the Hub says of it.
        most: the size limit of such a file, in bytes.

    Raises:
        HubError: the Hub gives an invalid digest, or a size that is not plausible for the file.
    """
    what = f"{model_id}: {name}"
    digest, size = listing.digests[name], listing.sizes[name]

    if digest is not None and not (isinstance(digest, str) and DIGEST.fullmatch(digest)):
        raise HubError(
            f"{what}: the Hub gives the digest {str(digest)[:80]!r}, which is not 40 or 64 hexadecimal digits, so "
            "nothing was fetched. A proxy or mirror answers in its place: check HF_ENDPOINT."
        )

    if size is not None and not (isinstance(size, int) and 0 <= size <= most):
        raise HubError(
            f"{what}: the Hub gives the size {size!r}; such a file has {most} bytes at most, so nothing was fetched. "
            "Choose another checkpoint, or fetch it yourself and give its folder."
        )

    return Transfer(what, most if size is None else size, ATTEMPTS)


def fetch_file(model_id: str, name: str, listing: Listing, most: int) -> Path:
    """Return a file in the cache, after its bytes were compared with the Hub's digest.

    Raises:
        HubError: the Hub cannot be reached, or sends other bytes than it promised.
    """
    transfer = transfer_of(model_id, name, listing, most)
    with progress_on_terminals_only(), plain_transfers():
        path = download(model_id, listing.commit, name, transfer)

    verify(path, model_id, name, listing.digests[name])
    return path


def download(model_id: str, revision: str, name: str, transfer: Transfer) -> Path:
    """Return a file in the cache; a transfer that breaks is started again.

    Raises:
        HubError: the Hub cannot be reached, refuses, or sends more than it promised.
    """
    from huggingface_hub import hf_hub_download

    for attempt in range(1, ATTEMPTS + 1):
        try:
            return Path(run(transfer, lambda: hf_hub_download(model_id, name, revision=revision)))
        except BgeExportError:
            raise
        except Exception as error:
            if attempt == ATTEMPTS or not is_worth_repeating(error):
                raise explain(error, model_id, revision, name) from error

        time.sleep(attempt)

    raise AssertionError("unreachable: the last attempt returns or raises")
