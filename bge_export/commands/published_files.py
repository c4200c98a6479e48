"""Which files are published besides those that the gate passed: the card, scores, and what a signature names."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bge_export.bundle.integrity import CARD
from bge_export.bundle.manifest import read_bundle
from bge_export.commands.judging import Required
from bge_export.commands.measuring import Proof
from bge_export.commands.published_card import card_of, facts_for
from bge_export.commands.signing import sign_folder
from bge_export.errors import ArtifactError, UsageError
from bge_export.files.single import written_whole
from bge_export.parity.gate.policy import ThresholdPolicy
from bge_export.publish.contents import PublishedFile, as_signed
from bge_export.publish.envelope import signed_digests
from bge_export.publish.scores import FOLDER, MADE, read_scores, result_files
from bge_export.publish.signature import Signer
from bge_export.publish.statement import LOCAL


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


def with_card(
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


def signed(
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
