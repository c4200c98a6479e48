"""The attention mask of a traced encoder: a sum of at most two small tensors, for every architecture.

transformers gives each architecture's rule (causal, sliding window, …) to one function that builds the mask. The one it
has for eager attention indexes the mask [B, S] with [B, 1, S, S] integers, which fill half a gigabyte at 8,192 tokens,
and adds the smallest float32, which float16 lacks. While a model is traced, `additive_mask` stands in its place.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, bidirectional_mask_function

MASKED = -10000.0
"""Added to the scores of masked tokens (BERT's original value). In float32 exp(MASKED) is exactly 0, as with the
smallest float32, which transformers adds; but twice MASKED is also finite in float16, so a row that masks every token
(padding, or a window that lies in padding) has finite states. See docs/decisions/0003."""

EAGER = "eager"
"""The attention implementation that models are loaded with (`checkpoint.model`)."""

Rule = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""Indices of text, head, query and key, broadcast against each other -> whether the query sees the key."""


def padding_mask(attention_mask: Tensor) -> Tensor:
    """Return what is added to the scores of each key, [B, 1, 1, S] float32, from the mask [B, S]."""
    return (1.0 - attention_mask[:, None, None, :].to(torch.float32)) * MASKED


def additive_mask(
    *,
    batch_size: int,
    q_length: int,
    kv_length: int,
    mask_function: Rule,
    attention_mask: Tensor,
    **_others: object,
) -> Tensor:
    """Return what is added to the scores: [B, 1, 1, S] if every token sees every other, else [B, 1, S, S], float32.

    The arguments are those that transformers gives to its own mask functions; none of the others matters to an encoder
    that reads whole texts in float32 on the CPU.

    Args:
        batch_size: B.
        q_length: S.
        kv_length: S.
        mask_function: the architecture's rule, without padding.
        attention_mask: [B, S], true for tokens.
    """
    padding = padding_mask(attention_mask)
    if mask_function is bidirectional_mask_function:  # type: ignore[comparison-overlap]  # annotated as of integers
        return padding

    seen = mask_function(
        torch.arange(batch_size)[:, None, None, None],
        torch.zeros(1, 1, 1, 1, dtype=torch.int64),
        torch.arange(q_length)[None, None, :, None],
        torch.arange(kv_length)[None, None, None, :],
    )
    return padding + torch.where(seen, 0.0, MASKED)


@contextmanager
def own_masks() -> Iterator[None]:
    """Let transformers' eager models take their masks from `additive_mask` in this block."""
    ALL_MASK_ATTENTION_FUNCTIONS[EAGER] = additive_mask
    try:
        yield
    finally:
        ALL_MASK_ATTENTION_FUNCTIONS.pop(EAGER)
