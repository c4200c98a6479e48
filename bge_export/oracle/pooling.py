"""The poolings of sentence-transformers for one text, in eager torch. `heads` has them for padded batches."""

from typing import TYPE_CHECKING

from bge_export.contracts import Pooling

if TYPE_CHECKING:
    import torch


def pooled(states: "torch.Tensor", pooling: Pooling) -> "torch.Tensor":
    """Return the vector [D] of the states [S, D] of a text without padding, which needs no attention mask."""
    import torch

    # Without special tokens a text may have no token; its mean is zero, as torch's EmbeddingBag has it.
    if not len(states):
        return states.new_zeros(states.shape[1])

    if pooling == "cls":
        return states[0]
    if pooling == "last":
        return states[-1]
    if pooling == "mean":
        return states.mean(0)
    if pooling == "max":
        return states.amax(0)

    if pooling == "mean_sqrt_len":
        summed: torch.Tensor = states.sum(0) / len(states) ** 0.5
        return summed

    # The later a token, the more it weighs: 1, 2, 3 …
    places = torch.arange(1, len(states) + 1, dtype=states.dtype)
    vector: torch.Tensor = places @ states / places.sum()
    return vector
