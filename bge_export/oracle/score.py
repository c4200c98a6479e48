"""The oracle of rerankers: scores pairs with the checkpoint's own classifier, in eager torch, one pair at a time.

transformers' class of the architecture (`*ForSequenceClassification`) holds the pooling and the classifier, and its
tokenizer joins and truncates the pair. Nothing of `heads` and `texts.tokens` is used.
"""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np

from bge_export.checkpoint.model import first_line, load_model
from bge_export.contracts import Checkpoint
from bge_export.errors import CheckpointError
from bge_export.files.panics import panics_as_errors
from bge_export.oracle.eager import LIBRARIES
from bge_export.oracle.padding import LEAST_TOKENS, MOST_TOKENS, PADDED, TEXTS
from bge_export.oracle.running import own_tokenizer
from bge_export.oracle.stateless import refuse_changed, settings_of
from bge_export.oracle.sweep import batches, sweep_states, token_facts
from bge_export.oracle.vectors import SCORES, ReferenceVectors
from bge_export.progress import advance, stage
from bge_export.texts.corpus import Corpus, Text

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SAME = 1e-4
"""Largest change of a logit by padding, relative to the largest logit; sums in another order keep 1e-6."""


def score_pairs(checkpoint: Checkpoint, corpus: Corpus, *, threads: int, every_id: bool = True) -> ReferenceVectors:
    """Return the logits of a corpus of pairs, and those of a sweep of token ids (`sweep.plan`).

    Args:
        checkpoint: a reranker; its weights are loaded here.
        corpus: N pairs.
        threads: the number of torch's threads.
        every_id: sweep every token id; else the sample alone, which is all that a file of logits holds.

    Raises:
        CheckpointError: weights or tokenizer cannot be loaded, or the model's logits are not finite.
        MissingLibrary: torch or transformers is not installed.
    """
    tokenizer = own_tokenizer(checkpoint)
    import torch

    torch.set_num_threads(threads)
    model = load_model(checkpoint)
    before = settings_of(model)

    logits: list[float] = []
    rows: list[tuple[int, ...]] = []
    types: list[tuple[int, ...]] = []

    with stage(f"reference: {checkpoint.source}", len(corpus.texts)), torch.inference_mode():
        for pair in corpus.texts:
            tokens = _tokens(tokenizer, pair, checkpoint)
            logits.append(_logit(model, tokens, checkpoint, pair.id))
            rows.append(tuple(tokens["input_ids"][0].tolist()))
            types.append(tuple(tokens["token_type_ids"][0].tolist()) if checkpoint.token_types else ())
            advance()

    facts = token_facts(checkpoint, model, tokenizer)
    label = "every token id" if every_id else "a sample of token ids"
    with stage(f"reference: {label}", batches(facts, every_id=every_id)):
        sweep = sweep_states(checkpoint, model, facts, every_id=every_id)

    refuse_changed(checkpoint.source, before, settings_of(model))
    _refuse_padding(checkpoint, model, rows, types, tokenizer.pad_token_id or 0)
    return ReferenceVectors(
        source=checkpoint.source,
        revision=checkpoint.revision,
        checkpoint_digest=checkpoint.digest,
        texts_digest=corpus.digest,
        spec=checkpoint.spec,
        ids=tuple(pair.id for pair in corpus.texts),
        token_ids=tuple(rows),
        token_types=tuple(types) if checkpoint.token_types else None,
        vectors={SCORES: np.array(logits, dtype=np.float32)[:, None]},
        versions={"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
        kind="checkpoint",
        sweep=sweep,
    )


def _tokens(tokenizer: "PreTrainedTokenizerBase", pair: Text, checkpoint: Checkpoint) -> "Mapping[str, torch.Tensor]":
    """Return the tokens of one pair, [1, S] int64 each; the longer side is truncated first.

    It is given as a batch of one, as every reranker's library does: transformers takes a single pair whose second side
    is empty for a text alone.

    Raises:
        CheckpointError: the tokenizer fails.
    """
    try:
        with panics_as_errors():
            tokens: Mapping[str, torch.Tensor] = tokenizer(
                [pair.query],
                [pair.text],
                truncation="longest_first",
                max_length=checkpoint.spec.inputs.max_tokens,
                return_tensors="pt",
                return_token_type_ids=checkpoint.token_types,
            )
    except Exception as error:
        raise CheckpointError(
            f"{checkpoint.source}: its tokenizer fails on a pair: {error}. Fetch its files again."
        ) from error

    return tokens


def _logit(
    model: "PreTrainedModel", tokens: "Mapping[str, torch.Tensor]", checkpoint: Checkpoint, pair_id: str
) -> float:
    """Return the logit of one pair.

    Raises:
        CheckpointError: the model fails, or its logit is not finite.
    """
    try:
        logit = float(model(**tokens).logits[0, 0])
    except Exception as error:  # every architecture raises kinds of its own
        raise CheckpointError(
            f"{checkpoint.source}: the model fails on the pair {pair_id[:40]!r} of {tokens['input_ids'].shape[1]} "
            f"tokens: {first_line(error)}. Choose another checkpoint, or correct config.json."
        ) from error

    if not np.isfinite(logit):
        raise CheckpointError(
            f"{checkpoint.source}: its logit of the pair {pair_id[:40]!r} is not finite. It cannot be exported."
        )
    return logit


def _refuse_padding(
    checkpoint: Checkpoint,
    model: "PreTrainedModel",
    rows: Sequence[Sequence[int]],
    types: Sequence[Sequence[int]],
    pad: int,
) -> None:
    """Score the shortest pairs with padding behind them; raise CheckpointError if that changes their logits.

    Args:
        checkpoint: the checkpoint.
        model: its model.
        rows: the token ids of pairs, without padding.
        types: their token types; empty rows if the model has none.
        pad: the id of the padding token.
    """
    import torch

    fitting = [(row, own) for row, own in zip(rows, types, strict=True) if LEAST_TOKENS <= len(row) <= MOST_TOKENS]
    for row, own in sorted(fitting, key=lambda pair: len(pair[0]))[:TEXTS]:
        feed = {"input_ids": torch.tensor([row]), "attention_mask": torch.ones(1, len(row), dtype=torch.int64)}
        if own:
            feed["token_type_ids"] = torch.tensor([own])

        for count in (count for count in PADDED if len(row) + count <= checkpoint.spec.inputs.max_tokens):
            fills = {"input_ids": pad, "attention_mask": 0, "token_type_ids": 0}
            padded = {
                name: torch.nn.functional.pad(array, (0, count), value=fills[name]) for name, array in feed.items()
            }
            with torch.inference_mode():
                alone, beside = (float(model(**each).logits[0, 0]) for each in (feed, padded))

            if not abs(alone - beside) <= SAME * max(1.0, abs(alone)):
                raise CheckpointError(
                    f"{checkpoint.source}: the architecture {checkpoint.model_type!r} gives a pair another logit where "
                    f"padding follows it ({beside:.6f} with {count} tokens of it, {alone:.6f} without), mask or not, "
                    "so no file can be proven in batches. Choose a checkpoint of another architecture."
                )
