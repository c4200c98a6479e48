"""The arrangement of float graphs: the same function, no byte more, and the fusions that it was chosen for."""

from collections import Counter
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import onnxruntime
import pytest
from architectures import HIDDEN, LAYERS, Kind
from int8_samples import Sample, cosines, make_sample, run_graph
from onnx import numpy_helper

from bge_export.encoder.arrange import arrange_floats
from bge_export.encoder.reading import read_encoder
from bge_export.graph.products import constant_products
from bge_export.graph.saving import IR_VERSION
from bge_export.precision.graphs.fp16 import convert


@pytest.fixture(scope="module", params=get_args(Kind))
def sample(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return make_sample(request.param, tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def arranged(sample: Sample) -> onnx.ModelProto:
    model = arrange_floats(sample.model)
    model.ir_version = IR_VERSION
    return model


def fused(model: onnx.ModelProto, folder: Path) -> Counter[str]:
    """Return the operators that ONNX Runtime runs on a CPU, by name."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "fused.onnx")
    options.log_severity_level = 3  # hides the note that the file suits this processor alone
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)


# What a version of ONNX Runtime must make of each layer. Where it makes something else, the arrangement is to be
# measured again (docs/measurements/arrangement.md).
LAYER = {
    "Gemm": 4,  # queries, attention's output, up, down: with their biases
    "MatMul": 2,  # keys and values, which have no bias
    "FusedMatMul": 2,  # scores and mixture, each with the transpositions of what it reads
    "Transpose": 1,  # heads put together
    "Reshape": 4,
    "Add": 3,  # the mask, two residuals
    "Softmax": 1,
    "LayerNormalization": 2,
    "Gelu": 1,
    "SkipLayerNormalization": 0,  # four times as long as Add and LayerNormalization
    "BiasGelu": 0,
    "Mul": 0,  # the scale of the scores is part of the queries
    "Erf": 0,
}


def test_onnx_runtime_fuses_each_layer_as_it_was_measured(
    sample: Sample, arranged: onnx.ModelProto, tmp_path: Path
) -> None:
    # The operators before and after the layers are those of the graph of one layer less.
    one = fused(_shorter(sample), tmp_path)
    two = fused(arranged, tmp_path)
    assert {kind: two[kind] - one[kind] for kind in LAYER} == LAYER
    assert (two - one).keys() <= LAYER.keys()


def _shorter(sample: Sample) -> onnx.ModelProto:
    """Return the arranged graph without its last layer."""
    model = onnx.ModelProto()
    model.CopyFrom(sample.model)

    # The tidy graph ends with the last normalisation, which is renamed to the output: the one of the layer before is
    # the second of each layer, so two before the last.
    norms = [node for node in model.graph.node if node.op_type == "LayerNormalization"]
    earlier, output = norms[-3].output[0], model.graph.output[0].name
    for node in model.graph.node:
        node.input[:] = [output if name == earlier else name for name in node.input]
        node.output[:] = ["unused" if name == output else output if name == earlier else name for name in node.output]

    names = [value.name for value in model.graph.input]
    cut = onnx.utils.Extractor(model).extract_model(names, [output])
    cut.ir_version = IR_VERSION
    short = arrange_floats(cut)
    short.ir_version = IR_VERSION
    return short


def test_the_arranged_graph_computes_the_same(sample: Sample, arranged: onnx.ModelProto) -> None:
    before, after = run_graph(sample.model, sample.tokens), run_graph(arranged, sample.tokens)
    tokens = sample.tokens.attention_mask > 0
    assert after.shape == before.shape
    assert cosines(after[tokens], before[tokens]).min() > 1 - 1e-12
    assert np.abs(after[tokens] - before[tokens]).max() < 2e-5


def test_a_text_alone_has_the_state_that_it_has_in_a_batch(sample: Sample, arranged: onnx.ModelProto) -> None:
    together = run_graph(arranged, sample.tokens)
    for row, states in zip(sample.rows, together, strict=True):
        alone = run_graph(arranged, sample.pad([row]))[0]
        assert np.abs(alone - states[: len(row)]).max() < 2e-5


def test_the_arranged_graph_is_read_as_the_encoder_that_it_was_written_from(
    sample: Sample, arranged: onnx.ModelProto
) -> None:
    read = read_encoder(arranged)
    assert len(read.layers) == LAYERS
    assert (sample.states(read) - sample.states(sample.encoder)).abs().max() < 2e-5
    for layer, before in zip(read.layers, sample.encoder.layers, strict=True):
        assert np.array_equal(layer.query.weight, before.query.weight * np.float32(before.score_scale))
        assert np.array_equal(layer.down.weight, before.down.weight)

    # Conversions calibrate each product by the name of its weight.
    names = {getattr(layer, part).source for layer in read.layers for part in ("query", "key", "value", "up", "down")}
    assert names | {layer.output.source for layer in read.layers} == {
        node.input[1] for node in constant_products(arranged.graph)
    }


def test_nothing_is_stored_twice_and_no_weight_is_added(sample: Sample, arranged: onnx.ModelProto) -> None:
    stored = [numpy_helper.to_array(tensor) for tensor in arranged.graph.initializer]
    assert len({(a.dtype.str, a.shape, a.tobytes()) for a in stored}) == len(stored)
    before = sum(numpy_helper.to_array(tensor).nbytes for tensor in sample.model.graph.initializer)
    assert sum(array.nbytes for array in stored) <= before + 256
    assert {name for node in arranged.graph.node for name in node.input} >= {
        tensor.name for tensor in arranged.graph.initializer
    }


def test_every_value_has_a_type_so_that_it_converts_to_float16(sample: Sample, arranged: onnx.ModelProto) -> None:
    copy = onnx.ModelProto()
    copy.CopyFrom(arranged)
    onnx.checker.check_model(copy, full_check=True)
    half = convert(copy)
    before, after = run_graph(arranged, sample.tokens), run_graph(half, sample.tokens)
    tokens = sample.tokens.attention_mask > 0
    assert cosines(after[tokens], before[tokens]).min() > 0.9999
    kinds = {t.data_type for t in half.graph.initializer if np.prod(t.dims) > HIDDEN * HIDDEN}
    assert kinds == {onnx.TensorProto.FLOAT16}


def test_two_arrangements_of_a_graph_have_the_same_bytes(sample: Sample, arranged: onnx.ModelProto) -> None:
    again = arrange_floats(sample.model)
    again.ir_version = IR_VERSION
    assert again.SerializeToString(deterministic=True) == arranged.SerializeToString(deterministic=True)


def test_a_graph_of_another_architecture_stays_as_it_is_traced(sample: Sample) -> None:
    traced = onnx.ModelProto()
    traced.CopyFrom(sample.model)
    for node in traced.graph.node:
        node.op_type = "Tanh" if node.op_type == "Erf" else node.op_type
    assert arrange_floats(traced) is traced
