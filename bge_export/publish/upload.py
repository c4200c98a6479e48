"""Uploads files to a repository on the Hub, in one commit whose parent is the revision that was looked at.

Large files are sent first: they lie in the Hub's storage, and no revision names them before the commit. So a repository
is at its old or at its new revision whenever this is interrupted, and a repeated upload sends nothing twice.
`HfApi.upload_folder` is not used: it splits a folder into several commits.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from bge_export.checkpoint.hub_guard import COMMIT, run
from bge_export.checkpoint.hub_listing import LISTING_BYTES
from bge_export.checkpoint.hub_settings import progress_on_terminals_only
from bge_export.checkpoint.hub_transfer import Transfer
from bge_export.errors import ArtifactError, HubError, OutputError
from bge_export.parity.figures import escaped
from bge_export.progress import advance, stage
from bge_export.publish.contents import PublishedFile
from bge_export.publish.problems import explain, status_of

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd

T = TypeVar("T")

SLOWEST_BYTES_PER_SECOND = 10_000
"""An upload that is slower is given up."""
QUOTED = 300


@dataclass(frozen=True)
class Destination:
    """Where files are committed.

    Attributes:
        repository: the repository.
        revision: the branch, or the reference of a pull request.
        parent: the commit that the new one follows; the Hub refuses it if the branch has moved on.
        proposes: whether the commit opens a pull request.
    """

    repository: str
    revision: str
    parent: str
    proposes: bool = False


@dataclass(frozen=True)
class Message:
    """The text of a commit, which is also that of its pull request."""

    title: str
    description: str


@dataclass(frozen=True)
class Committed:
    """A commit that the Hub says it made; `pull_request` is the number of the one that it opened, if any."""

    commit: str
    pull_request: int | None


def create(repository: str, *, private: bool) -> None:
    """Create a repository for a model.

    Raises:
        HubError: the Hub refuses.
    """
    from huggingface_hub import HfApi

    _call(
        repository,
        "creating the repository",
        lambda: HfApi().create_repo(repository, private=private or None, exist_ok=True),
    )


def refuse_card(repository: str, content: bytes) -> None:
    """Raise OutputError if the Hub would refuse a model card for its front matter; nothing is uploaded for that."""
    from huggingface_hub import ModelCard

    try:
        run(Transfer(repository, LISTING_BYTES), lambda: ModelCard(content.decode("utf-8")).validate())
    except Exception as error:
        if isinstance(error, ValueError) and status_of(error) in (400, None):
            # Neither the request nor its answer holds a token.
            raise OutputError(
                f"README.md: the Hub refuses its front matter: {escaped(str(error)[:QUOTED])}. Correct it, or remove "
                "the file to publish a card that is made from the report."
            ) from error
        raise explain(error, repository, "checking the card") from error


def send(files: Sequence[PublishedFile], destination: Destination) -> "Sequence[CommitOperationAdd]":
    """Send the bytes of files to the Hub's storage; return what `commit` adds.

    Raises:
        HubError: the Hub refuses, or would leave a file out.
        ArtifactError: a file changed while it was sent.
    """
    from huggingface_hub import CommitOperationAdd

    # Large files one by one, so that the progress is seen; small ones go with the commit itself.
    large = [[file] for file in files if file.content is None]
    small = [file for file in files if file.content is not None]
    made = []

    with progress_on_terminals_only(), stage(f"uploading to {destination.repository}", len(files)):
        for group in (*large, *([small] if small else [])):
            added = [CommitOperationAdd(file.name, file.content or str(file.path)) for file in group]
            _send(group, added, destination)
            made += added
            advance(len(group))

    return made


def commit(
    added: "Sequence[CommitOperationAdd]", removed: Sequence[str], destination: Destination, message: Message
) -> Committed:
    """Make one commit of sent files and removed ones.

    Raises:
        HubError: the Hub refuses, or its answer is lost; then the commit may have been made.
    """
    from huggingface_hub import CommitInfo, CommitOperationDelete, HfApi

    def ask() -> CommitInfo:
        return HfApi().create_commit(
            destination.repository,
            [*added, *(CommitOperationDelete(name, is_folder=False) for name in removed)],
            commit_message=message.title,
            commit_description=message.description,
            revision=destination.revision,
            parent_commit=destination.parent,
            create_pr=destination.proposes,
        )

    info = _call(destination.repository, "committing", ask, sum(one.upload_info.size for one in added))
    if not COMMIT.fullmatch(str(info.oid)):
        raise HubError(
            f"{destination.repository}: the Hub names the new commit {str(info.oid)[:80]!r}, which is not 40 "
            "hexadecimal digits. A proxy or mirror answers in its place: check HF_ENDPOINT."
        )
    return Committed(str(info.oid), info.pr_num if destination.proposes else None)


def _send(files: Sequence[PublishedFile], added: "Sequence[CommitOperationAdd]", destination: Destination) -> None:
    """Ask the Hub how it takes some files, and send those that it stores apart from git."""
    from huggingface_hub import HfApi

    def ask() -> None:
        HfApi().preupload_lfs_files(
            destination.repository,
            added,
            revision=destination.revision,
            create_pr=destination.proposes,
            free_memory=False,
        )

    doing = f"uploading {files[0].name}" if len(files) == 1 else "uploading"
    _call(destination.repository, doing, ask, sum(file.size for file in files))

    # The library leaves ignored files out of a commit without a word, and has no public name for what the Hub answered.
    for file, operation in zip(files, added, strict=True):
        if operation._should_ignore:
            raise OutputError(
                f"{destination.repository}: its .gitignore leaves {file.name} out. Change that file there, and publish "
                "again."
            )
        if operation._upload_mode == "lfs":
            _refuse_other_bytes(file, operation)
        elif file.content is None:
            raise HubError(f"{destination.repository}: the Hub takes {file.name} for a small file. Check HF_ENDPOINT.")


def _refuse_other_bytes(file: PublishedFile, operation: "CommitOperationAdd") -> None:
    """Raise ArtifactError if a file was sent with other bytes than the gate saw."""
    if operation.upload_info.sha256.hex() != file.sha256:
        raise ArtifactError(
            f"{file.path} changed while it was uploaded. Nothing was committed. Let nothing write into the folder, and "
            "publish again."
        )


def _call(repository: str, doing: str, call: Callable[[], T], sends: int = 0) -> T:
    """Return the result of a call of huggingface_hub that sends so many bytes, under the limits of its answers."""
    limits = Transfer(repository, LISTING_BYTES, upload_seconds=sends / SLOWEST_BYTES_PER_SECOND)
    try:
        return run(limits, call)
    except Exception as error:
        raise explain(error, repository, doing) from error
