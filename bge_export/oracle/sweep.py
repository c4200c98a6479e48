"""The checkpoint's own states of a sweep: it is given the same ids, masks and token types as the artifacts.

Rows that are padded on the right are run alone and without padding, as texts are; other masks as they are. Of a
reranker, whose files give no states, the logits are expected.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bge_export.checkpoint.model import first_line, load_model
from bge_export.contracts import Checkpoint, Pooling
from bge_export.errors import CheckpointError
from bge_export.heads.dense import dense_head
from bge_export.oracle.following import Following
from bge_export.oracle.pooling import pooled
from bge_export.progress import advance
from bge_export.sweep.plan import UNSURE, SweepBatch, TokenFacts, plan_positions, plan_rows, plan_sample
from bge_export.sweep.states import Expected, Sweep

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def token_facts(checkpoint: Checkpoint, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> TokenFacts:
    """Return what the sweep of a checkpoint depends on."""
    around = tuple(tokenizer("")["input_ids"])
    first = {tokenizer.bos_token_id, tokenizer.cls_token_id}
    types = getattr(model.config, "type_vocab_size", 0) or 0

    return TokenFacts(
        rows=len(_table(model)),
        token_types=int(types) if checkpoint.token_types else 0,
        prefix=tuple(one for one in around if one in first),
        suffix=tuple(one for one in around if one not in first),
        pad=tokenizer.pad_token_id or 0,
        max_tokens=checkpoint.spec.inputs.max_tokens,
    )


Arithmetic = Callable[["torch.Tensor", "torch.Tensor"], tuple[NDArray[np.float32], NDArray[np.float32]]]
"""Model output [S, …] and mask [S] of a sequence -> what heads give for each place [S, W], and for the text [P]."""


def sweep_states(
    checkpoint: Checkpoint,
    model: "PreTrainedModel",
    facts: TokenFacts,
    *,
    every_id: bool,
    arithmetic: Arithmetic | None = None,
) -> Sweep:
    """Return the checkpoint's states of the sample, and of every token id if asked; progress counts batches.

    Args:
        checkpoint: the checkpoint.
        model: its model.
        facts: what the sweep depends on.
        every_id: whether to sweep every token id.
        arithmetic: what heads make of the model's output, which then stands for the states.
    """
    following = Following(checkpoint) if checkpoint.spec.only_dense else None

    def run(batch: SweepBatch) -> Expected | None:
        found = _expected(checkpoint, model, arithmetic or following, batch)
        advance()
        return found

    return Sweep(
        facts,
        tuple(run(batch) for batch in plan_sample(facts)),
        tuple(run(batch) for batch in plan_rows(facts)) if every_id else (),
        partial(token_table, checkpoint),
        cache(partial(_positions, checkpoint, facts, arithmetic or following)),
    )


def _positions(
    checkpoint: Checkpoint, facts: TokenFacts, answers: "Arithmetic | Following | None"
) -> tuple[Expected | None, ...]:
    """Return what the checkpoint gives where positions are shown; its weights are loaded for it.

    Most files give the states of tokens and need none of it.
    """
    model = load_model(checkpoint)
    return tuple(_expected(checkpoint, model, answers, batch) for batch in plan_positions(facts))


def batches(facts: TokenFacts, *, every_id: bool) -> int:
    """Return the progress of `sweep_states`."""
    return len(plan_sample(facts)) + (len(plan_rows(facts)) if every_id else 0)


def token_table(checkpoint: Checkpoint) -> NDArray[np.float32]:
    """Return the checkpoint's token table, [rows, D]; its weights are loaded for it."""
    return _table(load_model(checkpoint)).copy()


def _table(model: "PreTrainedModel") -> NDArray[np.float32]:
    weight: torch.Tensor = model.get_input_embeddings().weight  # type: ignore[assignment]  # a module's attribute
    return weight.detach().numpy()


def _expected(
    checkpoint: Checkpoint, model: "PreTrainedModel", answers: Arithmetic | Following | None, batch: SweepBatch
) -> Expected | None:
    """Return what the checkpoint gives for a batch; None for a mask that it does not define.

    Of a reranker the answers are its logits; of other models what heads make of the output, or what follows pooling.

    Raises:
        CheckpointError: the checkpoint fails on ids that are padded on the right, or gives values that are not finite.
    """
    try:
        rows = _states(checkpoint, model, batch)
    except Exception as error:  # every architecture raises kinds of its own
        if batch.kind in UNSURE:
            return None
        raise CheckpointError(
            f"{checkpoint.source} cannot run token ids: {first_line(error)}. Fetch it again."
        ) from error

    if answers is None:
        return _defined(checkpoint, batch, _logits(rows, batch))
    if not isinstance(answers, Following):
        return _defined(checkpoint, batch, _answered(answers, rows, batch))

    pooling = dense_head(checkpoint.spec).pooling
    judged = [row.numpy()[places[: len(row)]] for (row, _), places in zip(rows, batch.judged, strict=True)]
    vectors = [answers.undivided(_pooled(row, mask, pooling)).numpy() for row, mask in rows]

    finite = all(bool(row.isfinite().all()) for row, _ in rows)
    return _defined(checkpoint, batch, Expected(np.concatenate(judged), np.stack(vectors), finite))


def _logits(rows: "list[tuple[torch.Tensor, torch.Tensor]]", batch: SweepBatch) -> Expected:
    """Return the logits [B, 1] as the vectors of a batch, without states: [T, 0]."""
    logits = np.stack([row.numpy() for row, _ in rows])
    return Expected(
        np.zeros((int(batch.judged.sum()), 0), dtype=np.float32), logits, finite=bool(np.isfinite(logits).all())
    )


def _answered(arithmetic: Arithmetic, rows: "list[tuple[torch.Tensor, torch.Tensor]]", batch: SweepBatch) -> Expected:
    """Return what heads give for the judged tokens, [T, W], and for each sequence, [B, P]."""
    found = [arithmetic(row, mask) for row, mask in rows]
    judged = [tokens[places[: len(tokens)]] for (tokens, _), places in zip(found, batch.judged, strict=True)]
    finite = all(bool(np.isfinite(tokens).all()) for tokens, _ in found)
    return Expected(np.concatenate(judged), np.stack([whole for _, whole in found]), finite)


def _defined(checkpoint: Checkpoint, batch: SweepBatch, expected: Expected) -> Expected | None:
    """Return what is expected of a batch; None for a mask whose values the checkpoint does not define.

    Raises:
        CheckpointError: values are not finite where only the ids are random.
    """
    if np.isfinite(expected.states).all() and np.isfinite(expected.pooled).all():
        return expected
    if batch.kind in UNSURE:
        return None
    raise CheckpointError(f"{checkpoint.source}: its states of some token ids are not finite. It cannot be exported.")


def _states(
    checkpoint: Checkpoint, model: "PreTrainedModel", batch: SweepBatch
) -> "list[tuple[torch.Tensor, torch.Tensor]]":
    """Return the states [S, D] of each sequence with its mask [S]; S is without padding unless the mask is tested.

    Of a reranker, its logit [1] stands for the states.
    """
    import torch

    names = ["input_ids", *(["token_type_ids"] if checkpoint.token_types else [])]
    if batch.kind in UNSURE:
        names.append("attention_mask")
    feed = {name: torch.from_numpy(array) for name, array in batch.tokens.feed(names).items()}

    with torch.inference_mode():
        if batch.kind in UNSURE:
            return list(zip(_answers(checkpoint, model, feed), feed["attention_mask"].bool(), strict=True))

        lengths = batch.tokens.attention_mask.sum(axis=1).tolist()
        alone = [{name: array[n : n + 1, :length] for name, array in feed.items()} for n, length in enumerate(lengths)]
        states = [_answers(checkpoint, model, one)[0] for one in alone]
        return [(row, torch.ones(len(row), dtype=torch.bool)) for row in states]


def _answers(checkpoint: Checkpoint, model: "PreTrainedModel", feed: "dict[str, torch.Tensor]") -> "torch.Tensor":
    """Return states [B, S, D], the logits [B, 1] of a reranker, or those of a masked language model [B, S, V]."""
    given = model(**feed)
    answers: torch.Tensor = given.logits if checkpoint.spec.is_reranker else given[0]
    return answers


def _pooled(states: "torch.Tensor", mask: "torch.Tensor", pooling: Pooling) -> "torch.Tensor":
    """Return the pooled vector [D] of states [S, D]: of the first place, seen or not, else of tokens that are seen."""
    return states[0] if pooling == "cls" else pooled(states[mask], pooling)
