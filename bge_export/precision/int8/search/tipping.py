"""Finds the quantization points that tip a text over: their rounding alone moves its embedding far.

A text near a point where the model tips over is often moved by a single rounding. In a fine-tune of bge-small-en, a
padding token inside a short word is moved by the weights that read the neurons of the first layer. The loss shows in
float32 if only that input and its weights are rounded; a residual of the input, for one or two products in fifty,
removes it.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from bge_export.calibration.objective import Objective, exact_embeddings
from bge_export.calibration.observing import batches
from bge_export.contracts import TokenBatch
from bge_export.encoder.encoder import POINTS
from bge_export.encoder.forward import run_layer
from bge_export.precision.int8.round.build import Builder
from bge_export.precision.int8.round.quantized import InputQuantization
from bge_export.precision.int8.round.variant import Point, Variant

SHARE = 0.25
"""A point tips a text over if its rounding alone costs more than this share of the error allowed for a text."""

MOST_POINTS = 4
"""Maximum number of points that get a residual at once: those that cost most."""


def tipping_points(
    builder: Builder,
    variant: Variant,
    objective: Objective,
    rows: Sequence[Sequence[int]],
    pad: Callable[[Sequence[Sequence[int]]], TokenBatch],
    allowed: float,
) -> frozenset[Point]:
    """Return the points without a residual that tip texts over.

    Args:
        builder: builds the variants of the encoder.
        variant: variant that says how inputs are rounded.
        objective: what rounding must keep.
        rows: token ids of the texts.
        pad: makes a batch of rows.
        allowed: 1 - cosine allowed for a text.
    """
    layers, order = builder.encoder.layers, builder.encoder.hidden_order
    losses: dict[Point, float] = {}
    for batch in batches(builder.encoder, rows, pad):
        # The float32 input of every layer, so that each point below starts from its own layer.
        state = batch.state
        states = [state]
        with torch.no_grad():
            for layer in layers:
                state = run_layer(layer, state, batch.bias).state
                states.append(state)
        expected = exact_embeddings(objective, state, batch.mask, order)

        for layer_index, name in [(layer_index, name) for layer_index in range(len(layers)) for name in POINTS]:
            if (layer_index, name) in variant.precise:
                continue

            layer = builder.layer_rounded_at(layer_index, name, variant)
            rounding = {name: partial(_rounded, builder.input_quantization(layer_index, name, variant))}
            with torch.no_grad():
                state = run_layer(layer, states[layer_index], batch.bias, rounding).state
                for later in layers[layer_index + 1 :]:
                    state = run_layer(later, state, batch.bias).state

            found = exact_embeddings(objective, state, batch.mask, order)
            loss = float((1 - (found * expected).sum(-1)).max())
            loss = math.inf if math.isnan(loss) else loss
            losses[layer_index, name] = max(losses.get((layer_index, name), 0.0), loss)

    far = sorted((point for point in losses if losses[point] > SHARE * allowed), key=lambda point: -losses[point])
    return frozenset(far[:MOST_POINTS])


def _rounded(quantization: InputQuantization, values: Tensor) -> Tensor:
    """Return a float32 input, rounded without a residual and dequantized."""
    scale = torch.ones(1) if quantization.scale is None else torch.from_numpy(quantization.scale)
    return quantization.grid.rounded(values / scale) * scale
