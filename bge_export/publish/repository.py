"""What a repository on the Hub holds, compared with the files that are published; nothing is changed here."""

from collections.abc import Sequence
from pathlib import PurePosixPath

from bge_export.bundle.documents import SIGNATURE, STATEMENT, is_document
from bge_export.checkpoint.hub_listing import Listing, list_files
from bge_export.parity.figures import escaped
from bge_export.publish.contents import PublishedFile
from bge_export.publish.envelope import IGNORED
from bge_export.publish.problems import explain, status_of


def look(repository: str, revision: str = "main") -> Listing | None:
    """Return the files of a repository; None if there is no such repository, or no such revision.

    Raises:
        HubError: the Hub cannot be reached, or refuses to say.
    """
    try:
        return list_files(repository, revision)
    except Exception as error:
        # The Hub answers about a repository that is missing with 401 to those who gave no valid token.
        if status_of(error) == 404 or is_missing(error):
            return None
        raise explain(error, repository, "reading what it holds") from error


def is_missing(error: Exception) -> bool:
    """Return whether the Hub says that a repository does not exist."""
    from huggingface_hub.errors import RepositoryNotFoundError

    return isinstance(error, RepositoryNotFoundError) and error.response.headers.get("X-Error-Code") == "RepoNotFound"


def differing(files: Sequence[PublishedFile], listing: Listing) -> list[str]:
    """Return the names of files that a repository lacks, or holds with other bytes."""
    return [file.name for file in files if not file.is_held_as(listing.digests.get(file.name))]


def unproven(files: Sequence[PublishedFile], listing: Listing) -> list[str]:
    """Return the names in a repository that would lie unproven beside the published files, as in a folder.

    Beside a signature these are all files that it does not name; without one, an old signature is.
    """
    ours = {file.name for file in files}
    others = [name for name in listing.digests if name not in ours]
    if SIGNATURE in ours:
        return sorted(name for name in others if name not in IGNORED)
    return sorted(name for name in others if name in (SIGNATURE, STATEMENT) or not is_document(PurePosixPath(name)))


def shown(names: Sequence[str]) -> str:
    """Return the first names for a message, with their control characters escaped."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(escaped(name[:120]) for name in names[:3]) + more
