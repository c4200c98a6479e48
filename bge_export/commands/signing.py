"""The signing command: states by which limits a folder was proven, and signs the statement and the folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bge_export.bundle.documents import SIGNATURE, STATEMENT, entries
from bge_export.bundle.manifest import read_manifest
from bge_export.commands.judging import Required, judge_folder
from bge_export.commands.measuring import Proof, read_policy
from bge_export.errors import ArtifactError
from bge_export.files.digest import file_digests
from bge_export.files.single import refuse_path
from bge_export.publish.contents import proof_files
from bge_export.publish.envelope import IGNORED, OURS, signed_digests
from bge_export.publish.signature import Signer, sign_files, sign_statement
from bge_export.publish.statement import LOCAL, statement_of


@dataclass(frozen=True)
class SignedFolder:
    """The result of signing.

    Attributes:
        proof: the folder's report and the verdict that was reached just before; if it is a refusal, nothing was signed.
        files: name -> sha256 of the signed files.
    """

    proof: Proof
    files: Mapping[str, str]


def sign_folder(
    folder: Path, signer: Signer, required: Required | None = None, *, builder: str = LOCAL
) -> SignedFolder:
    """Sign a folder if the gate passes it at this moment: first a statement of its proof, then all files.

    If this is interrupted, the folder is signed as before, or not at all, and the same call finishes.

    Args:
        folder: a folder that bge-export wrote.
        signer: who signs.
        required: what the gate must see.
        builder: where this runs, as an address, for the statement.

    Raises:
        UsageError: the key or a certificate cannot be used.
        OutputError: a file of the signature's name lies there that is none.
        ArtifactError: the folder differs from its manifest, or changes meanwhile.
        MeasurementError: a library is missing, or Sigstore could not be reached.
    """
    required = required or Required()
    for name in (STATEMENT, SIGNATURE):
        refuse_path(folder / name, "signature", OURS)

    before = proof_files(folder)
    proof = judge_folder(folder, required)
    if not proof.verdict.passed:
        return SignedFolder(proof, {})

    manifest = read_manifest(folder)
    digests = file_digests(folder, _names(folder))
    known = {**manifest.files, **{name: file.sha256 for name, file in before.items()}}
    if any(digests.get(name) != digest for name, digest in known.items()):
        raise ArtifactError(f"{folder} changed while it was judged. Let nothing write into it, and sign again.")

    statement = statement_of(digests, manifest, proof.report, read_policy(required.thresholds), builder)
    (folder / SIGNATURE).unlink(missing_ok=True)
    sign_statement(signer, statement, folder / STATEMENT)
    sign_files(signer, folder)

    signed = signed_digests(folder) or {}
    if {name: digest for name, digest in signed.items() if name != STATEMENT} != digests:
        (folder / SIGNATURE).unlink()
        raise ArtifactError(f"{folder} changed while it was signed. Let nothing write into it, and sign again.")
    return SignedFolder(proof, signed)


def _names(folder: Path) -> list[str]:
    """Return the files of a folder that a signature is of, without the statement."""
    return [name for name, _ in entries(folder) if name not in {*IGNORED, STATEMENT}]
