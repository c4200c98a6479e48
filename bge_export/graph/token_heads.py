"""The module that exporters trace of a model with token weights or vectors of tokens: its encoder and all its heads."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn

from bge_export.checkpoint.head_layers import head_layers
from bge_export.contracts import COLBERT_VECS, SPARSE_WEIGHTS, TOKEN_EMBEDDINGS, Checkpoint
from bge_export.graph.buckets import bucket_table, tabled_buckets
from bge_export.graph.masks import own_masks, padding_mask
from bge_export.graph.textbook import has_textbook_attention
from bge_export.heads._token_modules import Layered
from bge_export.heads.dense import DenseHead
from bge_export.heads.multi_vector import MultiVectorHead
from bge_export.heads.sparse import SparseHead

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class TracedHeads(nn.Module):
    """An encoder and its heads as a function of two or three integer tensors, each [B, S] int64.

    The last hidden state is returned first if `states` is set, for the reason that `tracing.TracedReranker` gives.
    """

    def __init__(self, model: "PreTrainedModel", checkpoint: Checkpoint, *, states: bool) -> None:
        """Wrap `model`, an encoder or a masked language model, and the heads of the checkpoint's spec."""
        super().__init__()
        self.model = model
        self.buckets = bucket_table(model.config)
        self.builds_mask = not has_textbook_attention(model.config)
        self.states = states

        # Named as an encoder's pooling, by which float16 knows what stays in float32.
        self.pooling = _AllHeads(checkpoint)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor | tuple[Tensor, ...]:
        """Return what each head gives, if requested after the last hidden state [B, S, D] float32."""
        mask = attention_mask if self.builds_mask else padding_mask(attention_mask)
        inputs = {} if token_type_ids is None else {"token_type_ids": token_type_ids}

        seen: list[Tensor] = []
        hook = self.model.base_model.register_forward_hook(lambda _, __, given: seen.append(given[0]))
        with own_masks(), tabled_buckets(self.buckets):
            # Of a masked language model these are its logits.
            given: Tensor = self.model(input_ids=input_ids, attention_mask=mask, **inputs)[0]
        hook.remove()

        answers: tuple[Tensor, ...] = self.pooling(given, attention_mask)
        if self.states:
            return (seen[0], *answers)
        return answers[0] if len(answers) == 1 else answers


class _AllHeads(nn.Module):
    """The heads of a spec, in the order of its outputs."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        kinds = [kind for kind in ("dense", "sparse", "multi_vector") if kind in checkpoint.spec.heads]
        self.heads = nn.ModuleList(_module(checkpoint, kind) for kind in kinds)

    def forward(self, given: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        return tuple(head(given, attention_mask) for head in self.heads)


def _module(checkpoint: Checkpoint, kind: str) -> nn.Module:
    """Return one head in torch, behind its own layers."""
    head = checkpoint.spec.heads[kind]
    if not isinstance(head, DenseHead | SparseHead | MultiVectorHead):
        raise TypeError(f"{kind} is no head that this module traces")

    last = head.module()
    layers = head_layers(checkpoint, kind)
    return Layered(layers, last) if layers else last


TOKEN_AXES: Mapping[str, str] = {
    SPARSE_WEIGHTS: "sequence_length",
    TOKEN_EMBEDDINGS: "sequence_length",
    COLBERT_VECS: "vectors",
}
"""Output -> the name of its second dimension, if that depends on the batch."""


def axes(output: str) -> dict[int, str]:
    """Return the names of an output's dynamic dimensions."""
    second = TOKEN_AXES.get(output)
    return {0: "batch_size"} if second is None else {0: "batch_size", 1: second}
