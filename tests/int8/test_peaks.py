"""Scores brought within reach of an exponential: what is fitted, and that attention without a softmax is attention."""

import dataclasses

import numpy as np
import onnx
import pytest
import torch
from int8_samples import Sample, cosines, run_graph

from bge_export.precision.int8.plan.layers import LayerPlan
from bge_export.precision.int8.plan.peaks import CAP, CAPPED_REACH, REACH, Bound, plan_peaks
from bge_export.precision.int8.round.build import Builder
from bge_export.precision.int8.round.quantized import QuantizedEncoder
from bge_export.precision.int8.round.variant import Variant
from bge_export.precision.int8.write.arrange import arrange

HEADS, WIDTH = 2, 8


def by_head(rows: torch.Tensor) -> torch.Tensor:
    return rows.reshape(len(rows), HEADS, WIDTH).transpose(0, 1)


def test_an_offset_of_the_keys_brings_the_peaks_near_zero() -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(200, HEADS * WIDTH, generator=generator)
    key = torch.randn(50, HEADS * WIDTH, generator=generator) * 0.1 + 40
    peaks = (by_head(query) @ by_head(key).transpose(1, 2)).amax(-1).T
    assert peaks.max() > 100
    lacking = torch.arange(HEADS * WIDTH, dtype=torch.float32)
    plan = plan_peaks(query, peaks, lacking, by_key=True)
    assert plan.bound == "none"
    folded = key - lacking
    moved = by_head(query) @ by_head(folded - torch.from_numpy(plan.offset)).transpose(1, 2)
    assert moved.amax(-1).abs().max() < 3
    expected = torch.softmax(by_head(query) @ by_head(key).transpose(1, 2), -1)
    torch.testing.assert_close(moved.exp() / moved.exp().sum(-1, keepdim=True), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("farthest", "bound"),
    [
        (REACH - 1, "none"), (-REACH + 1, "none"), (REACH + 1, "cap"), (-REACH - 1, "cap"),
        (CAPPED_REACH + 1, "maximum"), (-CAPPED_REACH - 1, "maximum"),
    ],
)  # fmt: skip
def test_the_farther_peaks_reach_the_more_bounds_them(farthest: float, bound: Bound) -> None:
    query = torch.zeros(3, HEADS * WIDTH)  # nothing to fit: the peaks stay what they are
    peaks = torch.tensor([[0.0, 0.0], [0.0, farthest], [1.0, 0.0]])
    assert plan_peaks(query, peaks, torch.zeros(HEADS * WIDTH), by_key=True).bound == bound
    assert plan_peaks(query, peaks, torch.zeros(HEADS * WIDTH), by_key=False).bound == "maximum"


def test_at_the_cap_the_longest_text_has_finite_sums() -> None:
    weights = np.exp(np.full(8192, CAP, np.float32)) * np.float32(1000)
    assert np.isfinite(weights.sum(dtype=np.float32))


def count(model: onnx.ModelProto, op_type: str) -> int:
    return sum(node.op_type == op_type for node in model.graph.node)


def bounded(encoder: QuantizedEncoder, bound: Bound) -> QuantizedEncoder:
    layers = tuple(
        dataclasses.replace(layer, peaks=dataclasses.replace(layer.peaks, bound=bound)) for layer in encoder.layers
    )
    return dataclasses.replace(encoder, layers=layers)


def relative(sample: Sample) -> bool:
    """Tell whether the scores get more than a mask: MPNet adds what depends on the distance of two tokens."""
    return sample.batch.bias.shape[1:3] != (1, 1)


def possible(sample: Sample) -> tuple[Bound, ...]:
    """Return the bounds that the sample's scores can have: what is more than a mask is no weight of the values."""
    return ("maximum",) if relative(sample) else ("none", "cap", "maximum")


def test_only_where_scores_get_a_mask_alone_there_is_no_maximum(
    sample: Sample, builder: Builder, plans: list[LayerPlan]
) -> None:
    assert relative(sample) == (sample.checkpoint.root.name == "mpnet")
    assert {plan.peaks.bound for plan in plans} == {"maximum" if relative(sample) else "none"}
    model = arrange(builder.build(Variant()), "sequence-major")
    assert count(model, "ReduceMax") == (len(plans) if relative(sample) else 0)
    assert (count(model, "Softmax"), count(model, "Exp")) == (0, len(plans) + (not relative(sample)))


@pytest.mark.parametrize("cls_only", [False, True])
def test_whatever_bounds_the_scores_the_vectors_are_those_of_a_softmax(
    sample: Sample, builder: Builder, *, cls_only: bool
) -> None:
    encoder = builder.build(Variant())
    layers = tuple(dataclasses.replace(layer, scores=None) for layer in encoder.layers)
    softmax = run_graph(arrange(dataclasses.replace(encoder, layers=layers), "batch-major"), sample.tokens)[:, 0]
    for bound in possible(sample):
        model = arrange(bounded(encoder, bound), "sequence-major", cls_only=cls_only)
        close = cosines(run_graph(model, sample.tokens)[:, 0], softmax)
        assert (close.mean() > 0.9999, close.min() > 0.9995) == (True, True), bound


def test_scores_beyond_the_cap_give_numbers(sample: Sample, builder: Builder) -> None:
    encoder = builder.build(Variant())
    far = tuple(
        dataclasses.replace(layer, query=layer.query.times(np.full(layer.query.weight.scale.shape, 1e3, np.float32)))
        for layer in encoder.layers
    )
    encoder = dataclasses.replace(encoder, layers=far)
    for bound in possible(sample):
        if bound == "none":
            continue  # these scores are farther than any that were planned so
        states = run_graph(arrange(bounded(encoder, bound), "sequence-major"), sample.tokens)
        assert np.isfinite(states).all()
