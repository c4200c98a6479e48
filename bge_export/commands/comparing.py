"""The comparing command: may two artifacts, or an artifact and the vectors of an index, share that index?"""

from dataclasses import dataclass
from pathlib import Path

from bge_export.bundle.integrity import refuse_unknown_output
from bge_export.bundle.manifest import Manifest
from bge_export.commands.choosing import chosen_artifact
from bge_export.commands.measuring import read_texts
from bge_export.commands.turns import in_turn
from bge_export.contracts import SENTENCE_EMBEDDING, Artifact, Runtime
from bge_export.errors import DeviceUnavailable, TextsError, UsageError
from bge_export.evaluate.embedding import embed
from bge_export.files.single import refuse_path
from bge_export.formats import find_format
from bge_export.heads.dense import dense_head
from bge_export.progress import stage
from bge_export.runtimes import find_runtime
from bge_export.same_index.certificate import (
    OWN_CERTIFICATE,
    ArtifactSide,
    Certificate,
    IndexSide,
    TextsSide,
    identity_reasons,
    judge_again,
    read_certificate,
    write_certificate,
)
from bge_export.same_index.figures import FEWEST_TEXTS, Searches, Vectors, compare_vectors, undefined_rows, unit
from bge_export.same_index.limits import IndexLimits, Reason
from bge_export.same_index.vectors import read_index
from bge_export.texts.corpus import Corpus, load_corpus
from bge_export.texts.golden import USES, Use

CPU = "cpu"


@dataclass(frozen=True)
class CompareOptions:
    """How two sides are compared.

    Attributes:
        target, other_target: which artifact of a folder is meant.
        column: the column of a `.tsv` or `.csv` file of texts.
        queries: a file of queries that are searched for; by default every text is.
        limits: a file of limits to use instead of the package's own.
        output: where the certificate is written, besides being returned.
        threads: threads of the runtimes.
    """

    target: str | None = None
    other_target: str | None = None
    column: str | None = None
    queries: Path | None = None
    limits: Path | None = None
    output: Path | None = None
    threads: int = 1


@dataclass(frozen=True)
class _Opened:
    """An artifact with the runtime that embeds with it."""

    artifact: Artifact
    runtime: Runtime
    side: ArtifactSide

    def embed(self, corpus: Corpus, use: Use, threads: int) -> Vectors:
        """Return the unit vectors of N texts, [N, D], with the artifact's own prompt before each."""
        prompt = self.side.prompts[use]
        texts = [prompt + text.text for text in corpus.texts]

        with stage(f"embedding {corpus.name} with {self.artifact.target}", len(texts)):
            by_output = embed(self.artifact, self.runtime, CPU, threads, texts)
        return unit(by_output[_output(self.artifact)])


@dataclass(frozen=True)
class _Index:
    """The unit vectors of an index, [N, D], and what is known of them."""

    vectors: Vectors
    side: IndexSide


@dataclass(frozen=True)
class _Compared:
    """What is compared: the texts, the queries if there are any, and both sides."""

    corpus: Corpus
    queries: Corpus | None
    new: _Opened
    old: _Opened | _Index
    threads: int

    def searches(self, new: Vectors, old: Vectors) -> Searches:
        """Return what is searched before and after the exchange, given the vectors of the texts, [N, D] each."""
        if self.queries is None:
            return Searches(old, old, new, old, own=True)

        # Nobody knows the queries that an index was asked with, so the new side's own index tells what they find.
        asked = self.new.embed(self.queries, "query", self.threads)
        if isinstance(self.old, _Index):
            return Searches(asked, new, asked, old, own=False)
        return Searches(self.old.embed(self.queries, "query", self.threads), old, asked, old, own=False)


@in_turn
def compare(
    new: Path, old: Path | None, texts: Path, *, index: Path | None = None, options: CompareOptions | None = None
) -> Certificate:
    """Compare an artifact with another one, or with the vectors of an index.

    The index holds the vectors of the old side; queries come from the new one.

    Args:
        new: the folder of the artifact that takes over, or its model file.
        old: the folder or model file of the other artifact; None with `index`.
        texts: the texts that both embed, or that the index holds, in its order.
        index: a `.npy` file of the vectors that an index was built with.
        options: the rest.

    Raises:
        UsageError: an argument cannot be used.
        MeasurementError: an artifact could not be run.
    """
    options = options or CompareOptions()
    if (old is None) == (index is None):
        raise UsageError("Give either another artifact, or --against-index with the vectors of an index.")
    if options.output is not None:
        refuse_path(options.output, "certificate", OWN_CERTIFICATE)
        refuse_unknown_output(options.output)

    limits = IndexLimits.read(options.limits)
    corpus = _enough(read_texts(texts, options.column), texts)
    queries = load_corpus(options.queries) if options.queries else None

    ours = _open(new, options.target)
    theirs: _Opened | _Index
    if old is not None:
        theirs = _open(old, options.other_target)
    else:
        assert index is not None  # noqa: S101 - one of both was given
        vectors, side = read_index(index, len(corpus.texts))
        theirs = _Index(unit(vectors), side)

    certificate = _unmeasured(ours.side, theirs.side, corpus, queries, limits)
    if not any(identity_reasons(ours.side, theirs.side)):
        certificate = _measured(certificate, _Compared(corpus, queries, ours, theirs, options.threads))

    certificate = certificate.judged(limits)
    if options.output is not None:
        write_certificate(certificate, options.output)
    return certificate


def judge_certificate(path: Path, limits: Path | None = None) -> tuple[Certificate, tuple[Reason, ...]]:
    """Judge a certificate again from its facts; return it with the reasons against it.

    Args:
        path: a file that `compare` wrote.
        limits: a file of limits to use instead of the package's own.

    Raises:
        ReportError: the file is not a certificate.
        PolicyError: the limits cannot be read.
    """
    certificate = read_certificate(path)
    return certificate, judge_again(certificate, IndexLimits.read(limits))


def _enough(corpus: Corpus, path: Path) -> Corpus:
    """Return a corpus, or raise TextsError if most of its texts would be among the nearest in any case."""
    if len(corpus.texts) < FEWEST_TEXTS:
        raise TextsError(
            f"{path} holds {len(corpus.texts)} texts, and the ten nearest of so few say nothing. Give "
            f"{FEWEST_TEXTS} or more."
        )
    return corpus


def _open(path: Path, target: str | None) -> _Opened:
    """Return an artifact with a runtime of this machine that reads it, on the CPU.

    Raises:
        UsageError: the artifact must be named, or is not there.
        DeviceUnavailable: no runtime that reads it is installed.
    """
    manifest, artifact = chosen_artifact(path, target)

    reasons = []
    for name in find_format(artifact.target.format).runtimes:
        runtime = find_runtime(name)
        reason = runtime.devices().get(CPU)
        if reason is None:
            return _Opened(artifact, runtime, _side(manifest, artifact, name))
        reasons.append(f"{name}: {reason}")
    raise DeviceUnavailable(f"nothing here runs {artifact.root / artifact.model}: {'; '.join(reasons)}")


def _side(manifest: Manifest, artifact: Artifact, runtime: str) -> ArtifactSide:
    """Return what tells an artifact from every other one."""
    inputs, head = artifact.spec.inputs, dense_head(artifact.spec)

    return ArtifactSide(
        kind="artifact",
        model=manifest.source.id,
        revision=manifest.source.revision,
        checkpoint_digest=manifest.source.digest,
        target=str(artifact.target),
        digest=artifact.digest,
        runtime=f"{runtime}:{CPU}",
        width=head.dim,
        pooling=head.pooling,
        normalize=head.normalize,
        max_tokens=inputs.max_tokens,
        prompts={use: inputs.prompts.get(use, "") for use in USES},
    )


def _output(artifact: Artifact) -> str:
    """Return the output that gives the vectors: the pooled one if the graph has it."""
    return SENTENCE_EMBEDDING if SENTENCE_EMBEDDING in artifact.outputs else artifact.outputs[0]


def _unmeasured(
    new: ArtifactSide, old: ArtifactSide | IndexSide, corpus: Corpus, queries: Corpus | None, limits: IndexLimits
) -> Certificate:
    """Return a certificate without figures."""
    return Certificate(
        schema="bge_export.same_index/1",
        new=new,
        old=old,
        texts=TextsSide(name=corpus.name, digest=corpus.digest),
        queries=TextsSide(name=queries.name, digest=queries.digest) if queries else None,
        undefined=[],
        figures=None,
        limits=limits,
        reasons=[],
        digest="",
    )


def _measured(certificate: Certificate, compared: _Compared) -> Certificate:
    """Return a certificate with figures, or with the texts that have no vector to compare."""
    ids = [text.id for text in compared.corpus.texts]
    new = compared.new.embed(compared.corpus, "document", compared.threads)
    old = (
        compared.old.vectors
        if isinstance(compared.old, _Index)
        else compared.old.embed(compared.corpus, "document", compared.threads)
    )

    searches = compared.searches(new, old)
    undefined = [ids[number] for number in sorted({*undefined_rows(new), *undefined_rows(old)})]
    if compared.queries is not None:
        names = [text.id for text in compared.queries.texts]
        lost = {*undefined_rows(searches.queries_before), *undefined_rows(searches.queries_after)}
        undefined += [names[number] for number in sorted(lost)]

    if undefined:
        return certificate.model_copy(update={"undefined": undefined})
    return certificate.model_copy(update={"figures": compare_vectors(new, old, ids, searches)})
