"""Pools and normalises token states in numpy, for every runtime. The oracle has its own code (`oracle`)."""

import numpy as np
from numpy.typing import NDArray

from bge_export.contracts import EmbeddingSpec


def pool(states: NDArray[np.float32], attention_mask: NDArray[np.int64], spec: EmbeddingSpec) -> NDArray[np.float32]:
    """Return the embedding that `spec` promises.

    Args:
        states: [B, S, D] float32, the last hidden state of each token.
        attention_mask: [B, S] int64, 1 for a token and 0 for padding on the right.
        spec: the pooling, and whether to normalise.

    Returns:
        [B, D] float32. Zero and non-finite rows are kept, so that parity can report them.
    """
    if spec.pooling == "cls":
        pooled = states[:, 0]
    elif spec.pooling == "mean":
        weights = attention_mask[:, :, None].astype(np.float32)
        pooled = (states * weights).sum(axis=1) / weights.sum(axis=1)
    else:
        last = attention_mask.sum(axis=1) - 1
        pooled = states[np.arange(len(states)), last]

    return normalize(pooled) if spec.normalize else np.asarray(pooled, dtype=np.float32)


def normalize(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return [B, D] float32 rows divided by their L2 norm; a zero row stays zero, a non-finite one becomes NaN."""
    wide = rows.astype(np.float64)
    norms = np.sqrt((wide * wide).sum(axis=1, keepdims=True))

    with np.errstate(invalid="ignore"):
        return (wide / np.where(norms == 0.0, 1.0, norms)).astype(np.float32)
