"""A short training with in-batch negatives, as people fine-tune embedding models; the same weights each time.

One thread: the order in which several add up is not always the same.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from pairs import Pair, batches
from recipes import FineTune
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

BATCH, LONGEST = 32, 64
"""Pairs in a batch, and tokens of a text at most."""

TOGETHER = 8
"""Texts that run through the model at once."""

SEED = 20
WEIGHT_DECAY = 0.01
WARM_UP = 0.1
"""Share of the steps in which the learning rate rises."""

LARGEST_GRADIENT = 1.0


def trained(
    recipe: FineTune, base: Path, pairs: Sequence[Pair], report: Callable[[int, float], None]
) -> tuple[PreTrainedModel, list[float]]:
    """Return a model trained by a recipe, and the loss of each step.

    Args:
        recipe: how it is trained.
        base: folder of the checkpoint that it starts from.
        pairs: what it is trained on.
        report: is told each step's number, from 1, and its loss.
    """
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(SEED)

    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModel.from_pretrained(base, add_pooling_layer=False, dtype=torch.float32)
    if recipe.layers is not None:
        keep_layers(model, recipe.layers)
    model.train()

    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, recipe.steps))
    losses = []

    for step, batch in enumerate(batches(pairs, BATCH, recipe.steps, SEED), 1):
        texts = [*(pair.first for pair in batch), *(pair.second for pair in batch)]
        first, second = embed(model, tokenizer, texts, recipe).chunk(2)
        loss = cross_entropy(first @ second.T / recipe.temperature, torch.arange(len(batch)))

        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), LARGEST_GRADIENT)
        optimizer.step()
        schedule.step()

        losses.append(loss.item())
        report(step, loss.item())

    return model.eval(), losses


def embed(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], recipe: FineTune) -> Tensor:
    """Return embeddings [B, D]. Texts of like length run together, since padding costs as much as text."""
    rows = [tokenizer(text, truncation=True, max_length=LONGEST)["input_ids"] for text in texts]
    order = sorted(range(len(rows)), key=lambda number: len(rows[number]))

    found = []
    for start in range(0, len(order), TOGETHER):
        together = {"input_ids": [rows[number] for number in order[start : start + TOGETHER]]}
        found.append(_pooled(model, tokenizer.pad(together, return_tensors="pt"), recipe))

    back = torch.tensor(order).argsort()
    return torch.cat(found)[back]


def _pooled(model: PreTrainedModel, tokens: Mapping[str, Tensor], recipe: FineTune) -> Tensor:
    """Return embeddings [B, D] of one padded batch."""
    states = model(**tokens).last_hidden_state

    if recipe.pooling == "cls":
        pooled = states[:, 0]
    else:
        mask = tokens["attention_mask"].unsqueeze(-1).to(states.dtype)
        pooled = (states * mask).sum(1) / mask.sum(1)

    return normalize(pooled, dim=-1) if recipe.normalize else pooled


def keep_layers(model: PreTrainedModel, layers: Sequence[int]) -> None:
    """Drop all layers of an encoder but these."""
    model.encoder.layer = torch.nn.ModuleList(model.encoder.layer[number] for number in layers)
    model.config.num_hidden_layers = len(layers)


def _rate(step: int, steps: int) -> float:
    """Return the learning rate of a step, from 0, as a part of its peak."""
    rising = max(1, round(steps * WARM_UP))
    if step < rising:
        return (step + 1) / rising

    return (steps - step) / (steps - rising + 1)
