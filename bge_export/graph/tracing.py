"""The module that exporters trace (an encoder with an optional head, or a reranker) and its dummy inputs."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bge_export.checkpoint.model import first_line, load_model
from bge_export.checkpoint.static_folder import STATIC
from bge_export.checkpoint.static_model import StaticEncoder
from bge_export.checkpoint.weighted_head import layer_tensors
from bge_export.contracts import LAST_HIDDEN_STATE, SENTENCE_EMBEDDING, Checkpoint
from bge_export.errors import CheckpointError, ExportError, UsageError
from bge_export.graph.bias_folding import fold_biases
from bge_export.graph.buckets import bucket_table, tabled_buckets
from bge_export.graph.embedding_scale import fold_embedding_scale
from bge_export.graph.masks import own_masks, padding_mask
from bge_export.graph.textbook import has_textbook_attention
from bge_export.graph.token_heads import TracedHeads
from bge_export.heads.dense import dense_head
from bge_export.sweep.plan import MOST_ROWS

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TRACE_BATCH, TRACE_LENGTH = 2, 16


class TracedEncoder(nn.Module):
    """The encoder as a function of two or three integer tensors, each [B, S] int64.

    For BERT's kind of attention the mask, [B, 1, 1, S] float32, is given to the model, which uses a 4-D mask unchanged.
    Other architectures get the mask [B, S] and say by themselves which tokens see each other; `masks` writes that down.
    """

    def __init__(self, model: "PreTrainedModel", head: nn.Module | None) -> None:
        """Wrap `model`; if there is a head, its embedding is a second output."""
        super().__init__()
        self.model = model
        self.buckets = bucket_table(model.config)
        self.builds_mask = not has_textbook_attention(model.config)
        self.pooling = head

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return the last hidden state [B, S, D] float32 and, if requested, the embedding [B, D] float32."""
        mask = attention_mask if self.builds_mask else padding_mask(attention_mask)
        inputs = {} if token_type_ids is None else {"token_type_ids": token_type_ids}

        with own_masks(), tabled_buckets(self.buckets):
            states: Tensor = self.model(input_ids=input_ids, attention_mask=mask, **inputs).last_hidden_state
        return states if self.pooling is None else (states, self.pooling(states, attention_mask))


class TracedReranker(nn.Module):
    """A reranker as a function of the same tensors. Its classifier is transformers' own.

    The logits are its only answer. The state that they are made of is returned before them if `states` is set: passes
    that know encoders find the end of the encoder there, and `graph.answers` takes it out again.
    """

    def __init__(self, model: "PreTrainedModel", *, states: bool) -> None:
        """Wrap `model`, a `*ForSequenceClassification` with one label."""
        super().__init__()
        self.model = model
        self.buckets = bucket_table(model.config)
        self.builds_mask = not has_textbook_attention(model.config)
        self.states = states

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return the logits [B, 1] float32, if requested after the last hidden state [B, S, D] float32."""
        mask = attention_mask if self.builds_mask else padding_mask(attention_mask)
        inputs = {} if token_type_ids is None else {"token_type_ids": token_type_ids}

        seen: list[Tensor] = []
        hook = self.model.base_model.register_forward_hook(lambda _, __, given: seen.append(given[0]))
        with own_masks(), tabled_buckets(self.buckets):
            logits: Tensor = self.model(input_ids=input_ids, attention_mask=mask, **inputs).logits
        hook.remove()
        return (seen[0], logits) if self.states else logits


Traced = TracedEncoder | TracedReranker | TracedHeads


def traced(checkpoint: Checkpoint, *, sentence_embedding: bool, states: bool = False) -> Traced:
    """Load the checkpoint, fold what can be folded exactly, and wrap the model for tracing.

    Args:
        checkpoint: the model.
        sentence_embedding: whether the pooled embedding is a second output; it is anyway where layers follow pooling.
        states: whether a model with other heads also returns its last hidden state, first.

    Raises:
        UsageError: a pooled embedding is asked of a model with other heads.
    """
    if checkpoint.spec.is_reranker and sentence_embedding:
        raise UsageError(
            f"{checkpoint.source} is a reranker: it scores pairs, and has no sentence embedding. Leave out "
            "--sentence-embedding, and eland's layout."
        )

    if checkpoint.spec.has_token_heads and sentence_embedding:
        raise UsageError(
            f"{checkpoint.source} gives {', '.join(checkpoint.spec.outputs)}, and no sentence embedding beside "
            "them. Leave out --sentence-embedding, and eland's layout."
        )

    model = load_model(checkpoint)
    if isinstance(model, StaticEncoder):
        _refuse_static(checkpoint, model, sentence_embedding=sentence_embedding)
    if has_textbook_attention(model.config):
        fold_biases(model)
    fold_embedding_scale(model)
    if checkpoint.spec.is_reranker:
        return TracedReranker(model, states=states).eval()
    if checkpoint.spec.has_token_heads:
        return TracedHeads(model, checkpoint, states=states).eval()

    gives_vector = SENTENCE_EMBEDDING in output_names(checkpoint, sentence_embedding=sentence_embedding)
    if not gives_vector:
        return TracedEncoder(model, None).eval()

    may_be_empty = checkpoint.model_type == STATIC  # no special token stands in a text without words
    head = dense_head(checkpoint.spec).module(layer_tensors(checkpoint), may_be_empty=may_be_empty)
    return TracedEncoder(model, head).eval()


def _refuse_static(checkpoint: Checkpoint, model: StaticEncoder, *, sentence_embedding: bool) -> None:
    """Raise an error for what no check can hold to a static model that counts some tokens out of its mean.

    The count depends on the ids beside the rows, so the table cannot be read from the graph (`token_tables`): each row
    must be seen in the states, for which there may not be too many.
    """
    if model.dropped is None:
        return

    says = f"{checkpoint.source} leaves unknown tokens out of a mean that it does not divide by its norm"
    if sentence_embedding:
        raise UsageError(
            f"{says}, so its states alone can be checked. Leave out --sentence-embedding, and eland's layout."
        )
    if len(model.table.weight) > MOST_ROWS:
        raise CheckpointError(
            f"{says}, and has {len(model.table.weight)} tokens; with more than {MOST_ROWS} that cannot be checked. "
            "Normalise it: normalize: true in config.json, and a Normalize in modules.json."
        )


def untraceable(checkpoint: Checkpoint, error: Exception) -> str:
    """Return a sentence that names the architecture and the cause."""
    return (
        f"{checkpoint.source}: torch cannot trace the architecture {checkpoint.model_type!r}: {first_line(error)}. It "
        "cannot be exported: choose a checkpoint of another architecture."
    )


def input_names(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Return the graph's input names; token types only if the model uses them (convention of optimum and the Hub)."""
    names = ("input_ids", "attention_mask")
    return (*names, "token_type_ids") if checkpoint.token_types else names


def output_names(checkpoint: Checkpoint, *, sentence_embedding: bool, states: bool = False) -> tuple[str, ...]:
    """Return the names of what the module of `traced` returns; consumers that ignore names read the first output.

    Where layers follow pooling, the graph gives the embedding unasked.
    """
    if answers := checkpoint.spec.outputs:
        return (LAST_HIDDEN_STATE, *answers) if states else answers
    if sentence_embedding or dense_head(checkpoint.spec).in_graph:
        return (LAST_HIDDEN_STATE, SENTENCE_EMBEDDING)
    return (LAST_HIDDEN_STATE,)


def trace_inputs(model: "PreTrainedModel", names: tuple[str, ...]) -> tuple[Tensor, ...]:
    """Return a padded batch to trace with, [2, S] int64 each: tokens drawn from the model's own table."""
    table = model.get_input_embeddings()
    if not isinstance(table, nn.Embedding):
        raise ExportError(f"{type(model).__name__} has no table of token embeddings: it cannot be exported.")

    length = _trace_length(model)
    shape = (TRACE_BATCH, length)
    ids = torch.randint(table.num_embeddings, shape, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(shape, dtype=torch.int64)
    mask[-1, length // 2 :] = 0

    values = {
        "input_ids": ids,
        "attention_mask": mask,
        "token_type_ids": torch.zeros(shape, dtype=torch.int64),
        "position_ids": torch.arange(length).expand(shape),
    }
    return tuple(values[name] for name in names)


def _trace_length(model: "PreTrainedModel") -> int:
    """Return the number of tokens to trace with.

    DeBERTa cuts its relative positions at the farthest one that it knows. Only a batch that is longer traces the cut: a
    graph of a shorter one fails on texts beyond it.
    """
    config = model.config
    if config.model_type != "deberta" or not getattr(config, "relative_attention", False):
        return TRACE_LENGTH

    longest = int(config.max_position_embeddings)
    farthest = int(getattr(config, "max_relative_positions", -1))
    return min(max(TRACE_LENGTH, (farthest if farthest > 0 else longest) + 1), longest)
