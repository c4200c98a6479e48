"""Plans to a quantized encoder: folds and shifts once, then rounds each layer as fast or as exact as asked for."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from bge_export.int8.encoder import SITES, Encoder, Layer
from bge_export.int8.folds import fold_attention, scale_values, shift_attention, shift_feedforward, with_layer
from bge_export.int8.forward import as_tensor
from bge_export.int8.pairing import Reader, order_channels
from bge_export.int8.plan import LayerPlan
from bge_export.int8.quantized import QuantizedEncoder, QuantizedLayer, QuantizedLinear, Rows, Site
from bge_export.int8.reorder import Order, reorder_heads, reorder_hidden, reorder_inner
from bge_export.int8.rounding import COARSE, FACTORS, Rounded, round_weight
from bge_export.int8.sites import InputPlan
from bge_export.int8.splitting import SplitPlan, split

PRECISE_MARGIN = 1.3
"""Grids of inputs in two parts are so much wider than the range seen: they have levels to spare."""

Place = tuple[int, str]
"""A layer and one of its sites."""


@dataclass(frozen=True)
class Form:
    """How exact each site is.

    Attributes:
        precise: sites whose inputs are rounded in two parts.
        finer: sites whose weights are, too.
        first: sites where the first token's input is rounded in two parts, which is a small product.
        first_finer: sites of `first` where it meets weights in two parts.
        widening: all grids of states are so much wider.
    """

    precise: frozenset[Place] = frozenset()
    finer: frozenset[Place] = frozenset()
    first: frozenset[Place] = frozenset()
    first_finer: frozenset[Place] = frozenset()
    widening: float = 1.0

    def weight_rows(self, where: Place) -> Rows | None:
        """Return which rows of a site's input meet weights in two parts; None for none."""
        if where in self.finer:
            return "all"
        return "first" if where in self.first_finer else None


class Builder:
    """Builds the forms of one encoder; what two forms share is rounded once."""

    def __init__(self, encoder: Encoder, plans: list[LayerPlan]) -> None:
        """Shift, fold and order an encoder (in float32, as it was read) as its plans say."""
        for place, plan in enumerate(plans):
            encoder = shift_attention(encoder, place, plan.qkv.shift.numpy())
            layer = shift_feedforward(plan.pruning.layer(encoder.layers[place]), plan.up.shift.numpy())
            encoder = with_layer(encoder, place, fold_attention(layer))
        self.encoder, self.plans = _ordered(encoder, plans)
        self._rounded: dict[tuple[object, ...], dict[str, QuantizedLinear]] = {}
        self._orders: dict[tuple[int, bool], Order] = {}

    @property
    def weights(self) -> int:
        """Return how many weights the layers have."""
        return sum(self.weights_of(place, site) for place in range(len(self.plans)) for site in SITES)

    def weights_of(self, place: int, site: str) -> int:
        """Return how many weights read a site."""
        return sum(getattr(self.encoder.layers[place], name).weight.size for name in _names(site))

    def build(self, form: Form, advance: Callable[[int], None] = lambda _: None) -> QuantizedEncoder:
        """Return the encoder in a form; `advance` is called with 1 after each layer."""
        layers = []
        for place in range(len(self.plans)):
            layers.append(self._layer(place, form))
            advance(1)
        own = self.encoder
        return QuantizedEncoder(own.prelude, own.embedding_norm, tuple(layers), own.tail, own.hidden_order)

    def _layer(self, place: int, form: Form) -> QuantizedLayer:
        plan = self.plans[place]
        precise = {site: (place, site) in form.precise for site in SITES}
        finer = {site: form.weight_rows((place, site)) for site in SITES}
        layer = self._float_layer(place, precise)
        # The weights of `up` and `down` depend on whether neurons are split.
        whole = {site: site in ("up", "down") and precise["down"] for site in SITES}
        linear: dict[str, QuantizedLinear] = {}
        for site in SITES:
            key = (place, site, finer[site], whole[site])
            if key not in self._rounded:
                self._rounded[key] = self._round(layer, place, site, precise, finer=finer[site])
            linear |= self._rounded[key]

        def grid(site: str) -> Site:
            first = (place, site) in form.first
            own = _plan(plan, site, precise=precise[site])
            if isinstance(own, InputPlan):
                own = replace(own, margin=form.widening * (PRECISE_MARGIN if precise[site] or first else own.margin))
            scale = own.scale.numpy() if isinstance(own, InputPlan) and site != "output" else None
            return Site(scale, own.grid, 2 if precise[site] or first else 1, "first" if first else "all")

        return QuantizedLayer(
            qkv=grid("qkv"), query=linear["query"], key=linear["key"], value=linear["value"],
            output_site=grid("output"), output=linear["output"], attention_norm=layer.attention_norm,
            up_site=grid("up"), up=linear["up"], down_site=grid("down"), down=linear["down"],
            feedforward_norm=layer.feedforward_norm, heads=layer.heads, activation=layer.activation,
        )  # fmt: skip

    def _float_layer(self, place: int, precise: dict[str, bool]) -> Layer:
        """Return the layer scaled, and split with its neurons in order, still in float32."""
        layer, plan = self.encoder.layers[place], self.plans[place]
        if not precise["down"]:
            layer = split(layer, plan.down)
        layer = reorder_inner(layer, self._order(layer, place, precise=precise["down"]))
        return scale_values(layer, plan.output.scale.numpy())

    def _order(self, layer: Layer, place: int, *, precise: bool) -> Order:
        """Return the order of a layer's neurons that costs the pair rule least."""
        if (place, precise) not in self._orders:
            plan = self.plans[place]
            gram = _gram(plan, "down", precise=precise)
            reader = Reader(as_tensor(layer.down.weight), gram.diagonal(), plan.importance["down"])
            self._orders[place, precise] = order_channels([reader])[0].numpy()
        return self._orders[place, precise]

    def _round(
        self, layer: Layer, place: int, site: str, precise: dict[str, bool], *, finer: Rows | None
    ) -> dict[str, QuantizedLinear]:
        """Return the rounded linear layers that read a site, by name."""
        plan, gram = self.plans[place], _gram(self.plans[place], site, precise=precise[site])
        names = _names(site)
        own = [as_tensor(getattr(layer, name).weight) for name in names]
        weight = torch.cat(own, dim=1)
        widths = [part.shape[1] for part in own]
        if site in ("qkv", "up"):
            weight = weight * _input(plan, site).scale[:, None]
        if site == "down":
            order = self._orders[place, precise["down"]]
            gram = gram[order][:, order]
        order_up = self._orders[place, precise["down"]] if site == "up" and not precise["down"] else None

        def rounded_part(weight: Tensor, factors: Sequence[float]) -> Rounded:
            if order_up is None:
                return round_weight(weight, gram, factors)
            return _round_up(weight, gram, plan, order_up, factors)

        rounded = rounded_part(weight, COARSE if finer == "all" else FACTORS)
        rest = None if finer is None else rounded_part(weight - as_tensor(rounded.weight), FACTORS)
        result, start = {}, 0
        for name, width in zip(names, widths, strict=True):
            part = slice(start, start + width)
            start += width
            bias = getattr(layer, name).bias
            result[name] = QuantizedLinear(_part(rounded, part), bias, None if rest is None else _part(rest, part))
        return result

    def weight_error(self, place: int, site: str, *, precise: bool) -> tuple[float, int]:
        """Return the predicted error by the rounded weights of a site in two-part or one-part form, and their number.

        Args:
            place: the layer.
            site: which of its inputs.
            precise: whether all inputs of the layer are in two parts.
        """
        plan = self.plans[place]
        every = dict.fromkeys(SITES, precise)
        layer = self._float_layer(place, every)
        self._layer(place, Form(frozenset((place, name) for name in SITES if precise)))
        rounded = self._rounded[place, site, None, precise and site in ("up", "down")]
        return _weight_error(layer, plan, site, rounded, self._orders[place, precise], precise=precise)


def _weight_error(
    layer: Layer, plan: LayerPlan, site: str, rounded: dict[str, QuantizedLinear], order: Order, *, precise: bool
) -> tuple[float, int]:
    gram = _gram(plan, site, precise=precise)
    gram = gram[order][:, order] if site == "down" else gram
    importance = plan.importance[site]
    if site == "up":
        # A copy's outputs count as much as its neuron's; padding counts nothing.
        copies = [] if precise else [copy.neuron for copy in plan.down.copies]
        empty = len(order) - plan.neurons - len(copies)
        importance = torch.cat([importance, importance[copies], torch.zeros(empty)])[order]
    total, start, count = 0.0, 0, 0
    for name, linear in rounded.items():
        target = as_tensor(getattr(layer, name).weight)
        if site in ("qkv", "up"):
            target = target * _input(plan, site).scale[:, None]
        missed = as_tensor(linear.weight.weight) - target
        outputs = importance[start : start + target.shape[1]]
        start, count = start + target.shape[1], count + target.numel()
        total += float(((gram @ missed * missed).sum(0) * outputs).sum())
    return total, count


def _names(site: str) -> tuple[str, ...]:
    """Return the linear layers that read a site."""
    return ("query", "key", "value") if site == "qkv" else (site,)


def _plan(plan: LayerPlan, site: str, *, precise: bool) -> InputPlan | SplitPlan:
    if site == "down":
        return plan.precise_down if precise else plan.down
    return _input(plan, site)


def _input(plan: LayerPlan, site: str) -> InputPlan:
    found: InputPlan = getattr(plan, site)
    return found


def _gram(plan: LayerPlan, site: str, *, precise: bool) -> Tensor:
    """Return the Hessian of a site's inputs as they are rounded; of `down` before its neurons are ordered."""
    if site == "down":
        return plan.grams["down" if precise else "split"]
    scale = _input(plan, site).scale
    return plan.grams[site] / scale[:, None] / scale


def _round_up(weight: Tensor, gram: Tensor, plan: LayerPlan, order: Order, factors: Sequence[float]) -> Rounded:
    """Round `up`, whose neurons stand in `order`; copies of a neuron share its integers, stretched by their factor."""
    places = np.argsort(order)
    base = round_weight(weight[:, places[: plan.neurons]], gram, factors)
    copies = plan.down.copies
    neurons = [copy.neuron for copy in copies]
    stretched = np.array([copy.factor for copy in copies], np.float32)
    empty = weight.shape[1] - plan.neurons - len(copies)
    zeros = np.zeros((len(weight), empty), np.int8)
    integers = np.concatenate([base.integers, base.integers[:, neurons], zeros], axis=1)
    scale = np.concatenate([base.scale, base.scale[neurons] * stretched, np.ones(empty, np.float32)])
    return Rounded(np.ascontiguousarray(integers[:, order]), scale[order])


def _part(rounded: Rounded, columns: slice) -> Rounded:
    return Rounded(np.ascontiguousarray(rounded.integers[:, columns]), rounded.scale[columns])


def _ordered(encoder: Encoder, plans: Iterable[LayerPlan]) -> tuple[Encoder, list[LayerPlan]]:
    """Order the channels in heads and the hidden channels, and turn some around, so that the pair rule costs least."""
    moved: list[LayerPlan] = []
    readers: list[Reader] = []
    for place, plan in enumerate(plans):
        layer = encoder.layers[place]
        own = _reader(as_tensor(layer.output.weight), plan, "output")
        order, (signs,) = order_channels([own], layer.heads)
        encoder = with_layer(encoder, place, reorder_heads(layer, order.numpy()))
        moved.append(_reordered(plan, {"output": signs}, order))
        joined = torch.cat([as_tensor(part.weight) for part in (layer.query, layer.key, layer.value)], dim=1)
        readers += [_reader(joined, plan, "qkv"), _reader(as_tensor(layer.up.weight), plan, "up")]
    order, turned = order_channels(readers)
    pairs = zip(turned[0::2], turned[1::2], strict=True)
    plans = [
        _reordered(plan, {"qkv": qkv, "up": up}, order) for plan, (qkv, up) in zip(moved, pairs, strict=True)
    ]  # fmt: skip
    return reorder_hidden(encoder, order.numpy()), plans


def _reader(weight: Tensor, plan: LayerPlan, site: str) -> Reader:
    scaled = weight * _input(plan, site).scale[:, None]
    return Reader(scaled, _gram(plan, site, precise=False).diagonal(), plan.importance[site], turns=True)


def _reordered(plan: LayerPlan, signs: dict[str, Tensor], order: Tensor) -> LayerPlan:
    """Return the plan for inputs whose channels stand in another order and, where their sign is -1, are turned."""

    def moved(site: str) -> InputPlan:
        own = _input(plan, site)
        if site not in signs:
            return own
        scale = own.scale[order] * signs[site]
        return replace(own, shift=own.shift[order], scale=scale, low=own.low[order], high=own.high[order])

    grams = {site: gram[order][:, order] if site in signs else gram for site, gram in plan.grams.items()}
    return replace(plan, qkv=moved("qkv"), output=moved("output"), up=moved("up"), grams=grams)
