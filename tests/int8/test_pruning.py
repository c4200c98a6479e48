"""Neurons left out: those that the embedding does without, and the others take over what can be told from them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from bge_export.calibration.observing import Importance, Observation, Tokens
from bge_export.encoder.encoder import Layer, Linear
from bge_export.encoder.forward import activate, as_tensor, linear
from bge_export.precision.int8.plan.pruning import plan_pruning

COUNT, HIDDEN, WIDTH = 600, 8, 96


def a_layer() -> Layer:
    random = np.random.default_rng(0)
    one = Linear(np.eye(HIDDEN, dtype=np.float32), None)
    up = Linear(
        random.normal(size=(HIDDEN, WIDTH)).astype(np.float32), random.normal(size=WIDTH).astype(np.float32)
    )  # fmt: skip
    down = Linear(random.normal(size=(WIDTH, HIDDEN)).astype(np.float32), np.ones(HIDDEN, np.float32))
    norm = None
    return Layer(one, one, one, one, norm, up, down, norm, 1, 1.0, "gelu")  # type: ignore[arg-type]


def with_duplicates(layer: Layer) -> Layer:
    """The last third of the neurons are the first once more: nothing is lost where they go."""
    third = WIDTH // 3
    up, bias = layer.up.weight.copy(), np.array(layer.up.bias)
    up[:, -third:], bias[-third:] = up[:, :third], bias[:third]
    down = layer.down.weight.copy()
    down[-third:] *= 0.05  # so that they count least, each alone
    return Layer(
        layer.query, layer.key, layer.value, layer.output, layer.attention_norm, Linear(up, bias),
        Linear(down, layer.down.bias), layer.feedforward_norm, 1, 1.0, "gelu",
    )  # fmt: skip


def seen_on(layer: Layer, x: torch.Tensor, scale: float) -> tuple[Observation, Tokens]:
    inner = linear(layer.up, x)
    values = activate(layer, inner)
    each = torch.full((COUNT, HIDDEN), scale)
    importance = {
        "down": Importance(each.sum(1), each.mean(0), each),
        "up": Importance(torch.ones(COUNT), torch.ones(WIDTH), torch.ones(COUNT, WIDTH)),
    }
    seen = Observation(
        {"down": values}, inner, importance, {"down": values.amin(0)}, {"down": values.amax(0)},
        query=torch.zeros(COUNT, HIDDEN), peaks=torch.zeros(COUNT, 1),
    )  # fmt: skip
    first = torch.ones(COUNT, dtype=torch.bool)
    return seen, Tokens(torch.arange(COUNT), first, torch.arange(COUNT))


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(COUNT, HIDDEN, generator=torch.Generator().manual_seed(0))


def test_neurons_that_others_stand_for_go_and_nothing_changes(x: torch.Tensor) -> None:
    layer = with_duplicates(a_layer())
    seen, tokens = seen_on(layer, x, 2e-6)
    plan = plan_pruning(layer, seen, tokens)
    assert 0 < len(plan.kept) <= WIDTH - WIDTH // 4
    small = plan.layer(layer)
    before, after = (linear(one.down, activate(one, linear(one.up, x))) for one in (layer, small))
    alone = before - linear(
        Linear(layer.down.weight[plan.kept.numpy()], layer.down.bias), activate(small, linear(small.up, x))
    )
    assert (after - before).square().mean() < 0.05 * alone.square().mean()
    kept = plan.observation(seen)
    assert torch.equal(kept.inputs["down"], activate(small, linear(small.up, x)))
    assert kept.importance["up"].output.shape == kept.high["down"].shape == (len(plan.kept),)


def test_where_every_neuron_matters_all_stay(x: torch.Tensor) -> None:
    layer = a_layer()
    seen, tokens = seen_on(layer, x, 1.0)
    plan = plan_pruning(layer, seen, tokens)
    assert plan.kept.tolist() == list(range(WIDTH))
    np.testing.assert_array_equal(as_tensor(plan.down.weight), as_tensor(layer.down.weight))


def test_neurons_told_from_others_on_their_own_texts_alone_stay(x: torch.Tensor) -> None:
    """On 40 texts any neuron can be told from 95 others, whatever it is; on other texts it cannot."""
    layer = a_layer()
    seen, _ = seen_on(layer, x, 2e-6)
    few = {name: values[:40] for name, values in seen.inputs.items()}
    narrow = {
        name: Importance(one.token[:40], one.output, one.sample[:40]) for name, one in seen.importance.items()
    }  # fmt: skip
    numbers = torch.arange(40)
    tokens = Tokens(numbers, torch.ones(40, dtype=torch.bool), numbers)
    plan = plan_pruning(layer, replace(seen, inputs=few, inner=seen.inner[:40], importance=narrow), tokens)
    assert len(plan.kept) > WIDTH - WIDTH // 8
