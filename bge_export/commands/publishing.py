"""The publishing command: takes a folder that the gate passes, and uploads it to the Hub in one commit."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bge_export.bundle.integrity import CARD
from bge_export.bundle.manifest import Manifest, read_manifest
from bge_export.commands.judging import Required, judge_folder
from bge_export.commands.measuring import Proof, read_policy
from bge_export.commands.published_files import PublishOptions, signed, with_card
from bge_export.errors import ArtifactError, BgeExportError, HubError, UsageError
from bge_export.parity.figures import escaped
from bge_export.parity.gate.policy import ThresholdPolicy
from bge_export.parity.report import ParityReport
from bge_export.publish.contents import PublishedFile, listed_files, proof_files
from bge_export.publish.facts import REPOSITORY
from bge_export.publish.plan import Plan, Request, after_a_lost_answer, planned, refuse_other_bytes, refuse_others
from bge_export.publish.repository import shown
from bge_export.publish.upload import Committed, Destination, Message, commit, create, refuse_card, send


@dataclass(frozen=True)
class Published:
    """The result of publishing.

    Attributes:
        proof: the report and the verdict that was reached just before; if it is a refusal, nothing was done.
        repository: the repository.
        files: what is published.
        revision: the commit that holds it; None if nothing was changed on the Hub.
        pull_request: the number of the pull request that proposes it, if any.
        changed, removed: the names of files that the commit changes, and removes.
        already: whether the repository held all of it before.
        notes: what the user should know besides.
    """

    proof: Proof
    repository: str
    files: Sequence[PublishedFile] = ()
    revision: str | None = None
    pull_request: int | None = None
    changed: Sequence[str] = ()
    removed: Sequence[str] = ()
    already: bool = False
    notes: Sequence[str] = ()


def publish_folder(
    folder: Path, repository: str, options: PublishOptions | None = None, required: Required | None = None
) -> Published:
    """Upload a folder to the Hub in one commit, if the gate passes it at this moment; read it back and compare.

    If this is interrupted, the repository is at its old or at its new revision, and the same call finishes.

    Args:
        folder: a folder that bge-export wrote.
        repository: the repository on the Hub, as ORG/NAME; it is created if it does not exist.
        options: how it is published.
        required: what the gate must see.

    Raises:
        UsageError: the repository's name is not one.
        OutputError: the repository holds files that would lie there unproven, or does not exist.
        ArtifactError: the folder differs from its manifest, or changes meanwhile.
        HubError: the Hub cannot be reached, refuses, or holds other bytes than were sent.
    """
    options, required = options or PublishOptions(), required or Required()
    if not REPOSITORY.fullmatch(repository):
        raise UsageError(f"{repository!r} is not a repository on the Hub. Write it as ORG/NAME.")

    proof, files = _judged(folder, required)
    if not proof.verdict.passed:
        return Published(proof, repository)

    manifest, policy = read_manifest(folder), read_policy(required.thresholds)
    files, notes = with_card(folder, proof, files, repository, options, policy)
    if options.signer is not None and not options.dry_run:
        files = signed(folder, files, options, required)

    message = message_of(manifest, proof.report, policy)
    request = Request(repository, files, message.title, options.create_pr, options.remove_others)
    if options.dry_run:
        return _dry_run(proof, request, notes)

    plan = planned(request)
    if plan.before is None:
        create(repository, private=options.private)
        plan = planned(request)

    destination = plan.destination(request)
    refuse_others(request, plan)
    if plan.done:
        return Published(proof, repository, files, destination.parent, plan.pull_request, already=True)

    done = _uploaded(request, plan, destination, message)
    number = plan.pull_request if done.pull_request is None else done.pull_request
    return Published(proof, repository, files, done.commit, number, plan.changed, plan.others)


def message_of(manifest: Manifest, report: ParityReport, policy: ThresholdPolicy) -> Message:
    """Return the message of the commit: the title depends on the checkpoint alone, so that a pull request is found."""
    targets = ", ".join(sorted(model.target for model in manifest.models))
    lanes = sum(lane.measured for lane in report.lanes)
    limits = f"limits of the publisher's own, sha256 {policy.digest}" if policy.digest else "the limits of bge-export"
    description = (
        f"{targets}: proven by bge-export on {report.texts.count} texts in {lanes} lanes, by {limits}, "
        f"against {' and '.join(f'a {kind}' for kind in report.references)}. "
        f"Checkpoint {report.checkpoint.digest}, report {report.digest}."
    )
    return Message(f"Artifacts of {escaped(manifest.source.id)[:100]}, proven by bge-export", escaped(description))


def _judged(folder: Path, required: Required) -> tuple[Proof, Sequence[PublishedFile]]:
    """Return the verdict on a folder, and its files without the card, if they are those that the verdict is about."""
    before = proof_files(folder)
    proof = judge_folder(folder, required)
    if not proof.verdict.passed:
        return proof, ()

    files = [*listed_files(folder, read_manifest(folder)), *before.values()]
    if proof_files(folder) != before:
        raise ArtifactError(f"{folder} changed while it was judged. Let nothing write into it, and publish again.")
    return proof, [file for file in files if file.name != CARD]


def _uploaded(request: Request, plan: Plan, destination: Destination, message: Message) -> Committed:
    """Upload and commit; return the commit after it was read back."""
    changed = [file for file in request.files if file.name in set(plan.changed)]
    try:
        for card in (file for file in changed if file.name == CARD):
            refuse_card(request.repository, card.content or b"")
        added = send(changed, destination)
    except BgeExportError as error:
        raise type(error)(f"{error} {request.repository} is as it was, at {destination.parent[:12]}.") from error

    try:
        done = commit(added, plan.others, destination, message)
    except (BgeExportError, KeyboardInterrupt) as error:
        done = after_a_lost_answer(error, request, destination)

    refuse_other_bytes(request, done, destination.parent)
    return done


def _dry_run(proof: Proof, request: Request, notes: list[str]) -> Published:
    """Return what would be published; the Hub is only asked what it holds, and need not answer."""
    repository, files = request.repository, request.files
    try:
        plan = planned(request)
    except HubError as error:
        names = [file.name for file in files]
        notes.append(f"What the Hub holds is not known: {error}")
        return Published(proof, repository, files, changed=names, notes=notes)

    if plan.before is None:
        notes.append(f"{repository} does not exist yet, and would be created.")
    if plan.others and not request.remove_others:
        notes.append(
            f"{repository} holds {shown(plan.others)}, which nothing proves: this would be refused without "
            "--remove-others."
        )

    return Published(
        proof, repository, files, None, plan.pull_request, plan.changed, plan.others, already=plan.done, notes=notes
    )
