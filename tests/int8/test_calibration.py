"""What an error at a point does to the embedding, against the same error made: a bias that is moved a little."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from architectures import KINDS, Kind, build

from bge_export.calibration.observing import Batch, CalibrationSet, Observation, backward, batches, observe
from bge_export.checkpoint.opening import open_checkpoint
from bge_export.encoder.encoder import Encoder, Layer, Linear
from bge_export.encoder.forward import run_layer
from bge_export.encoder.reading import read_encoder
from bge_export.graph.trace import trace
from bge_export.heads.dense import dense_head
from bge_export.texts.tokens import TextTokenizer

TEXTS = ("hello world", "the dog sleeps in the garden", "a question about the weather")
STEP = 1e-2


def moved(layer: Layer, point: str, step: np.ndarray) -> Layer:
    """Return the layer with a point's result moved, for all tokens alike; of queries, keys and values the values."""
    name = "value" if point == "qkv" else point
    part: Linear = getattr(layer, name)
    bias = np.zeros(part.weight.shape[1], np.float32) if part.bias is None else part.bias
    return replace(layer, **{name: replace(part, bias=(bias + step).astype(np.float32))})


def along(encoder: Encoder, batch: Batch, pooling: str, direction: torch.Tensor) -> float:
    """Return e.v, summed over the texts."""
    state = batch.state
    for layer in encoder.layers:
        state = run_layer(layer, state, batch.bias).state
    weights = batch.mask[..., None].to(state.dtype)
    pooled = state[:, 0] if pooling == "cls" else (state * weights).sum(1) / weights.sum(1)
    return float((torch.nn.functional.normalize(pooled.double(), dim=-1) * direction).sum())


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_what_a_moved_bias_does(kind: Kind, pooling: Literal["cls", "mean"], tmp_path: Path) -> None:
    checkpoint = open_checkpoint(str(build(kind, tmp_path / kind, pooling)))
    encoder = read_encoder(trace(checkpoint, tmp_path, sentence_embedding=False))
    tokenizer = TextTokenizer.load(checkpoint.root, checkpoint.spec.inputs.max_tokens)
    (batch,) = batches(encoder, tokenizer.encode(TEXTS), tokenizer.pad)
    size = batch.state.shape[-1]
    direction = torch.randn((len(TEXTS), size), generator=torch.Generator().manual_seed(7))
    random = np.random.default_rng(0)
    seen = []
    for layer_index, step_trace, gradients in backward(
        encoder, dense_head(checkpoint.spec), batch, torch.Generator().manual_seed(7)
    ):
        seen.append(layer_index)
        assert step_trace.inputs["qkv"].shape == batch.state.shape
        for point, gradient in gradients.items():
            width = size if point == "qkv" else gradient.shape[-1]
            step = random.choice([-STEP, STEP], width)
            errors = []
            for sign in (1, -1):
                layers = list(encoder.layers)
                layers[layer_index] = moved(layers[layer_index], point, sign * step)
                errors.append(along(replace(encoder, layers=tuple(layers)), batch, pooling, direction))
            predicted = float((gradient[..., -width:].sum((0, 1)) * torch.from_numpy(step)).sum())
            assert predicted == pytest.approx((errors[0] - errors[1]) / 2, rel=0.05, abs=2e-5), (layer_index, point)
    assert seen == list(reversed(range(len(encoder.layers))))


def test_drawn_rows_say_only_how_far_scores_reach(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(str(build("bert", tmp_path / "bert", "cls")))
    encoder = read_encoder(trace(checkpoint, tmp_path, sentence_embedding=False))
    tokenizer = TextTokenizer.load(checkpoint.root, checkpoint.spec.inputs.max_tokens)
    texts, ranges, strange = (batches(encoder, tokenizer.encode([text]), tokenizer.pad) for text in TEXTS)
    layer = encoder.layers[0]

    def seen(*groups: list[Batch]) -> Observation:
        texts = CalibrationSet(*groups)
        return observe(layer, texts, [batch.state for batch in texts.batches], {})

    with_strange, without = seen(texts, ranges, strange), seen(texts, ranges, [])
    added = int(strange[0].mask.sum())
    assert len(with_strange.peaks) == len(with_strange.query) == len(without.peaks) + added
    torch.testing.assert_close(with_strange.peaks[:-added], without.peaks)
    trace_of_strange = run_layer(layer, strange[0].state, strange[0].bias)
    torch.testing.assert_close(with_strange.peaks[-added:], trace_of_strange.peaks[0])
    for name in ("inputs", "low", "high"):
        torch.testing.assert_close(getattr(with_strange, name), getattr(without, name))
