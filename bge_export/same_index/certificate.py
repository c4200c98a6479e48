"""The certificate of a comparison as a JSON file: both sides, figures, limits, and a verdict that is recomputed."""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bge_export.contracts import Pooling
from bge_export.errors import ReportError
from bge_export.files.reading import first_fault, reading
from bge_export.files.regular import SETTINGS_BYTES, open_regular, read_regular
from bge_export.files.single import HEAD_BYTES, written_whole
from bge_export.same_index.figures import Figures
from bge_export.same_index.limits import IndexLimits, Reason, figure_reasons

SCHEMA: Literal["bge_export.same_index/1"] = "bge_export.same_index/1"
OWN_CERTIFICATE = re.compile(rb'"schema":\s*"bge_export\.same_index/')
"""In the first bytes of a file that may be replaced by another certificate."""

ADVICE = "Compare again with: bge-export compare OUT OTHER --texts FILE"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ArtifactSide(_Record):
    """One artifact.

    Attributes:
        kind: tells it from vectors.
        model, revision, checkpoint_digest: the checkpoint that it was exported from.
        target, digest: which artifact it is, and the digest of its files.
        runtime: what embedded the texts with it.
        width, pooling, normalize, max_tokens, prompts: what it promises.
    """

    kind: Literal["artifact"]
    model: str
    revision: str | None
    checkpoint_digest: str
    target: str
    digest: str
    runtime: str
    width: int
    pooling: Pooling
    normalize: bool
    max_tokens: int
    prompts: dict[str, str]

    def __str__(self) -> str:
        """Return what tells it from every other artifact, in one line."""
        revision = f"@{self.revision}" if self.revision else ""
        prompts = "".join(f", {use} prompt {text!r}" for use, text in sorted(self.prompts.items()) if text)
        divided = "normalised" if self.normalize else "not normalised"
        return (
            f"{self.model}{revision} {self.checkpoint_digest[:12]}, {self.target} {self.digest[:12]}, "
            f"{self.pooling} pooling, {divided}, {self.width} components, {self.max_tokens} tokens{prompts}"
        )


class IndexSide(_Record):
    """Vectors that an index was built with; nothing tells what made them.

    Attributes:
        kind: tells it from an artifact.
        name: the name of the file.
        digest: sha256 of its bytes.
        width: the components of a vector.
        normalize: whether every vector has the norm 1.
    """

    kind: Literal["index"]
    name: str
    digest: str
    width: int
    normalize: bool

    def __str__(self) -> str:
        """Return what tells it from every other file, in one line."""
        divided = "normalised" if self.normalize else "not normalised"
        return f"{self.name} {self.digest[:12]}, {self.width} components, {divided}"


class TextsSide(_Record):
    """The texts that were compared: name of the file, digest of ids and texts."""

    name: str
    digest: str


class RecordedReason(_Record):
    """`Reason` in a file."""

    rule: str
    got: str
    needed: str


class Certificate(_Record):
    """One comparison.

    Attributes:
        new: the artifact that takes over.
        old: the other artifact, or the vectors of an index.
        texts, queries: what was compared; queries are None if each text was searched for.
        undefined: ids of texts without a vector that has a direction, on either side.
        figures: what was measured; None if the sides cannot be compared.
        limits: those of the verdict.
        reasons: why the index cannot be shared, none if it can.
        digest: sha256 over all of the above.
    """

    schema_: Literal["bge_export.same_index/1"] = Field(alias="schema")
    new: ArtifactSide
    old: ArtifactSide | IndexSide = Field(discriminator="kind")
    texts: TextsSide
    queries: TextsSide | None
    undefined: list[str]
    figures: Figures | None
    limits: IndexLimits
    reasons: list[RecordedReason]
    digest: str

    @property
    def computed_digest(self) -> str:
        """Return the digest of what the certificate says, regardless of `digest`."""
        facts = self.model_dump(mode="json", by_alias=True, exclude={"digest"})
        canonical = json.dumps(facts, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def judged(self, limits: IndexLimits) -> "Certificate":
        """Return the certificate with these limits, the verdict by them, and its digest."""
        reasons = [RecordedReason(rule=one.rule, got=one.got, needed=one.needed) for one in reasons_of(self, limits)]
        new = self.model_copy(update={"limits": limits, "reasons": reasons})
        return new.model_copy(update={"digest": new.computed_digest})


def identity_reasons(new: ArtifactSide, old: ArtifactSide | IndexSide) -> Iterator[Reason]:
    """Yield each way in which two sides are of different kinds, which no figure can outweigh."""
    of_artifacts = [] if isinstance(old, IndexSide) else ["pooling", "max_tokens", "prompts"]
    names = ["width", "normalize", *of_artifacts]
    words = {"normalize": "normalisation", "max_tokens": "longest-input"}

    for name in names:
        ours, theirs = getattr(new, name), getattr(old, name)
        if ours != theirs:
            word = words.get(name, name)
            yield Reason(f"other-{word}", f"the {word.replace('-', ' ')} {ours!r}", f"{theirs!r}, as on the other side")


def reasons_of(certificate: Certificate, limits: IndexLimits) -> tuple[Reason, ...]:
    """Return the reasons why an index cannot be shared, from the facts of a certificate alone."""
    others = tuple(identity_reasons(certificate.new, certificate.old))
    if others:
        return others

    if certificate.undefined:
        first = certificate.undefined[0][:40]
        got = f"{len(certificate.undefined)} texts have a vector that is zero or not finite, first {first!r}"
        return (Reason("not-finite", got, "a direction of every vector"),)

    if certificate.figures is None:
        return (Reason("not-measured", "no figures", "a comparison of vectors"),)
    if not certificate.figures.consistent:
        return (Reason("inconsistent", "figures that no measurement gives together", "figures of one comparison"),)
    return figure_reasons(certificate.figures, limits)


def judge_again(certificate: Certificate, limits: IndexLimits) -> tuple[Reason, ...]:
    """Return the reasons against a certificate that was read: of its facts, and of what was changed in it.

    Args:
        certificate: the certificate.
        limits: the limits of the gate, which may be others than those of the certificate.
    """
    reasons = list(reasons_of(certificate, limits))
    if certificate.digest != certificate.computed_digest:
        reasons.append(Reason("edited", "the certificate was changed after it was written", "the one that was written"))

    recorded = [Reason(one.rule, one.got, one.needed) for one in certificate.reasons]
    if recorded != list(reasons_of(certificate, certificate.limits)):
        reasons.append(
            Reason("inconsistent", "its verdict is not that of its figures and limits", "the verdict that follows")
        )
    return tuple(reasons)


def write_certificate(certificate: Certificate, path: Path) -> None:
    """Write a certificate through a temporary sibling.

    Raises:
        ReportError: the file cannot be written.
    """
    text = json.dumps(certificate.model_dump(mode="json", by_alias=True), ensure_ascii=False, indent=1)
    try:
        with written_whole(path) as temporary:
            temporary.write_text(text + "\n", "utf-8")
    except OSError as error:
        raise ReportError(f"{path} cannot be written: {error.strerror}. Choose another path.") from error


def is_certificate(path: Path) -> bool:
    """Return whether a file says that it is a certificate of this kind; False if it cannot be read."""
    try:
        with open_regular(path) as file:
            return OWN_CERTIFICATE.search(file.read(HEAD_BYTES)) is not None
    except OSError:
        return False


def read_certificate(path: Path) -> Certificate:
    """Read a certificate. Neither digest nor verdict is checked here: `judge_again` refuses what was changed.

    Raises:
        ReportError: the file is missing, or not a certificate.
    """
    try:
        with reading(path, ReportError, advice=ADVICE):
            return Certificate.model_validate_json(read_regular(path, SETTINGS_BYTES))
    except ValidationError as error:
        raise ReportError(f"{path} is not a certificate of schema {SCHEMA}: {first_fault(error)}. {ADVICE}") from error
