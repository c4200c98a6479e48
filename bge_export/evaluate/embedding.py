"""Embeds texts with an artifact in one runtime: batches hold texts of similar length, rows keep their order."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bge_export.contracts import LAST_HIDDEN_STATE, Artifact, Runtime
from bge_export.errors import UsageError
from bge_export.heads.dense import dense_head
from bge_export.parity.measure.embedding import Checked
from bge_export.progress import advance
from bge_export.texts.tokens import TextTokenizer

BATCH = 32


@dataclass(frozen=True)
class Embedder:
    """An opened artifact with its tokenizer."""

    artifact: Artifact
    checked: Checked
    tokenizer: TextTokenizer

    def embed(self, texts: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        """Return the vectors of N texts by output, [N, D] float64, in the order of `texts`; progress counts texts.

        Raises:
            MeasurementError: the artifact returned something other than embeddings.
        """
        token_ids = self.tokenizer.encode(texts)
        order = sorted(range(len(texts)), key=lambda n: len(token_ids[n]))
        width = dense_head(self.artifact.spec).dim
        result = {output: np.zeros((len(texts), width)) for output in self.artifact.outputs}

        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            batch = self.tokenizer.pad([token_ids[n] for n in rows])
            for output, vectors in self.checked.embed(batch).items():
                result[output][rows] = vectors
            advance(len(rows))

        return result


def unnormalized(artifact: Artifact) -> Artifact:
    """Return an artifact whose vectors are taken before they are divided by their norm; its file is the same.

    Raises:
        UsageError: the file itself divides, in the output that is taken.
    """
    head = dense_head(artifact.spec)
    if artifact.outputs[0] != LAST_HIDDEN_STATE:
        raise UsageError(f"{artifact.model} gives no token states, so its vectors cannot be taken before their norm.")

    heads = {**artifact.spec.heads, head.kind: replace(head, normalize=False)}
    return replace(artifact, spec=replace(artifact.spec, heads=heads))


@contextmanager
def opened(artifact: Artifact, runtime: Runtime, device: str, threads: int) -> Generator[Embedder]:
    """Open an artifact in a runtime for as long as the block runs.

    Raises:
        MeasurementError: the artifact cannot be run.
    """
    tokenizer = TextTokenizer.load(artifact.root, artifact.spec.inputs.max_tokens)
    session = runtime.open(artifact, device, threads)
    try:
        yield Embedder(artifact, Checked(session, artifact, runtime.name), tokenizer)
    finally:
        session.close()


def embed(
    artifact: Artifact, runtime: Runtime, device: str, threads: int, texts: Sequence[str]
) -> dict[str, NDArray[np.float64]]:
    """Return the vectors of N texts by output, [N, D] float64, in the order of `texts`; progress counts texts.

    Raises:
        MeasurementError: the artifact cannot be run, or returned something other than embeddings.
    """
    with opened(artifact, runtime, device, threads) as embedder:
        return embedder.embed(texts)
