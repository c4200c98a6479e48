"""Folded biases change no state, and are gone from the graph."""

import copy
from pathlib import Path

import onnx
import pytest
import torch
from architectures import KINDS, LAYERS, Kind, build

from bge_export.checkpoint.model import load_model
from bge_export.checkpoint.opening import open_checkpoint
from bge_export.encoder.reading import read_encoder
from bge_export.graph import trace as onnx_trace
from bge_export.graph import tracing
from bge_export.graph.bias_folding import fold_biases


@pytest.mark.parametrize("kind", KINDS)
def test_no_state_changes_and_every_layer_is_folded(kind: Kind, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(str(build(kind, tmp_path / kind, "cls")))
    plain = load_model(checkpoint).double().eval()
    for name, parameter in plain.named_parameters():
        if name.endswith("bias"):  # drawn, so that a bias that is lost is seen
            torch.nn.init.normal_(parameter, std=0.3)
    folded = copy.deepcopy(plain)
    assert fold_biases(folded) == LAYERS
    assert fold_biases(folded) == 0
    ids = torch.randint(10, 60, (3, 12), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, 5:] = 0
    with torch.no_grad():
        some, others = (each(input_ids=ids, attention_mask=mask).last_hidden_state for each in (plain, folded))
    assert ((some - others).abs() * mask[..., None]).max() < 1e-12


@pytest.mark.parametrize("kind", KINDS)
def test_the_graph_has_two_sums_a_layer_less_and_can_be_read(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = open_checkpoint(str(build(kind, tmp_path / kind, "cls")))

    def sums(model: onnx.ModelProto) -> int:
        return sum(node.op_type == "Add" for node in model.graph.node)

    graph = onnx_trace.trace(checkpoint, tmp_path, sentence_embedding=False)
    layers = read_encoder(graph).layers
    assert all(layer.key.bias is None and layer.value.bias is None for layer in layers)
    monkeypatch.setattr(tracing, "fold_biases", lambda _: 0)
    before = onnx_trace.trace(checkpoint, tmp_path, sentence_embedding=False)
    assert sums(before) - sums(graph) == 2 * LAYERS
