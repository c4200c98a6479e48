"""Layer normalisations of an OpenVINO graph, made outputs and run on the CPU in float32."""

import numpy as np
import openvino

from bge_export.contracts import Artifact, TokenBatch
from bge_export.states import States


def read_states(artifact: Artifact, batch: TokenBatch) -> States:
    """Return the output of every layer normalisation, in order, each [S, D] float32.

    OpenVINO keeps one as `MVN`, a multiplication by the weight and an addition of the bias.
    """
    core = openvino.Core()
    model = core.read_model(artifact.root / artifact.model)
    norms = [_follow(node) for node in model.get_ordered_ops() if node.get_type_name() == "MVN"]
    results = model.add_outputs(norms)
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    names = [next(iter(port.get_names())) for port in compiled.inputs]
    values = compiled(batch.feed(names))
    return [np.array(values[port.get_index()][0], dtype=np.float32) for port in results]


def _follow(node: openvino.Node) -> openvino.Output:
    """Return the value after the weight and the bias of a normalisation."""
    for kind in ("Multiply", "Add"):
        following = [port.get_node() for port in node.output(0).get_target_inputs()]
        node = next((one for one in following if one.get_type_name() == kind), node)
    return node.output(0)
