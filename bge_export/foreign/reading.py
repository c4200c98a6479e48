"""Finds how a vector is read from a file that does not say it: which output, which pooling, and divided or not.

Every way that fits the shapes is tried on a few everyday texts, each alone, against the checkpoint's vectors; the one
that comes nearest is taken. A file that was made for another pooling thereby shows its own, and is judged by what its
readers would get at best.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bge_export.contracts import (
    COMMON_POOLINGS,
    LAST_HIDDEN_STATE,
    SENTENCE_EMBEDDING,
    Artifact,
    Pooling,
    Runtime,
    Session,
    TokenBatch,
)
from bge_export.errors import ArtifactError
from bge_export.foreign.files import ForeignFile
from bge_export.heads.dense import DenseHead, dense_head, normalize, pool
from bge_export.oracle.vectors import ReferenceVectors
from bge_export.parity.measure.metrics import cosines, norms
from bge_export.texts.corpus import Corpus
from bge_export.texts.tokens import TextTokenizer

PROBES = 12
"""Number of texts that are tried."""

PROBED_TOKENS = range(5, 97)
"""Lengths of texts on which poolings differ, and which take little time."""

UNIT = 1e-3
"""Largest distance from 1 of a norm that a graph divided by."""

EQUAL = 1e-6
"""Error of a cosine in float32; readings whose errors differ by less are equally near."""

Form = Literal["states", "first state", "vector"]
"""What an output holds of one text: a state of each token, that of the first alone, or one vector."""


@dataclass(frozen=True)
class Reading:
    """How a vector is read from a file.

    Attributes:
        output: the output that holds it.
        form: what the output holds.
        pooling: how states become a vector; None if the output holds one vector a text.
        unit: whether the graph divides it by its norm.
        agreement: the median cosine of the probed texts with the checkpoint's vectors.
    """

    output: str
    form: Form
    pooling: Pooling | None
    unit: bool
    agreement: float

    def as_output(self, declared: Pooling) -> str:
        """Return the name under which it is measured: states that are pooled as the checkpoint's, or one vector."""
        return LAST_HIDDEN_STATE if self.form == "states" and self.pooling == declared else SENTENCE_EMBEDDING

    def rows(self, outputs: Mapping[str, NDArray[np.float32]], batch: TokenBatch) -> NDArray[np.float32]:
        """Return the vectors of B texts, [B, D] float32, before any division by a norm."""
        values = outputs[self.output].astype(np.float32)
        if self.form == "vector":
            return values
        if self.form == "first state" or self.pooling is None:
            return values[:, 0]
        return pool(values, batch.attention_mask, self.pooling)


def find_reading(
    file: ForeignFile, session: Session, tokenizer: TextTokenizer, corpus: Corpus, reference: ReferenceVectors
) -> Reading:
    """Return the reading of a file that comes nearest to the checkpoint's vectors.

    Raises:
        ArtifactError: no output has the width of the checkpoint's vectors.
    """
    wanted = dense_head(reference.spec)
    probes = _probes(corpus, reference)
    batches = [tokenizer.pad([reference.token_ids[number]]) for number in probes]
    given = [session.run(batch) for batch in batches]
    truth = np.asarray(reference.truth)[probes]

    tried = []
    for name in given[0]:
        for form, pooling in _forms(given[0][name].shape, batches[0].input_ids.shape[1], wanted):
            reading = Reading(name, form, pooling, unit=False, agreement=0.0)
            rows = np.concatenate([reading.rows(one, batch) for one, batch in zip(given, batches, strict=True)])
            agreement = float(np.median(np.nan_to_num(cosines(rows, truth), nan=-1.0)))
            unit = bool(np.all(np.abs(norms(rows) - 1.0) < UNIT))
            tried.append(Reading(name, form, pooling, unit, agreement))

    if not tried:
        shapes = ", ".join(f"{name} {list(values.shape)}" for name, values in given[0].items())
        raise ArtifactError(
            f"{file.path} returns {shapes} for one text; no output is {wanted.dim} wide, as the vectors of "
            f"{reference.source} are. Give the file of this checkpoint's encoder."
        )
    return _chosen(tried, wanted.pooling)


def _chosen(tried: Sequence[Reading], declared: Pooling) -> Reading:
    """Return the reading that comes nearest; one with the declared pooling unless another's error is less than half.

    In some checkpoints the first and the last state agree to 1e-4, so that rounding alone would decide between them.
    """
    nearest = max(tried, key=lambda one: one.agreement)
    enough = 1.0 - 2.0 * (1.0 - nearest.agreement) - EQUAL
    as_declared = (one for one in tried if one.pooling in (None, declared) and one.agreement >= enough)
    return next(as_declared, nearest)


def _probes(corpus: Corpus, reference: ReferenceVectors) -> list[int]:
    """Return the positions of the texts that are tried: everyday ones of middle length, else any."""
    lengths = [len(ids) for ids in reference.token_ids]
    numbers = range(len(lengths))
    fit = [n for n in numbers if lengths[n] in PROBED_TOKENS and corpus.texts[n].kind == "everyday"]
    return (fit or list(numbers))[:PROBES]


def _forms(shape: Sequence[int], tokens: int, head: DenseHead) -> Sequence[tuple[Form, Pooling | None]]:
    """Return what an output of a shape may hold of one text, the checkpoint's own pooling first."""
    width, declared = head.dim, head.pooling
    if tuple(shape) == (1, width):
        return (("vector", None),)
    if head.layers:  # states lack what follows pooling
        return ()
    if tuple(shape) == (1, 1, width):
        return (("first state", None),)
    if tuple(shape) == (1, tokens, width):
        return [("states", name) for name in (declared, *(one for one in COMMON_POOLINGS if one != declared))]
    return ()


class ReadAs:
    """A runtime that opens a file of others and returns its vectors as a reading says, or the states that it pools."""

    def __init__(self, inner: Runtime, file: ForeignFile, reading: Reading) -> None:
        """Wrap a runtime that reads the file, which keeps its own inputs and outputs there."""
        self.name, self.formats, self.known = inner.name, inner.formats, inner.known
        self.library, self.extra = inner.library, inner.extra
        self._inner, self._file, self._reading = inner, file, reading

    def devices(self) -> Mapping[str, str | None]:
        """Return each known device -> None if it is usable, else the reason why it is not."""
        return self._inner.devices()

    def open(self, artifact: Artifact, device: str, threads: int) -> Session:
        """Open the file; the artifact that is given has the same file, and the output that is measured."""
        head = dense_head(artifact.spec)
        states = LAST_HIDDEN_STATE in artifact.outputs
        session = self._inner.open(self._file.artifact, device, threads)
        return _ReadSession(session, self._reading, states=states, divide=head.normalize)


class _ReadSession:
    """A session whose output is the vector that a reading takes from it, or the states that it pools."""

    def __init__(self, inner: Session, reading: Reading, *, states: bool, divide: bool) -> None:
        self._inner, self._reading, self._states, self._divide = inner, reading, states, divide
        self.facts = inner.facts

    def run(self, batch: TokenBatch) -> Mapping[str, NDArray[np.float32]]:
        given = self._inner.run(batch)
        if self._states:
            return {LAST_HIDDEN_STATE: given[self._reading.output].astype(np.float32)}

        rows = self._reading.rows(given, batch)
        return {SENTENCE_EMBEDDING: normalize(rows) if self._divide else rows}

    def close(self) -> None:
        self._inner.close()
