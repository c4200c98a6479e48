"""The verifying command: checks a folder, or what a repository on the Hub holds, by its bytes and its proof."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from bge_export.bundle.documents import SIGNATURE
from bge_export.bundle.integrity import REPORT
from bge_export.bundle.manifest import Manifest, read_manifest
from bge_export.checkpoint.hub import REVISION
from bge_export.commands.checking import check_parity
from bge_export.commands.judging import Required, judge_folder
from bge_export.commands.measuring import Proof, read_policy
from bge_export.commands.rebuilding import Rebuilt, rebuild
from bge_export.errors import UsageError
from bge_export.publish.facts import REPOSITORY
from bge_export.publish.fetched import fetched
from bge_export.publish.signature import Trust
from bge_export.publish.signed import Wrong, wrong_signature, wrong_statement


@dataclass(frozen=True)
class VerifyOptions:
    """What is done besides checking bytes and proof.

    Attributes:
        measure: whether parity is measured again, here.
        rebuild: whether the models are exported anew and compared byte for byte.
        threads: threads for both.
        trust: whose signature the folder must have; None if by whom it was made is not asked.
    """

    measure: bool = False
    rebuild: bool = False
    threads: int = 1
    trust: Trust | None = None


@dataclass(frozen=True)
class Verified:
    """The result of verifying.

    Attributes:
        where: the folder, or the repository with the commit.
        proof: the report that lies there and the gate's verdict on it, on the bytes and on everything beside them;
            None if the signature is wrong, since then nothing there is believed.
        files: how many files the manifest lists.
        signed: whether a signature lies there.
        wrong: what is wrong with the signature, the signed files or the signed statement, if they were to be checked.
        measured: the report of this machine and its verdict, if it was asked for.
        rebuilt: what came of each target that was exported anew.
    """

    where: str
    proof: Proof | None
    files: int
    signed: bool
    wrong: Sequence[Wrong] = ()
    measured: Proof | None = None
    rebuilt: Sequence[Rebuilt] = ()

    @property
    def passed(self) -> bool:
        """Return whether nothing is refused."""
        if self.wrong or self.proof is None:
            return False

        proofs = [self.proof, *([self.measured] if self.measured else [])]
        return all(one.verdict.passed for one in proofs) and not any(one.other for one in self.rebuilt)


def verify(what: str, options: VerifyOptions | None = None, required: Required | None = None) -> Verified:
    """Check a folder, or a repository on the Hub: signature, every byte, that nothing else is there, and report.

    Args:
        what: a folder, or ORG/NAME, or ORG/NAME@revision. A folder of that name here comes first.
        options: what is done besides.
        required: what the gate must see; its `reference` is also what is measured against and exported anew, by default
            the checkpoint that the manifest names.

    Raises:
        UsageError: it is neither a folder nor a repository, or the checkpoint is not known.
        ArtifactError: bytes differ from the manifest, or something unlisted is there.
        MeasurementError: the library of signatures is missing, or Sigstore could not be reached.
        HubError: the Hub cannot be reached, or sends other bytes than it promised.
    """
    options, required = options or VerifyOptions(), required or Required()
    if Path(what).is_dir():
        return _verified(Path(what), f"the folder {what}", options, required)

    repository, at, revision = what.partition("@")
    if not REPOSITORY.fullmatch(repository) or (at and not REVISION.fullmatch(revision)):
        raise UsageError(
            f"{what!r} is no folder here, and not a repository on the Hub. Write one as ORG/NAME@REVISION."
        )

    with fetched(repository, revision or None) as found:
        return _verified(found.folder, f"{repository} at {found.commit}", options, required)


def _verified(folder: Path, where: str, options: VerifyOptions, required: Required) -> Verified:
    signed = (folder / SIGNATURE).exists()
    if options.trust is not None and (wrong := tuple(wrong_signature(folder, options.trust))):
        return Verified(where, None, 0, signed, wrong)

    proof = judge_folder(folder, required)
    manifest = read_manifest(folder)
    verified = Verified(where, proof, len(manifest.files), signed)

    if options.trust is not None:
        policy = read_policy(required.thresholds)
        stated = tuple(wrong_statement(folder, options.trust, manifest, proof.report, policy))
        verified = replace(verified, wrong=stated)
    if not verified.passed or not (options.measure or options.rebuild):
        return verified

    reference, revision = _reference(manifest, required)
    measured = _measured(folder, reference, revision, options, required) if options.measure else None
    rebuilt = rebuild(folder, reference, revision, options.threads) if options.rebuild else ()
    return replace(verified, measured=measured, rebuilt=rebuilt)


def _measured(folder: Path, reference: str, revision: str | None, options: VerifyOptions, required: Required) -> Proof:
    """Measure a folder again; the report is judged and forgotten."""
    with TemporaryDirectory(prefix="bge_export-verify-") as name:
        return check_parity(
            folder,
            reference,
            revision=revision,
            require=required.require,
            require_reference=required.require_reference,
            thresholds=required.thresholds,
            report_path=Path(name) / REPORT,
            threads=options.threads,
        )


def _reference(manifest: Manifest, required: Required) -> tuple[str, str | None]:
    """Return the checkpoint to measure against and to export: the one that was given, else the one that is recorded."""
    if required.reference is not None:
        return required.reference, required.revision

    source = manifest.source
    if source.revision is None:
        raise UsageError(
            f"the folder was made of the local checkpoint {source.id}, sha256 {source.digest[:12]}. Give its folder "
            "with --reference."
        )
    return source.id, source.revision
