"""Exact rewritings of an encoder: what moves into a weight, a bias or a normalisation costs nothing at run time."""

from dataclasses import replace

import numpy as np

from bge_export.int8.encoder import Encoder, Floats, Layer, Linear, Norm


def fold_attention(layer: Layer) -> Layer:
    """Return the layer without score scale, key bias and value bias.

    The scale moves into the queries. A key bias adds the same number to every score of a query, which the softmax
    cancels. The weights of the softmax sum to one, so the value bias passes through it and the output layer takes it.
    """
    scale = np.float32(layer.score_scale)
    query = Linear(layer.query.weight * scale, None if layer.query.bias is None else layer.query.bias * scale)
    output = layer.output
    if layer.value.bias is not None:
        output = output.added(layer.value.bias @ output.weight)
    return replace(
        layer, query=query, key=Linear(layer.key.weight, None), value=Linear(layer.value.weight, None), output=output,
        score_scale=1.0,
    )  # fmt: skip


def shift_attention(encoder: Encoder, place: int, shift: Floats) -> Encoder:
    """Return the encoder whose layer `place` is given x - shift; the residual takes the shift back.

    Args:
        encoder: the encoder.
        place: the layer.
        shift: [H] float32, taken off the beta of the normalisation before.
    """
    layer = encoder.layers[place]
    layer = replace(
        layer, query=layer.query.moved(shift), key=layer.key.moved(shift), value=layer.value.moved(shift),
        output=layer.output.added(shift),
    )  # fmt: skip
    encoder = with_layer(encoder, place, layer)
    if place == 0:
        return replace(encoder, embedding_norm=_lowered(encoder.embedding_norm, shift))
    before = encoder.layers[place - 1]
    return with_layer(encoder, place - 1, replace(before, feedforward_norm=_lowered(before.feedforward_norm, shift)))


def shift_feedforward(layer: Layer, shift: Floats) -> Layer:
    """Return the layer whose `up` is given x - shift; the residual takes the shift back.

    Args:
        layer: the layer.
        shift: [H] float32, taken off the beta of the attention's normalisation.
    """
    return replace(
        layer, attention_norm=_lowered(layer.attention_norm, shift), up=layer.up.moved(shift),
        down=layer.down.added(shift),
    )  # fmt: skip


def scale_values(layer: Layer, scale: Floats) -> Layer:
    """Return the layer whose `output` is given its input divided by `scale` [H]: exact, in the value's columns."""
    value = Linear(layer.value.weight / scale, None if layer.value.bias is None else layer.value.bias / scale)
    return replace(layer, value=value, output=replace(layer.output, weight=layer.output.weight * scale[:, None]))


def fold_residuals(encoder: Encoder) -> Encoder:
    """Return the encoder without biases of `output` and `down`: for graphs in floating point.

    The residual carries a bias on, so it moves into the beta of the normalisation whose result the residual adds, and
    what else reads that result takes it off again. The value path feeds back into the output bias: b' solves
    (I + Wo' Wv') b' = b, with the weights as matrices that multiply from the left.
    """
    for place in range(len(encoder.layers)):
        layer = fold_attention(encoder.layers[place])
        if layer.down.bias is not None:
            layer = shift_feedforward(layer, -layer.down.bias)
        encoder = with_layer(encoder, place, replace(layer, down=Linear(layer.down.weight, None)))
        if layer.output.bias is not None:
            # shift_attention(-b') leaves output bias b - b' - (b' Wv) Wo, which must vanish.
            feedback = (layer.value.weight.astype(np.float64) @ layer.output.weight).T
            shift = np.linalg.solve(np.eye(len(feedback)) + feedback, layer.output.bias.astype(np.float64))
            encoder = shift_attention(encoder, place, -shift.astype(np.float32))
            layer = fold_attention(encoder.layers[place])
            encoder = with_layer(encoder, place, replace(layer, output=Linear(layer.output.weight, None)))
    return encoder


def with_layer(encoder: Encoder, place: int, layer: Layer) -> Encoder:
    """Return the encoder with another layer at a place."""
    return replace(encoder, layers=(*encoder.layers[:place], layer, *encoder.layers[place + 1 :]))


def _lowered(norm: Norm, shift: Floats) -> Norm:
    return replace(norm, beta=norm.beta - shift)
