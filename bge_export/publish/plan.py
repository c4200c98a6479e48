"""Plans what publishing changes in a repository, and checks afterwards that it was changed so."""

from collections.abc import Sequence
from dataclasses import dataclass

from bge_export.checkpoint.hub_listing import Listing
from bge_export.errors import BgeExportError, HubError, OutputError
from bge_export.publish.contents import PublishedFile
from bge_export.publish.problems import AGAIN
from bge_export.publish.pull_requests import open_pull_request, reference_of
from bge_export.publish.repository import differing, look, shown, unproven
from bge_export.publish.upload import Committed, Destination


@dataclass(frozen=True)
class Request:
    """What is to be published, and how.

    Attributes:
        repository: the repository.
        files: what it must hold.
        title: the title of the commit and of its pull request.
        create_pr: whether the files are proposed in a pull request.
        remove_others: whether files of the repository that nothing proves are removed.
    """

    repository: str
    files: Sequence[PublishedFile]
    title: str
    create_pr: bool
    remove_others: bool


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
        before: what the branch of the commit holds now; None if the repository does not exist.
        pull_request: the number of the pull request that an earlier call opened, if any.
        changed: names of the files that are new, or have other bytes.
        others: names of files that would lie there unproven.
    """

    before: Listing | None
    pull_request: int | None
    changed: Sequence[str]
    others: Sequence[str]

    @property
    def done(self) -> bool:
        """Return whether nothing is left to do."""
        return self.before is not None and not self.changed and not self.others

    def destination(self, request: Request) -> Destination:
        """Return where the commit goes: to the main branch, to the pull request, or into a new one.

        Raises:
            HubError: the repository does not exist.
        """
        if self.before is None:
            raise HubError(f"{request.repository} was created, and the Hub does not know it yet. {AGAIN}.")
        if self.pull_request is not None:
            return Destination(request.repository, reference_of(self.pull_request), self.before.commit)
        return Destination(request.repository, "main", self.before.commit, request.create_pr)


def planned(request: Request) -> Plan:
    """Look at a repository, and at the pull request that an earlier call opened there.

    Raises:
        OutputError: a pull request is asked for, and there is no repository.
        HubError: the Hub cannot be reached, or refuses to say.
    """
    repository, files = request.repository, request.files
    listing, number = look(repository), None
    if listing is None:
        if request.create_pr:
            raise OutputError(
                f"{repository}: the Hub has no such model, so no pull request can be opened there. Check its spelling, "
                "or leave --create-pr out to create it."
            )
        return Plan(None, None, [file.name for file in files], ())

    if request.create_pr and (differing(files, listing) or unproven(files, listing)):
        number = open_pull_request(repository, request.title)
        proposed = None if number is None else look(repository, reference_of(number))
        listing = proposed or listing

    return Plan(listing, number, differing(files, listing), unproven(files, listing))


def refuse_others(request: Request, plan: Plan) -> None:
    """Raise OutputError if a repository holds files that would lie there unproven, unless they are to be removed."""
    if plan.others and not request.remove_others:
        raise OutputError(
            f"{request.repository} holds {shown(plan.others)}, which nothing proves: the gate would refuse such a "
            "folder. Remove them there, or publish with --remove-others, which removes them in the same commit."
        )


def after_a_lost_answer(error: BaseException, request: Request, destination: Destination) -> Committed:
    """Return the commit if the Hub made it although its answer was lost; else raise the error, and where things are."""
    repository = request.repository
    reason = str(error) if isinstance(error, BgeExportError) else "Interrupted while the files were committed."

    try:
        now = planned(request)
    except BgeExportError as other:
        raise HubError(
            f"{reason} Whether the commit was made is not known: {repository} is whole, at "
            f"{destination.parent[:12]} or at the new revision. {AGAIN}."
        ) from other

    if now.done and now.before is not None:
        return Committed(now.before.commit, now.pull_request)

    at = destination.parent if now.before is None else now.before.commit
    state = "is as it was, at" if at == destination.parent else "is now, by another commit, at"
    kind = type(error) if isinstance(error, BgeExportError) else HubError
    raise kind(f"{reason} {repository} {state} {at[:12]}.") from error


def refuse_other_bytes(request: Request, done: Committed, parent: str) -> None:
    """Read a commit back, and raise HubError unless it holds the files byte for byte, and nothing unproven."""
    where = f"{request.repository} at {done.commit[:12]}"
    try:
        listing = look(request.repository, done.commit)
    except BgeExportError as error:
        raise HubError(f"{where}: published, but it could not be read back: {error} {AGAIN}.") from error

    held = Listing(done.commit, {}, {}) if listing is None else listing
    if wrong := differing(request.files, held):
        raise HubError(
            f"{where}: the Hub holds other bytes of {shown(wrong)} than were sent, or none. Do not use this revision: "
            f"the one before is {parent[:12]}. {AGAIN}."
        )
    if beside := unproven(request.files, held):
        raise HubError(f"{where}: the Hub still holds {shown(beside)}, which the commit removed. {AGAIN}.")
