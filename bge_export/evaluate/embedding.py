"""Embeds texts with an artifact in one runtime: batches hold texts of similar length, rows keep their order."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bge_export.contracts import Artifact, Runtime
from bge_export.heads.dense import dense_head
from bge_export.parity.measure.embedding import Checked
from bge_export.progress import advance
from bge_export.texts.tokens import TextTokenizer

BATCH = 32


def embed(
    artifact: Artifact, runtime: Runtime, device: str, threads: int, texts: Sequence[str]
) -> dict[str, NDArray[np.float64]]:
    """Return the vectors of N texts by output, [N, D] float64, in the order of `texts`; progress counts texts.

    Raises:
        MeasurementError: the artifact cannot be run, or returned something other than embeddings.
    """
    tokenizer = TextTokenizer.load(artifact.root, artifact.promise.reads.max_tokens)
    token_ids = tokenizer.encode(texts)
    order = sorted(range(len(texts)), key=lambda n: len(token_ids[n]))

    result = {output: np.zeros((len(texts), dense_head(artifact.promise).dim)) for output in artifact.outputs}

    session = runtime.open(artifact, device, threads)
    try:
        checked = Checked(session, artifact, runtime.name)
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            for output, vectors in checked.embed(tokenizer.pad([token_ids[n] for n in rows])).items():
                result[output][rows] = vectors
            advance(len(rows))
    finally:
        session.close()

    return result
