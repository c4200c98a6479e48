"""Refuses a checkpoint whose vector of a text depends on the padding beside it, before anything is measured.

Nyströmformer, for one, averages over all places of a batch, and ConvBERT's and MobileBERT's convolutions look at
neighbours behind the text. No file of such a checkpoint gives the vector of a text alone in a batch.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bge_export.contracts import Checkpoint
from bge_export.errors import CheckpointError
from bge_export.heads.dense import dense_head
from bge_export.oracle.pooling import pooled

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PADDED = (1, 19)
"""How many tokens of padding follow a text."""

LEAST_TOKENS, MOST_TOKENS = 4, 64
"""Lengths of the texts that are tried."""

TEXTS = 3

SAME = 0.999999
"""Smallest cosine of a text's vector with that of the same text beside padding, as the gate asks of float32 files; sums
in another order keep 1 - 1e-12."""


def refuse_padding(checkpoint: Checkpoint, model: "PreTrainedModel", rows: Sequence[Sequence[int]], pad: int) -> None:
    """Embed the shortest texts with padding behind them; raise CheckpointError if that gives them other vectors.

    Args:
        checkpoint: the checkpoint.
        model: its model.
        rows: the token ids of texts, without padding.
        pad: the id of the padding token.
    """
    fitting = sorted((row for row in rows if LEAST_TOKENS <= len(row) <= MOST_TOKENS), key=len)
    most = checkpoint.spec.inputs.max_tokens

    for row in fitting[:TEXTS]:
        for count in (count for count in PADDED if len(row) + count <= most):
            cosine = _cosine(checkpoint, model, row, [pad] * count)
            if not cosine >= SAME:
                raise CheckpointError(
                    f"{checkpoint.source}: the architecture {checkpoint.model_type!r} gives a text another vector "
                    f"where padding follows it (cosine {cosine:.7f} with {count} tokens of it), mask or not, so no "
                    "file can be proven in batches. Choose a checkpoint of another architecture."
                )


def _cosine(checkpoint: Checkpoint, model: "PreTrainedModel", row: Sequence[int], padding: Sequence[int]) -> float:
    """Return the cosine of a text's vector with that of the same text and padding behind it."""
    import torch

    ids = torch.tensor([[*row, *padding]])
    mask = torch.tensor([[1] * len(row) + [0] * len(padding)])
    types = torch.zeros_like(ids)

    with torch.inference_mode():
        alone = model(
            ids[:, : len(row)], **({"token_type_ids": types[:, : len(row)]} if checkpoint.token_types else {})
        )
        padded = model(ids, attention_mask=mask, **({"token_type_ids": types} if checkpoint.token_types else {}))

    pooling = dense_head(checkpoint.spec).pooling
    one, other = (pooled(states.last_hidden_state[0, : len(row)], pooling) for states in (alone, padded))
    if torch.equal(one, other):  # two zero vectors have no angle
        return 1.0
    return float(torch.nn.functional.cosine_similarity(one, other, dim=0))
