"""Runs a graph on one thread in the runtime it is arranged for, so that variants are tried where they will run."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray

from bge_export.contracts import TokenBatch
from bge_export.encoder.encoder import Floats
from bge_export.precision.int8.write.arrange import Arrangement

NOTHING: Mapping[str, Floats] = MappingProxyType({})


class States(Protocol):
    """A callable that runs a graph."""

    def __call__(self, tokens: TokenBatch, more: Mapping[str, Floats] = NOTHING) -> Floats:
        """Return an output of the graph, the states [B, S, H] by default, from tokens and the graph's other inputs."""


def open_graph(model: onnx.ModelProto, arrangement: Arrangement, output: int = 0) -> States:
    """Return a callable that runs the graph: ONNX Runtime if sequence-major, OpenVINO if batch-major.

    Args:
        model: the graph.
        arrangement: the axis order that it is written in.
        output: the index of the output that is returned.
    """
    return (_onnxruntime if arrangement == "sequence-major" else _openvino)(model, output)


def _onnxruntime(model: onnx.ModelProto, output: int) -> States:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]

    def states(tokens: TokenBatch, more: Mapping[str, Floats] = NOTHING) -> Floats:
        return np.asarray(session.run(None, _fed(tokens, more, names))[output])

    return states


def _openvino(model: onnx.ModelProto, output: int) -> States:
    import openvino

    core = openvino.Core()
    config = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(model.SerializeToString(), b""), "CPU", config)
    request = compiled.create_infer_request()
    names = [value.get_any_name() for value in compiled.inputs]

    def states(tokens: TokenBatch, more: Mapping[str, Floats] = NOTHING) -> Floats:
        request.infer(_fed(tokens, more, names))
        return np.array(request.get_output_tensor(output).data)

    return states


def _fed(tokens: TokenBatch, more: Mapping[str, Floats], names: list[str]) -> dict[str, NDArray[Any]]:
    return {**tokens.feed([name for name in names if name not in more]), **more}
