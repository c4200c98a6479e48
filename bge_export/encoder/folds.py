"""Exact rewrites of an encoder that fold scales and shifts into weights, biases and norms, free at run time."""

from dataclasses import replace

import numpy as np

from bge_export.encoder.encoder import Encoder, Floats, Layer, Linear, Norm


def fold_attention(layer: Layer) -> Layer:
    """Return the layer without score scale, key bias and value bias.

    The scale moves into the queries. A key bias adds one constant to every score of a query, which the softmax cancels.
    The softmax weights sum to one, so the value bias passes through unchanged and moves into the output layer's bias.
    """
    scale = np.float32(layer.score_scale)
    query = Linear(layer.query.weight * scale, None if layer.query.bias is None else layer.query.bias * scale)

    output = layer.output
    if layer.value.bias is not None:
        output = output.added(layer.value.bias @ output.weight)

    return replace(
        layer,
        query=query,
        key=Linear(layer.key.weight, None),
        value=Linear(layer.value.weight, None),
        output=output,
        score_scale=1.0,
    )


def shift_attention(encoder: Encoder, layer_index: int, shift: Floats) -> Encoder:
    """Return the encoder with a layer that reads x - shift; the output's bias adds the shift back to the residual.

    Args:
        encoder: the encoder.
        layer_index: index of the layer.
        shift: [H] float32, subtracted from the beta of the preceding normalisation.
    """
    layer = encoder.layers[layer_index]
    layer = replace(
        layer,
        query=layer.query.moved(shift),
        key=layer.key.moved(shift),
        value=layer.value.moved(shift),
        output=layer.output.added(shift),
    )
    encoder = with_layer(encoder, layer_index, layer)

    # The normalisation before the first layer is the embeddings'.
    if layer_index == 0:
        return replace(encoder, embedding_norm=_lowered(encoder.embedding_norm, shift))

    before = encoder.layers[layer_index - 1]
    return with_layer(
        encoder, layer_index - 1, replace(before, feedforward_norm=_lowered(before.feedforward_norm, shift))
    )


def shift_feedforward(layer: Layer, shift: Floats) -> Layer:
    """Return the layer whose `up` reads x - shift; the bias of `down` adds the shift back to the residual.

    Args:
        layer: the layer.
        shift: [H] float32, subtracted from the beta of the attention's normalisation.
    """
    return replace(
        layer,
        attention_norm=_lowered(layer.attention_norm, shift),
        up=layer.up.moved(shift),
        down=layer.down.added(shift),
    )


def scale_values(layer: Layer, scale: Floats) -> Layer:
    """Return the layer whose `output` reads its input divided by `scale` [H]: exact, folded into the value weights."""
    value = Linear(layer.value.weight / scale, None if layer.value.bias is None else layer.value.bias / scale)
    return replace(layer, value=value, output=replace(layer.output, weight=layer.output.weight * scale[:, None]))


def with_layer(encoder: Encoder, layer_index: int, layer: Layer) -> Encoder:
    """Return the encoder with one layer replaced."""
    return replace(encoder, layers=(*encoder.layers[:layer_index], layer, *encoder.layers[layer_index + 1 :]))


def _lowered(norm: Norm, shift: Floats) -> Norm:
    return replace(norm, beta=norm.beta - shift)
