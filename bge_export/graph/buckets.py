"""DeBERTa's buckets of distances, read from a table while the model is traced.

DeBERTa-v2 and v3 sort the distance of two tokens into buckets by a logarithm, rounded up. The longest distance lies on
the edge of a bucket, so the logarithm's last bit decides, and each runtime has its own: in OpenVINO, a token's state at
the longest input had a cosine of 0.9991. The table holds what torch computes.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PretrainedConfig
from transformers.models.deberta_v2 import modeling_deberta_v2


def bucket_table(config: PretrainedConfig) -> Tensor | None:
    """Return the bucket of each distance from 0 to the longest one, int64; None for other architectures."""
    size = int(getattr(config, "position_buckets", -1) or -1)
    if config.model_type != "deberta-v2" or not getattr(config, "relative_attention", False) or size < 1:
        return None

    longest = int(getattr(config, "max_relative_positions", -1))
    longest = longest if longest > 0 else int(config.max_position_embeddings)
    most = max(longest, int(config.max_position_embeddings))
    buckets: Tensor = modeling_deberta_v2.make_log_bucket_position(torch.arange(most + 1), size, longest)
    return buckets.to(torch.int64)


@contextmanager
def tabled_buckets(table: Tensor | None) -> Iterator[None]:
    """Let DeBERTa read its buckets from a table in this block; nothing changes if it is None."""
    if table is None:
        yield
        return

    def looked_up(relative_pos: Tensor, _bucket_size: int, _max_position: int) -> Tensor:
        return table[relative_pos.abs().clamp(max=len(table) - 1)] * relative_pos.sign()

    own = modeling_deberta_v2.make_log_bucket_position
    modeling_deberta_v2.make_log_bucket_position = looked_up  # type: ignore[assignment]  # called by position
    try:
        yield
    finally:
        modeling_deberta_v2.make_log_bucket_position = own
