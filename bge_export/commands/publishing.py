"""The publishing command: takes a folder that the gate passes, and uploads it to the Hub in one commit."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bge_export.bundle.integrity import CARD
from bge_export.bundle.manifest import Manifest, read_bundle, read_manifest
from bge_export.commands.judging import Required, judge_folder
from bge_export.commands.measuring import Proof, read_policy
from bge_export.commands.published_card import card_of, facts_for
from bge_export.commands.signing import sign_folder
from bge_export.errors import ArtifactError, BgeExportError, HubError, UsageError
from bge_export.files.single import written_whole
from bge_export.parity.figures import escaped
from bge_export.parity.gate.policy import ThresholdPolicy
from bge_export.parity.report import ParityReport
from bge_export.publish.contents import PublishedFile, as_signed, listed_files, proof_files
from bge_export.publish.envelope import signed_digests
from bge_export.publish.facts import REPOSITORY
from bge_export.publish.plan import Plan, Request, after_a_lost_answer, planned, refuse_other_bytes, refuse_others
from bge_export.publish.repository import shown
from bge_export.publish.scores import FOLDER, MADE, read_scores, result_files
from bge_export.publish.signature import Signer
from bge_export.publish.statement import LOCAL
from bge_export.publish.upload import Committed, Destination, Message, commit, create, refuse_card, send


@dataclass(frozen=True)
class PublishOptions:
    """How a folder is published.

    Attributes:
        dry_run: whether nothing is changed on the Hub.
        create_pr: whether the files are proposed in a pull request.
        private: whether a repository that does not exist yet is created for its owner alone.
        remove_others: whether files of the repository that nothing proves are removed in the same commit.
        license: the checkpoint's licence, for the card; by default that of the base model on the Hub.
        signer: who signs the folder before it is published; the card is written into it first.
        builder: where this runs, as an address, for the signed statement.
        scores: a folder of results of `evaluate_tasks`, for the card and for `.eval_results/`; None for none.
    """

    dry_run: bool = False
    create_pr: bool = False
    private: bool = False
    remove_others: bool = False
    license: str | None = None
    signer: Signer | None = None
    builder: str = LOCAL
    scores: Path | None = None


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
    files, notes = _with_card(folder, proof, files, repository, options, policy)
    if options.signer is not None and not options.dry_run:
        files = _signed(folder, files, options, required)

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


def _with_card(
    folder: Path,
    proof: Proof,
    files: Sequence[PublishedFile],
    repository: str,
    options: PublishOptions,
    policy: ThresholdPolicy,
) -> tuple[Sequence[PublishedFile], list[str]]:
    """Return a folder's files with the card, and notes; of a folder that was signed before all that was signed."""
    digests = signed_digests(folder)
    if digests is not None and options.signer is None:
        if options.scores is not None:
            raise UsageError(f"{folder} is signed already, without these scores. Publish it with --sign again.")
        return as_signed(folder, files, digests), []

    facts, notes = facts_for(folder, proof.report, repository, options.license, must=not options.dry_run)
    if options.signer is not None and options.dry_run:
        notes.append("It would be signed before it is published; a dry run signs nothing.")

    _, artifacts = read_bundle(folder)
    scores = () if options.scores is None else read_scores(options.scores, artifacts)
    card = card_of(folder, proof.report, replace(facts, scores=scores), policy)
    made = [card, *(PublishedFile.of_bytes(name, content) for name, content in result_files(scores).items())]
    return sorted([*files, *made], key=lambda file: file.name), notes


def _signed(
    folder: Path, files: Sequence[PublishedFile], options: PublishOptions, required: Required
) -> Sequence[PublishedFile]:
    """Write card and scores into a folder, in place of earlier ones, and sign it; return its files."""
    made = [file for file in files if file.path is None or file.name == CARD]
    for path in folder.glob(f"{FOLDER}/*.yaml"):
        if path.read_bytes().startswith(MADE.encode()):
            path.unlink()

    for file in made:
        (folder / file.name).parent.mkdir(exist_ok=True)
        with written_whole(folder / file.name) as temporary:
            temporary.write_bytes(file.content or b"")

    done = sign_folder(folder, options.signer or Signer(), required, builder=options.builder)
    if not done.proof.verdict.passed:
        raise ArtifactError(f"{folder} changed while it was signed. Let nothing write into it, and publish again.")
    return as_signed(folder, [file for file in files if file not in made], done.files)


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
