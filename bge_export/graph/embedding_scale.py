"""Multiplies a table of token embeddings by the factor that Gemma and its kin apply after each lookup.

The product of a row and the factor is the same number whether it is taken before or after the lookup, so float32 files
give the same states. In float16 the row is rounded once instead of three times.
"""

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def fold_embedding_scale(model: "PreTrainedModel") -> None:
    """Fold the factor into the table; models without one, or whose table something else reads too, stay as they are."""
    scaled = model.get_input_embeddings()
    factor = getattr(scaled, "embed_scale", None)
    if not isinstance(scaled, nn.Embedding) or not isinstance(factor, torch.Tensor) or factor.numel() != 1:
        return

    readers = [module for module in model.modules() if getattr(module, "weight", None) is scaled.weight]
    if readers != [scaled]:
        return

    table = nn.Embedding.from_pretrained(scaled.weight * factor, freeze=True)  # type: ignore[no-untyped-call]
    model.set_input_embeddings(table)
