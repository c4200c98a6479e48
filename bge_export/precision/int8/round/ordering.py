"""Reorders an encoder's channels, and the plans for them, to minimize the cost of the saturation constraint."""

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from bge_export.encoder.encoder import Encoder
from bge_export.encoder.folds import with_layer
from bge_export.encoder.forward import as_tensor
from bge_export.encoder.reorder import reorder_heads, reorder_hidden
from bge_export.precision.int8.plan.input_scaling import InputPlan
from bge_export.precision.int8.plan.layers import LayerPlan
from bge_export.precision.int8.round.pairing import Reader, order_channels


def ordered(encoder: Encoder, plans: Iterable[LayerPlan]) -> tuple[Encoder, list[LayerPlan]]:
    """Reorder head and hidden channels, and sign-flip some, so that the saturation constraint costs least."""
    moved: list[LayerPlan] = []
    readers: list[Reader] = []
    for layer_index, plan in enumerate(plans):
        layer = encoder.layers[layer_index]

        # Channels of the attention output move only within their head.
        own = _reader(as_tensor(layer.output.weight), plan, "output")
        order, (signs,) = order_channels([own], layer.heads)
        encoder = with_layer(encoder, layer_index, reorder_heads(layer, order.numpy()))
        moved.append(_reordered(plan, {"output": signs}, order))

        joined = torch.cat([as_tensor(part.weight) for part in (layer.query, layer.key, layer.value)], dim=1)
        readers += [_reader(joined, plan, "qkv"), _reader(as_tensor(layer.up.weight), plan, "up")]

    # All layers share the hidden channels, so one order serves all of their readers; signs are free per reader.
    order, signs_of_readers = order_channels(readers)
    pairs = zip(signs_of_readers[0::2], signs_of_readers[1::2], strict=True)
    plans = [_reordered(plan, {"qkv": qkv, "up": up}, order) for plan, (qkv, up) in zip(moved, pairs, strict=True)]
    return reorder_hidden(encoder, order.numpy()), plans


def _reader(weight: Tensor, plan: LayerPlan, point: str) -> Reader:
    scaled = weight * plan.input(point).scale[:, None]
    return Reader(scaled, plan.gram(point).diagonal(), plan.importance[point], may_flip=True)


def _reordered(plan: LayerPlan, signs: dict[str, Tensor], order: Tensor) -> LayerPlan:
    """Return the plan for inputs whose channels are reordered, and sign-flipped if their sign is -1."""

    def moved(point: str) -> InputPlan:
        own = plan.input(point)
        if point not in signs:
            return own
        scale = own.scale[order] * signs[point]
        return replace(own, shift=own.shift[order], scale=scale, low=own.low[order], high=own.high[order])

    grams = {point: gram[order][:, order] if point in signs else gram for point, gram in plan.grams.items()}
    return replace(plan, qkv=moved("qkv"), output=moved("output"), up=moved("up"), grams=grams)
