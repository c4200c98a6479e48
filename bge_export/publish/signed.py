"""Checks a signed folder: its signature, its files, its statement against the report, and the limits of the statement.

The report itself is judged by the gate. What is found wrong is a value with a name, so that each can be told from the
others.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bge_export.bundle.documents import SIGNATURE, STATEMENT, entries
from bge_export.bundle.manifest import Manifest
from bge_export.files.digest import file_sha256
from bge_export.parity.figures import escaped
from bge_export.parity.gate.policy import ThresholdPolicy
from bge_export.parity.report import ParityReport
from bge_export.publish.envelope import FOLDER_PREDICATE, IGNORED, NotAuthenticError
from bge_export.publish.loosened import loosened
from bge_export.publish.signature import Trust, authentic_payload, refuse_folder
from bge_export.publish.statement import FOLLOWING, PREDICATE, following, limits_of

ADVICE: Mapping[str, str] = {
    "not-signed": "Anybody may have made it. Sign it (bge-export sign), or leave --key, --certificate and --identity "
    "out to check bytes and report alone.",
    "signature": "Do not use it: it is not what was signed. If you changed it yourself, sign it again.",
    "signature-scope": "A file that is left out may be anybody's. Sign the folder with bge-export sign.",
    "statement": "Nothing says by which limits it was proven. Sign the folder with bge-export sign.",
    "statement-files": "The statement is about other files. Sign the folder again with bge-export sign.",
    "statement-report": "Figures or provenance were changed after they were stated. Do not use it, or sign it again.",
    "statement-limits": "It was proven by looser limits than yours. To accept it knowingly, give the same limits with "
    "--thresholds.",
}
"""Name of what may be wrong -> what to do. Names are stable: scripts may match them."""


@dataclass(frozen=True)
class Wrong:
    """One thing that is wrong with a signed folder: its name in `ADVICE`, and a sentence."""

    rule: str
    message: str

    @property
    def advice(self) -> str:
        """Return what to do."""
        return ADVICE[self.rule]


def wrong_signature(folder: Path, trust: Trust) -> Iterator[Wrong]:
    """Yield what is wrong with the signature of a folder and with its files; nothing else of it is believed then.

    Raises:
        UsageError: the key or a certificate cannot be used.
        MeasurementError: the library is missing, or Sigstore could not be reached.
    """
    if not (folder / SIGNATURE).exists():
        yield Wrong("not-signed", f"{folder} holds no {SIGNATURE}")
        return

    try:
        signed = authentic_payload(folder / SIGNATURE, trust)
        if scope := _scope(folder, signed):
            yield scope
            return

        if changes := tuple(_changes(folder, _digests(signed))):
            yield from changes
            return
        refuse_folder(folder, trust)  # the library has the last word
    except NotAuthenticError as error:
        yield Wrong("signature", escaped(str(error)))


def wrong_statement(
    folder: Path, trust: Trust, manifest: Manifest, report: ParityReport, policy: ThresholdPolicy
) -> Iterator[Wrong]:
    """Yield what is wrong with the statement of a folder whose signature is authentic.

    Args:
        folder: the folder.
        trust: whose signatures are believed.
        manifest: that of the folder.
        report: that of the folder.
        policy: the limits by which the verifier judges the report.

    Raises:
        UsageError: the key or a certificate cannot be used.
        MeasurementError: the library is missing, or Sigstore could not be reached.
    """
    path = folder / STATEMENT
    try:
        statement = authentic_payload(path, trust)
    except NotAuthenticError as error:
        yield Wrong("statement", escaped(str(error)))
        return

    digests = _digests(authentic_payload(folder / SIGNATURE, trust))
    predicate = statement.get("predicate")
    if statement.get("predicateType") != PREDICATE or not isinstance(predicate, dict):
        yield Wrong("statement", f"{path} states something else than the parity of a folder")
        return

    yield from _wrong_files(path, statement, digests)
    yield from _wrong_facts(path, predicate, following(digests, manifest, report))
    for reason in loosened(predicate.get("limits"), limits_of(report, policy)):
        yield Wrong("statement-limits", f"{path}: {escaped(reason)}")


def _scope(folder: Path, signed: Mapping[str, Any]) -> Wrong | None:
    """Return what is wrong if a signature is not of a folder, or leaves more out than `IGNORED`."""
    if signed.get("predicateType") != FOLDER_PREDICATE:
        return Wrong("signature-scope", f"{folder / SIGNATURE} is not the signature of a folder")

    left_out = set(signed["predicate"]["serialization"].get("ignore_paths", ())) - IGNORED
    if not left_out:
        return None
    return Wrong("signature-scope", f"{folder / SIGNATURE} leaves {escaped(', '.join(sorted(left_out)))} out")


def _changes(folder: Path, signed: Mapping[str, str]) -> Iterator[Wrong]:
    """Yield each file of a folder that is not as it was signed."""
    there = {name for name, _ in entries(folder)} - IGNORED
    for name in sorted({*signed, *there}):
        if name not in there:
            yield Wrong("signature", f"{escaped(name)} was signed, and is not there")
        elif name not in signed:
            yield Wrong("signature", f"{escaped(name)} is there, and was not signed")
        elif _digest(folder / name) != signed[name]:
            yield Wrong("signature", f"{escaped(name)} was changed after it was signed")


def _digest(path: Path) -> str | None:
    """Return the sha256 of a file; None if it cannot be read, as a pipe."""
    try:
        return file_sha256(path)
    except OSError:
        return None


def _digests(signed: Mapping[str, Any]) -> Mapping[str, str]:
    """Return name -> sha256 of the files that an authentic signature is of."""
    return {one["name"]: one["digest"] for one in signed["predicate"]["resources"]}


def _wrong_files(path: Path, statement: Mapping[str, Any], digests: Mapping[str, str]) -> Iterator[Wrong]:
    """Yield the first file that statement and folder do not have in common."""
    stated = {one["name"]: one["digest"].get("sha256") for one in statement.get("subject", ())}
    there = {name: digest for name, digest in digests.items() if name != STATEMENT}

    other = sorted(name for name in {*stated, *there} if stated.get(name) != there.get(name))
    if other:
        yield Wrong("statement-files", f"{path} is about other bytes of {escaped(other[0])}")


def _wrong_facts(path: Path, predicate: Mapping[str, Any], own: Mapping[str, Any]) -> Iterator[Wrong]:
    """Yield each field of the predicate that manifest and report contradict."""
    for name in FOLLOWING:
        if _plain(predicate.get(name)) != _plain(own[name]):
            yield Wrong("statement-report", f"{path}: {name!r} is not that of the folder's manifest and report")


def _plain(value: object) -> object:
    """Return a JSON value as an in-toto statement holds it: every number is a float."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else str(value)
