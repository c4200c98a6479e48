"""Signs folders and statements with OpenSSF model signing, and checks by whom they were signed: the one user of it.

A signature is a Sigstore bundle, for a key, a certificate or a Sigstore identity alike: an in-toto statement in a DSSE
envelope. The library signs folders; statements of another kind go through the same signers, which it keeps to itself.
"""

import contextlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from bge_export.bundle.documents import SIGNATURE
from bge_export.errors import MeasurementError, MissingLibrary, UsageError
from bge_export.files.single import refuse_path, written_whole
from bge_export.parity.figures import escaped
from bge_export.publish.envelope import IGNORED, OURS, NotAuthenticError, payload

if TYPE_CHECKING:
    from model_signing import signing, verifying

QUOTED = 300


@dataclass(frozen=True)
class Signer:
    """Who signs; with neither key nor certificates it is a Sigstore identity.

    Attributes:
        key: a private key on an elliptic curve, as PEM without a passphrase.
        certificates: the certificate of that key, then those that lead to a root.
    """

    key: Path | None = None
    certificates: Sequence[Path] = ()


@dataclass(frozen=True)
class Trust:
    """Whose signatures are believed: those of a key, of a certificate's root, or of a Sigstore identity.

    Attributes:
        key: the public key, as PEM.
        certificates: root certificates, as PEM.
        identity: an address of mail or of a workflow, which `issuer` vouches for.
        issuer: the OpenID Connect issuer.
    """

    key: Path | None = None
    certificates: Sequence[Path] = ()
    identity: str | None = None
    issuer: str | None = None

    def __str__(self) -> str:
        """Return the name for messages."""
        if self.key is not None:
            return f"the key {self.key}"
        if self.certificates:
            return f"the certificates {', '.join(map(str, self.certificates))}"
        return f"the identity {self.identity}"


def sign_statement(signer: Signer, statement: Mapping[str, Any], path: Path) -> None:
    """Write a signed in-toto statement, as one line.

    Raises:
        UsageError: the key or a certificate cannot be used.
        MeasurementError: the library is missing, or Sigstore could not be reached.
    """
    refuse_path(path, "statement", OURS)
    config = _signing(signer)
    from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
    from in_toto_attestation.v1.statement import Statement

    subjects = [ResourceDescriptor(name=one["name"], digest=one["digest"]).pb for one in statement["subject"]]
    made = Statement(subjects, statement["predicateType"], statement["predicate"])

    with written_whole(path) as temporary, _explained("signing the statement"):
        made_by: Any = config._signer
        made_by.sign(SimpleNamespace(statement=made)).write(temporary)


def sign_files(signer: Signer, folder: Path) -> None:
    """Write the signature of a folder: of every file in it, without those that `IGNORED` names.

    Raises:
        UsageError: the key or a certificate cannot be used.
        MeasurementError: the library is missing, or Sigstore could not be reached.
    """
    path = folder / SIGNATURE
    refuse_path(path, "signature", OURS)
    config = _signing(signer)
    from model_signing import hashing

    left_out: Any = hashing.Config  # which is not typed
    config.set_hashing_config(left_out().set_ignored_paths(paths=sorted(IGNORED)))
    with written_whole(path) as temporary, _explained("signing the folder"):
        config.sign(folder, temporary)


def refuse_folder(folder: Path, trust: Trust) -> None:
    """Raise NotAuthenticError unless a folder's signature is authentic, and each of its files is as it was signed.

    Raises:
        UsageError: the key or a certificate cannot be used.
        MeasurementError: the library is missing, or Sigstore could not be reached.
    """
    payload(folder / SIGNATURE)  # its size and form, before the library reads it
    config = _verifying(trust)

    with _believed(folder / SIGNATURE, trust):
        config.verify(folder, folder / SIGNATURE)


def authentic_payload(path: Path, trust: Trust) -> Mapping[str, Any]:
    """Return the statement in a signed file.

    Raises:
        NotAuthenticError: it is missing, damaged, or somebody else signed it.
        UsageError: the key or a certificate cannot be used.
        MeasurementError: the library is missing, or Sigstore could not be reached.
    """
    payload(path)
    config = _verifying(trust)
    from model_signing._signing import sign_sigstore, sign_sigstore_pb

    kind = sign_sigstore.Signature if config._uses_sigstore else sign_sigstore_pb.Signature
    with _believed(path, trust):
        verifier: Any = config._verifier
        _, content = verifier._verify_signed_content(kind.read(path))
        found: Mapping[str, Any] = json.loads(content)
        return found


def _signing(signer: Signer) -> "signing.Config":
    """Return the library's configuration for a signer."""
    with _library():
        from model_signing import signing

    untyped: Any = signing.Config
    config: signing.Config = untyped()
    if signer.key is None:
        with _explained("asking Sigstore for an identity"):
            return config.use_sigstore_signer(use_ambient_credentials=True)

    if not signer.certificates:
        with _readable(signer.key, "an unencrypted private key on an elliptic curve, as PEM"):
            return config.use_elliptic_key_signer(private_key=signer.key)

    # The library does not read an empty chain; the certificate itself in it says nothing new.
    first, *chain = signer.certificates
    with _readable(signer.key, "a private key of these certificates, as PEM"):
        return config.use_certificate_signer(
            private_key=signer.key, signing_certificate=first, certificate_chain=chain or [first]
        )


def _verifying(trust: Trust) -> "verifying.Config":
    """Return the library's configuration for those who are believed."""
    with _library():
        from model_signing import verifying

    untyped: Any = verifying.Config
    config: verifying.Config = untyped()
    if trust.key is not None:
        with _readable(trust.key, "a public key on an elliptic curve, as PEM"):
            return config.use_elliptic_key_verifier(public_key=trust.key)
    if trust.certificates:
        with _readable(trust.certificates[0], "a certificate, as PEM"):
            return config.use_certificate_verifier(certificate_chain=trust.certificates)

    with _explained("fetching the keys of Sigstore"):
        return config.use_sigstore_verifier(identity=trust.identity or "", oidc_issuer=trust.issuer or "")


@contextmanager
def _library() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise MissingLibrary(error.name or "model_signing", "sign", "A signature") from error


@contextmanager
def _readable(path: Path, what: str) -> Iterator[None]:
    """Raise UsageError in place of the many errors of a key or certificate that cannot be used."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"{error.filename or path} cannot be read: {error.strerror}.") from error
    except Exception as error:  # the library raises whatever its own libraries do
        raise UsageError(f"{path} is not {what}: {_quoted(error)}") from error


@contextmanager
def _explained(doing: str) -> Iterator[None]:
    """Raise MeasurementError in place of the many errors of keys, networks and Sigstore."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # the library raises whatever its own libraries do
        raise MeasurementError(f"{doing} failed: {_quoted(error)} Nothing was signed or believed.") from error


@contextmanager
def _believed(path: Path, trust: Trust) -> Iterator[None]:
    """Raise NotAuthenticError whatever the library raises: what cannot be checked is not believed."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints a warning about old signatures
            yield
    except Exception as error:  # the library raises whatever its own libraries do
        if type(error).__name__ == "InvalidSignature":
            raise NotAuthenticError(f"{path} was not signed by {trust}, or was changed since") from error
        raise NotAuthenticError(f"{path}: {_quoted(error)}") from error


def _quoted(error: Exception) -> str:
    text = escaped(" ".join(str(error).split()))[:QUOTED] or type(error).__name__
    return text if text.endswith(".") else f"{text}."
