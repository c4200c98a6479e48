"""The oracle of heads that give token weights and vectors of tokens: BGE-M3, SPLADE and ColBERT, in eager torch.

The arithmetic is written after FlagEmbedding (BGE-M3), sentence-transformers' SpladePooling and PyLate, for one text at
a time without padding. Nothing of `heads` computes here: of a head only the promised fields are read.
"""

import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bge_export.checkpoint.head_layers import head_layers
from bge_export.contracts import Checkpoint
from bge_export.errors import CheckpointError
from bge_export.oracle.eager import LIBRARIES
from bge_export.oracle.padding import LEAST_TOKENS, MOST_TOKENS, PADDED, TEXTS
from bge_export.oracle.running import Eager
from bge_export.oracle.stateless import refuse_changed, settings_of
from bge_export.oracle.sweep import batches, sweep_states, token_facts
from bge_export.oracle.vectors import ReferenceVectors
from bge_export.progress import advance, stage
from bge_export.sweep.packing import text_key, token_width
from bge_export.texts.corpus import Corpus

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SAME = 1e-4
"""Largest change of an answer by padding, relative to the largest; sums in another order keep 1e-6."""


@dataclass(frozen=True)
class Arithmetic:
    """What a checkpoint's heads make of the output of its model.

    Attributes:
        checkpoint: the checkpoint.
        layers: kind of head -> weight and bias of each of its linear layers.
    """

    checkpoint: Checkpoint
    layers: "dict[str, list[tuple[torch.Tensor, torch.Tensor | None]]]" = field(default_factory=dict)

    @classmethod
    def load(cls, checkpoint: Checkpoint) -> "Arithmetic":
        """Load the layers of the heads."""
        return cls(checkpoint, {kind: head_layers(checkpoint, kind) for kind in checkpoint.head_weights})

    def of(self, output: "torch.Tensor", mask: "torch.Tensor") -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return what stands for each place, [S, W], and for the text, [P]; `sweep.packing` names the columns.

        Args:
            output: of the model: states [S, D], or the logits [S, V] of a masked language model.
            mask: which of the S places are tokens, [S] bool.
        """
        import torch

        columns: list[torch.Tensor] = []
        whole = torch.zeros(0)
        heads: dict[str, Any] = dict(self.checkpoint.spec.heads)

        if "dense" in heads:
            first = output[0]
            whole = first / first.pow(2).sum().sqrt() if heads["dense"].normalize else first
        if "sparse" in heads and heads["sparse"].per == "vocabulary":
            whole = self._splade(output[mask], heads["sparse"])
        elif "sparse" in heads:
            columns.append(torch.clamp(self._through("sparse", output), min=0.0))

        if "multi_vector" in heads:
            vectors = self._through("multi_vector", output)
            if heads["multi_vector"].normalize:
                vectors = vectors / vectors.pow(2).sum(-1, keepdim=True).sqrt()
            vectors[: heads["multi_vector"].skipped] = 0.0
            columns.append(vectors)

        tokens = torch.cat(columns, dim=-1) if columns else torch.zeros(len(output), 0)
        return tokens.float().numpy(), whole.float().numpy()

    def _through(self, kind: str, states: "torch.Tensor") -> "torch.Tensor":
        """Return states [S, D] after a head's linear layers."""
        for weight, bias in self.layers[kind]:
            states = states @ weight.T
            states = states if bias is None else states + bias
        return states.clone()

    def _splade(self, logits: "torch.Tensor", head: Any) -> "torch.Tensor":  # noqa: ANN401 - a head's fields are read
        """Return the weights [V] of the logits [T, V] of a text's tokens."""
        import torch

        weights = torch.log1p(torch.clamp(logits, min=0.0))
        if head.log_twice:
            weights = torch.log1p(weights)
        return weights.max(0).values if head.pooling == "max" else weights.sum(0)


def answer_texts(checkpoint: Checkpoint, corpus: Corpus, *, threads: int, every_id: bool = True) -> ReferenceVectors:
    """Return what the checkpoint's heads give for a corpus, and for a sweep of token ids (`sweep.plan`).

    Args:
        checkpoint: the model; its weights are loaded here.
        corpus: N texts.
        threads: the number of torch's threads.
        every_id: sweep every token id; else the sample alone, which is all that a file holds.

    Raises:
        CheckpointError: weights or tokenizer cannot be loaded, or answers are not finite.
        MissingLibrary: torch or transformers is not installed.
    """
    run = Eager.load(checkpoint, threads)
    model, tokenizer, own = run.model, run.tokenizer, Arithmetic.load(checkpoint)
    _refuse_other_dropped(checkpoint, tokenizer)
    before = settings_of(model)

    with stage(f"reference: {checkpoint.source}", len(corpus.texts)):
        token_ids, tokens, texts = _answers(run, own, corpus)

    facts = token_facts(checkpoint, model, tokenizer)
    label = "every token id" if every_id else "a sample of token ids"
    with stage(f"reference: {label}", batches(facts, every_id=every_id)):
        sweep = sweep_states(checkpoint, model, facts, every_id=every_id, arithmetic=own.of)

    refuse_changed(checkpoint.source, before, settings_of(model))
    _refuse_padding(own, model, token_ids, tokenizer.pad_token_id or 0)
    return ReferenceVectors(
        source=checkpoint.source,
        revision=checkpoint.revision,
        checkpoint_digest=checkpoint.digest,
        texts_digest=corpus.digest,
        spec=checkpoint.spec,
        ids=tuple(text.id for text in corpus.texts),
        token_ids=token_ids,
        vectors={text_key(checkpoint.spec): texts},
        versions={"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
        kind="checkpoint",
        sweep=sweep,
        tokens=tokens if token_width(checkpoint.spec) else None,
    )


def _answers(
    run: Eager, own: Arithmetic, corpus: Corpus
) -> tuple[tuple[tuple[int, ...], ...], NDArray[np.float32], NDArray[np.float32]]:
    """Return the token ids of N texts, what stands for each of their tokens [T, W], and for each text [N, P]."""
    import torch

    rows: list[tuple[int, ...]] = []
    of_tokens, of_texts = [], []
    with torch.inference_mode():
        for text in corpus.texts:
            feed = run.tokens(text.text)
            output = run.output(feed, text.id)
            tokens, whole = own.of(output, torch.ones(len(output), dtype=torch.bool))

            if not (np.isfinite(tokens).all() and np.isfinite(whole).all()):
                raise CheckpointError(
                    f"{own.checkpoint.source}: its answers for the text {text.id[:40]!r} are not finite. It cannot be "
                    "exported."
                )
            rows.append(tuple(feed["input_ids"][0].tolist()))
            of_tokens.append(tokens)
            of_texts.append(whole)
            advance()

    return tuple(rows), np.concatenate(of_tokens), np.stack(of_texts)


def _refuse_other_dropped(checkpoint: Checkpoint, tokenizer: "PreTrainedTokenizerBase") -> None:
    """Raise CheckpointError unless the weights that are left out are those of the tokenizer's own special tokens."""
    sparse: Any = checkpoint.spec.heads.get("sparse")
    if sparse is None or sparse.per != "token":
        return

    known = tokenizer.special_tokens_map
    named = [str(known[name]) for name in ("cls_token", "eos_token", "pad_token", "unk_token") if name in known]
    numbers: Any = tokenizer.convert_tokens_to_ids(named)
    dropped = tuple(sorted(set(numbers)))
    if dropped != sparse.unused:
        raise CheckpointError(
            f"{checkpoint.source}: FlagEmbedding leaves out the weights of the token ids {list(dropped)}, and its "
            f"files name {list(sparse.unused)}. Save the tokenizer again with transformers (save_pretrained)."
        )


def _refuse_padding(own: Arithmetic, model: "PreTrainedModel", rows: Sequence[Sequence[int]], pad: int) -> None:
    """Run the shortest texts with padding behind them; raise CheckpointError if that changes what is made of them.

    Args:
        own: the arithmetic of the heads.
        model: the checkpoint's model.
        rows: the token ids of texts, without padding.
        pad: the id of the padding token.
    """
    import torch

    checkpoint = own.checkpoint
    fitting = sorted((row for row in rows if LEAST_TOKENS <= len(row) <= MOST_TOKENS), key=len)
    for row in fitting[:TEXTS]:
        for count in (count for count in PADDED if len(row) + count <= checkpoint.spec.inputs.max_tokens):
            ids = torch.tensor([[*row, *[pad] * count]])
            mask = torch.tensor([[1] * len(row) + [0] * count])
            types = {"token_type_ids": torch.zeros_like(ids)} if checkpoint.token_types else {}
            alone = {name: array[:, : len(row)] for name, array in types.items()}

            with torch.inference_mode():
                there = model(ids[:, : len(row)], **alone)[0][0]
                beside = model(ids, attention_mask=mask, **types)[0][0]
                one = own.of(there, mask[0, : len(row)].bool())
                other = own.of(beside, mask[0].bool())

            if not all(map(_same, one, (other[0][: len(row)], other[1]))):
                raise CheckpointError(
                    f"{checkpoint.source}: the architecture {checkpoint.model_type!r} gives a text other answers where "
                    f"padding follows it ({count} tokens of it), mask or not, so no file can be proven in batches. "
                    "Choose a checkpoint of another architecture."
                )


def _same(one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    """Return whether two answers differ by rounding alone."""
    if not one.size:
        return True
    return bool(np.abs(one - other).max() <= SAME * max(1.0, float(np.abs(one).max())))
