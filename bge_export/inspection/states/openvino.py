"""Reads the states of an OpenVINO graph: makes its layer normalisations outputs, and runs it on the CPU in float32."""

from collections.abc import Iterable

import numpy as np
import openvino

from bge_export.contracts import Artifact, TokenBatch
from bge_export.inspection.states import States


def read_states(artifact: Artifact, batch: TokenBatch) -> States:
    """Return the output of every layer normalisation, in order, each [S, D] float32.

    OpenVINO represents one as `MVN`, a multiplication by the weight and an addition of the bias.
    """
    core = openvino.Core()
    model = core.read_model(artifact.root / artifact.model)
    norms = [_follow(node) for node in model.get_ordered_ops() if node.get_type_name() == "MVN"]

    # Values are fetched by name after the run.
    for index, port in enumerate(norms):
        if not port.get_names():
            port.get_tensor().set_names({f"state {index}"})
    names = [min(port.get_names()) for port in norms]

    # The last one may already be an output of the model.
    model.add_outputs([port for port in norms if all(i.get_node().get_type_name() != "Result" for i in _readers(port))])

    request = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
    request.infer(batch.feed(artifact.inputs))
    return [np.array(request.get_tensor(name).data[0], dtype=np.float32) for name in names]


def _follow(node: openvino.Node) -> openvino.Output:
    """Return the output of a normalisation after its weight and bias."""
    for kind in ("Multiply", "Add"):
        following = [port.get_node() for port in _readers(node.output(0))]
        node = next((one for one in following if one.get_type_name() == kind), node)
    return node.output(0)


def _readers(port: openvino.Output) -> Iterable[openvino.Input]:
    return tuple(port.get_target_inputs())
