"""Plans to a quantized encoder: folds and shifts once, then rounds each layer as fast or as exact as asked for."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from bge_export.int8.encoder import SITES, Encoder, Layer
from bge_export.int8.folds import fold_attention, scale_values, shift_attention, shift_feedforward, with_layer
from bge_export.int8.forward import as_tensor
from bge_export.int8.pairing import Reader, order_channels
from bge_export.int8.plan import LayerPlan
from bge_export.int8.quantized import QuantizedEncoder, QuantizedLayer, QuantizedLinear, Site
from bge_export.int8.reorder import Order, reorder_heads, reorder_hidden, reorder_inner
from bge_export.int8.rounding import Rounded, round_weight
from bge_export.int8.sites import InputPlan
from bge_export.int8.splitting import SplitPlan, split

Place = tuple[int, str]
"""A layer and one of its sites."""


@dataclass(frozen=True)
class Form:
    """How exact each site is.

    Attributes:
        precise: sites whose inputs are rounded in two parts.
        finer: sites whose weights are, too.
    """

    precise: frozenset[Place] = frozenset()
    finer: frozenset[Place] = frozenset()


class Builder:
    """Builds the forms of one encoder; what two forms share is rounded once."""

    def __init__(self, encoder: Encoder, plans: list[LayerPlan]) -> None:
        """Shift, fold and order an encoder (in float32, as it was read) as its plans say."""
        for place, plan in enumerate(plans):
            encoder = shift_attention(encoder, place, plan.qkv.shift.numpy())
            layer = shift_feedforward(encoder.layers[place], plan.up.shift.numpy())
            encoder = with_layer(encoder, place, fold_attention(layer))
        self.encoder, self.plans = _ordered(encoder, plans)
        self._rounded: dict[tuple[object, ...], dict[str, QuantizedLinear]] = {}
        self._orders: dict[tuple[int, bool], Order] = {}

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
        finer = {site: (place, site) in form.finer for site in SITES}
        layer = self._float_layer(place, precise)
        # A site's weights depend on its own inputs; those before a scaled or split input on that one too.
        after = {"qkv": precise["output"], "output": None, "up": precise["down"], "down": None}
        linear: dict[str, QuantizedLinear] = {}
        for site in SITES:
            key = (place, site, precise[site], finer[site], after[site])
            if key not in self._rounded:
                self._rounded[key] = self._round(layer, place, site, precise, finer=finer[site])
            linear |= self._rounded[key]

        def grid(site: str) -> Site:
            own = _plan(plan, site, precise=precise[site])
            scale = own.scale.numpy() if isinstance(own, InputPlan) and site != "output" else None
            return Site(scale, own.grid, 2 if precise[site] else 1)

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
        return scale_values(layer, _input(plan, "output", precise=precise["output"]).scale.numpy())

    def _order(self, layer: Layer, place: int, *, precise: bool) -> Order:
        """Return the order of a layer's neurons that costs the pair rule least."""
        if (place, precise) not in self._orders:
            plan = self.plans[place]
            gram = _gram(plan, "down", precise=precise)
            reader = Reader(as_tensor(layer.down.weight), gram.diagonal(), plan.importance["down"])
            self._orders[place, precise] = order_channels([reader]).numpy()
        return self._orders[place, precise]

    def _round(
        self, layer: Layer, place: int, site: str, precise: dict[str, bool], *, finer: bool
    ) -> dict[str, QuantizedLinear]:
        """Return the rounded linear layers that read a site, by name."""
        plan, gram = self.plans[place], _gram(self.plans[place], site, precise=precise[site])
        names = ("query", "key", "value") if site == "qkv" else (site,)
        own = [as_tensor(getattr(layer, name).weight) for name in names]
        weight = torch.cat(own, dim=1)
        widths = [part.shape[1] for part in own]
        if site in ("qkv", "up"):
            weight = weight * _input(plan, site, precise=precise[site]).scale[:, None]
        if site == "down":
            order = self._orders[place, precise["down"]]
            gram = gram[order][:, order]
        copies = site == "up" and not precise["down"]
        order_up = self._orders[place, precise["down"]]
        rounded = _round_up(weight, gram, plan, order_up) if copies else round_weight(weight, gram)
        rest: Rounded | None = None
        if finer:
            missed = weight - as_tensor(rounded.weight)
            rest = _round_up(missed, gram, plan, order_up) if copies else round_weight(missed, gram)
        result, start = {}, 0
        for name, width in zip(names, widths, strict=True):
            part = slice(start, start + width)
            start += width
            bias = getattr(layer, name).bias
            result[name] = QuantizedLinear(_part(rounded, part), bias, None if rest is None else _part(rest, part))
        return result

    def activation_order(self) -> list[Place]:
        """Return all sites, the one whose rounded input costs most first."""
        every = [(place, site) for place in range(len(self.plans)) for site in SITES]
        return sorted(every, key=lambda where: -_plan(self.plans[where[0]], where[1], precise=False).activation_error)

    def weight_order(self) -> list[Place]:
        """Return all sites, the one whose rounded weights cost most for each of their parameters first.

        Inputs are in two parts, as they are where weights become the limit.
        """
        everywhere = dict.fromkeys(SITES, True)
        costs: dict[Place, float] = {}
        for place, plan in enumerate(self.plans):
            layer = self._float_layer(place, everywhere)
            form = Form(frozenset((place, site) for site in SITES))
            self._layer(place, form)
            for site in SITES:
                after = True if site in ("qkv", "up") else None
                rounded = self._rounded[place, site, True, False, after]
                costs[place, site] = _weight_error(layer, plan, site, rounded, self._orders[place, True])
        return sorted(costs, key=lambda where: -costs[where])


def _weight_error(layer: Layer, plan: LayerPlan, site: str, rounded: dict[str, QuantizedLinear], order: Order) -> float:
    """Return the predicted error by a site's weights, in two-part form, over their number."""
    gram = _gram(plan, site, precise=True)
    gram = gram[order][:, order] if site == "down" else gram
    total, start, count = 0.0, 0, 0
    for name, linear in rounded.items():
        target = as_tensor(getattr(layer, name).weight)
        if site in ("qkv", "up"):
            target = target * _input(plan, site, precise=True).scale[:, None]
        missed = as_tensor(linear.weight.weight) - target
        outputs = plan.importance[site][start : start + target.shape[1]]
        outputs = outputs[order] if site == "up" else outputs
        start, count = start + target.shape[1], count + target.numel()
        total += float(((gram @ missed * missed).sum(0) * outputs).sum())
    return total / count


def _plan(plan: LayerPlan, site: str, *, precise: bool) -> InputPlan | SplitPlan:
    if site == "down":
        return plan.precise_down if precise else plan.down
    return _input(plan, site, precise=precise)


def _input(plan: LayerPlan, site: str, *, precise: bool) -> InputPlan:
    found: InputPlan = plan.precise[site] if precise else getattr(plan, site)
    return found


def _gram(plan: LayerPlan, site: str, *, precise: bool) -> Tensor:
    """Return the Hessian of a site's inputs as they are rounded; of `down` before its neurons are ordered."""
    if site == "down":
        return plan.grams["down" if precise else "split"]
    scale = _input(plan, site, precise=precise).scale
    return plan.grams[site] / scale[:, None] / scale


def _round_up(weight: Tensor, gram: Tensor, plan: LayerPlan, order: Order) -> Rounded:
    """Round `up`, whose neurons stand in `order`; copies of a neuron share its integers, stretched by their factor."""
    places = np.argsort(order)
    base = round_weight(weight[:, places[: plan.neurons]], gram)
    copies = plan.down.copies
    neurons = [copy.neuron for copy in copies]
    factors = np.array([copy.factor for copy in copies], np.float32)
    empty = weight.shape[1] - plan.neurons - len(copies)
    zeros = np.zeros((len(weight), empty), np.int8)
    integers = np.concatenate([base.integers, base.integers[:, neurons], zeros], axis=1)
    scale = np.concatenate([base.scale, base.scale[neurons] * factors, np.ones(empty, np.float32)])
    return Rounded(np.ascontiguousarray(integers[:, order]), scale[order])


def _part(rounded: Rounded, columns: slice) -> Rounded:
    return Rounded(np.ascontiguousarray(rounded.integers[:, columns]), rounded.scale[columns])


def _ordered(encoder: Encoder, plans: Iterable[LayerPlan]) -> tuple[Encoder, list[LayerPlan]]:
    """Order the channels in heads, the neurons and the hidden channels so that the pair rule costs least."""
    moved: list[LayerPlan] = []
    readers: list[Reader] = []
    for place, plan in enumerate(plans):
        layer = encoder.layers[place]
        gram = _gram(plan, "output", precise=False)
        weight = as_tensor(layer.output.weight) * plan.output.scale[:, None]
        heads = order_channels([Reader(weight, gram.diagonal(), plan.importance["output"])], layer.heads)
        encoder = with_layer(encoder, place, reorder_heads(layer, heads.numpy()))
        moved.append(_reordered(plan, ("output",), heads))
        for site, names in (("qkv", ("query", "key", "value")), ("up", ("up",))):
            joined = torch.cat([as_tensor(getattr(layer, name).weight) for name in names], dim=1)
            scaled = joined * _input(plan, site, precise=False).scale[:, None]
            readers.append(Reader(scaled, _gram(plan, site, precise=False).diagonal(), plan.importance[site]))
    hidden = order_channels(readers)
    return reorder_hidden(encoder, hidden.numpy()), [_reordered(plan, ("qkv", "up"), hidden) for plan in moved]


def _reordered(plan: LayerPlan, sites: tuple[str, ...], order: Tensor) -> LayerPlan:
    """Return the plan for inputs whose channels stand in another order."""

    def inputs(item: InputPlan) -> InputPlan:
        return replace(item, shift=item.shift[order], scale=item.scale[order])

    qkv, output, up = (
        inputs(item) if site in sites else item
        for site, item in (("qkv", plan.qkv), ("output", plan.output), ("up", plan.up))
    )
    two = {site: inputs(item) if site in sites else item for site, item in plan.precise.items()}
    grams = {site: gram[order][:, order] if site in sites else gram for site, gram in plan.grams.items()}
    return replace(plan, qkv=qkv, output=output, up=up, precise=two, grams=grams)
