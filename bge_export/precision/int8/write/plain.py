"""Quantizes any tidy graph in the plain arrangement: QuantizeLinear and DequantizeLinear around constant products.

This is for graphs that `reading` does not recognize. onnxruntime's static quantizer finds the ranges of the activations
on the calibration texts and writes the graph; the integers of the weights are ours (GPTQ under the saturation
constraint), so that all processors give the same result. No channel is scaled and no neuron split, so the loss is
larger than in the fast arrangement. Where the gate refuses it, variants with residuals follow (`residuals`).
"""

import tempfile
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnx import numpy_helper

from bge_export.calibration.moments import second_moments
from bge_export.graph.products import constant_products
from bge_export.precision.int8.round.rounding import Rounded, round_weight
from bge_export.precision.int8.write.residuals import Residuals, TwoParts, add_residuals
from bge_export.precision.int8.write.tables import round_tables
from bge_export.texts.tokens import TextTokenizer

if TYPE_CHECKING:
    from onnxruntime.quantization import CalibrationDataReader


def quantize_plain(
    model: onnx.ModelProto, rows: Sequence[Sequence[int]], tokenizer: TextTokenizer
) -> Iterator[tuple[onnx.ModelProto, Residuals]]:
    """Yield the graph quantized to 8 bits, from fast to accurate; other products (Gemm, convolutions) stay float32.

    Args:
        model: float32 graph; it is not modified.
        rows: token ids of the calibration texts.
        tokenizer: pads the rows.
    """
    products = constant_products(model.graph)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    moments = second_moments(model, products, rows, tokenizer)
    rounded = {name: round_weight(_tensor(weights[name]), torch.from_numpy(moments[name])) for name in moments}

    halves = {name: TwoParts.of(numpy_helper.to_array(weights[name])) for name in rounded}

    result = _between_pairs(model, [node.name for node in products], rows, tokenizer)
    _put(result.graph, {node.name: rounded[node.input[1]] for node in products})
    _round_for_products_alone(result.graph, {node.name for node in products})

    graph = ir.from_proto(result)
    round_tables(graph.graph)
    plain = ir.to_proto(graph)
    own = {node.name: halves[node.input[1]] for node in products}
    del model, products, weights, rounded, halves, result, graph  # the float32 weights, while a variant is measured

    for residuals in get_args(Residuals):
        yield add_residuals(plain, own, residuals), residuals


def _tensor(weight: onnx.TensorProto) -> torch.Tensor:
    return torch.tensor(numpy_helper.to_array(weight))


def _between_pairs(
    model: onnx.ModelProto, names: Sequence[str], rows: Sequence[Sequence[int]], tokenizer: TextTokenizer
) -> onnx.ModelProto:
    """Return the graph with onnxruntime's QuantizeLinear and DequantizeLinear around the named nodes."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    # Without this entry, onnxruntime asks on the console for a shape inference, which was already done.
    copy.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        quantize_static(
            copy,
            path,
            _reader([value.name for value in model.graph.input], rows, tokenizer),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul"],
            nodes_to_quantize=list(names),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            use_external_data_format=True,
            # The result of a product is not rounded: a second rounding would only lose more.
            extra_options={"MatMulConstBOnly": True, "OpTypesToExcludeOutputQuantization": ["MatMul"]},
        )
        result = onnx.load(path)

    del result.metadata_props[:]
    return result


def _reader(inputs: Sequence[str], rows: Sequence[Sequence[int]], tokenizer: TextTokenizer) -> "CalibrationDataReader":
    """Return a reader that gives onnxruntime one text at a time, so that no padding widens a range."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.feeds: Iterator[dict[str, np.ndarray]] = (dict(tokenizer.pad([row]).feed(inputs)) for row in rows)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.feeds, None)

    return Reader()


def _round_for_products_alone(graph: onnx.GraphProto, products: Set[str]) -> None:
    """Let all nodes but products read inputs as they were: onnxruntime also rounds what a residual connection adds."""
    makers = {name: node for node in graph.node for name in node.output}
    inputs = {
        node.output[0]: makers[node.input[0]].input[0]
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in makers
    }

    for node in graph.node:
        if node.name not in products:
            for position, name in enumerate(node.input):
                node.input[position] = inputs.get(name, name)


def _put(graph: onnx.GraphProto, rounded: dict[str, Rounded]) -> None:
    """Replace the integers and scales that onnxruntime rounded plainly; `rounded` is by name of the product."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}

    for node in graph.node:
        if node.name in rounded:
            own = rounded[node.name]
            integers, scale = makers[node.input[1]].input[:2]
            tensors[integers].CopyFrom(numpy_helper.from_array(own.integers, integers))
            tensors[scale].CopyFrom(numpy_helper.from_array(own.scale, scale))
