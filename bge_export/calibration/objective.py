"""What rounding must keep: the direction of an embedding, or the logit of a reranker; both as unit vectors.

A logit z becomes the point at the angle z / s on the unit circle, where s is the spread of the logits. The cosine of
two such points is cos((z - z') / s): a measure of error that calibration and the search of variants share with
embeddings. 1 - cosine is 0.0015 where a logit is off by 5 % of the spread. The gradient of the point has the length
1 / s everywhere, so that the importance of an activation is that of the logit itself.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bge_export.checkpoint.model import load_model
from bge_export.contracts import Checkpoint
from bge_export.heads.dense import DenseHead, dense_head, pool


@dataclass(frozen=True)
class LogitObjective:
    """A reranker's logit.

    Attributes:
        classifier: the checkpoint's own classifier: states [B, S, D] and mask [B, S] -> logits [B, 1].
        spread: the angle of one radian, in units of the logit.
    """

    classifier: nn.Module
    spread: float = 1.0


Objective = DenseHead | LogitObjective


def objective_of(checkpoint: Checkpoint) -> Objective:
    """Return what rounding must keep of a checkpoint; a reranker's weights are loaded for it.

    Of an embedding it is the direction of the pooled states: layers after pooling are not rounded.
    """
    if not checkpoint.spec.is_reranker:
        return dense_head(checkpoint.spec).pooled
    return LogitObjective(Classifier(load_model(checkpoint)))


def output_of(objective: Objective) -> int:
    """Return which output of the whole graph the objective is computed from: the states, or the logits after them."""
    return 1 if isinstance(objective, LogitObjective) else 0


def unit_embeddings(objective: Objective, states: Tensor, mask: Tensor) -> Tensor:
    """Return unit vectors [B, K] float32, through which gradients flow.

    Args:
        objective: what they are of.
        states: last hidden states, [B, S, D].
        mask: which of them are of tokens, [B, S].
    """
    if isinstance(objective, LogitObjective):
        return _points(objective.classifier(states, mask) / objective.spread)
    embeddings: Tensor = replace(objective, normalize=True).module()(states, mask)
    return embeddings


def exact_embeddings(
    objective: Objective, states: Tensor, mask: Tensor, order: NDArray[np.int64] | None = None
) -> Tensor:
    """Return unit vectors [B, K] float64.

    Args:
        objective: what they are of.
        states: last hidden states, [B, S, D].
        mask: which of them are of tokens, [B, S].
        order: `Encoder.hidden_order` of these states. Only a classifier tells channels apart.
    """
    if isinstance(objective, LogitObjective):
        own = states if order is None else states[..., torch.from_numpy(np.argsort(order))]
        return _points(objective.classifier(own, mask).double() / objective.spread)

    pooled = replace(objective, normalize=False).module()(states, mask)
    return nn.functional.normalize(pooled.double(), dim=-1)


def unit_row(objective: Objective, given: NDArray[np.float32], mask: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the unit vector [K] of one text from the output `output_of` of its graph, states [1, S, D] or a logit."""
    if isinstance(objective, LogitObjective):
        angle = float(given[0, 0]) / objective.spread
        return np.array([np.cos(angle), np.sin(angle)])

    (pooled,) = pool(given.astype(np.float64), mask, objective.pooling)
    unit: NDArray[np.float64] = pooled / np.linalg.norm(pooled)
    return unit


def _points(angles: Tensor) -> Tensor:
    """Return the points [B, 2] on the unit circle at angles [B, 1]."""
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class Classifier(nn.Module):
    """The classifier of a `*ForSequenceClassification`, and BERT's pooler before it: last states -> logits."""

    def __init__(self, model: nn.Module) -> None:
        """Keep the head of a transformers model; its encoder is let go of."""
        super().__init__()
        name: Any = model.base_model_prefix
        self.pooler = getattr(getattr(model, name), "pooler", None)
        self.given = _Given()
        setattr(model, name, self.given)
        self.model = model

    def forward(self, states: Tensor, _mask: Tensor) -> Tensor:
        """Return the logits [B, 1] of states [B, S, D]. Classifiers of encoders read the first state alone."""
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        pooled = None if self.pooler is None else self.pooler(states)
        self.given.output = BaseModelOutputWithPooling(last_hidden_state=states, pooler_output=pooled)

        ids = torch.zeros(states.shape[:2], dtype=torch.int64)
        logits: Tensor = self.model(input_ids=ids).logits
        return logits


class _Given(nn.Module):
    """Stands for the encoder of a model, and returns what it is given."""

    output: Any = None

    def forward(self, *_: Any, **__: Any) -> Any:  # noqa: ANN401 - an output of transformers
        return self.output
