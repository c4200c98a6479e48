"""Reads the states of an ONNX graph: makes its layer normalisations outputs, and runs it in ONNX Runtime on the CPU."""

import numpy as np
import onnx
import onnxruntime

from bge_export.contracts import Artifact, TokenBatch
from bge_export.files.onnx_reader import load_with_data
from bge_export.inspection.states import States


def read_states(artifact: Artifact, batch: TokenBatch) -> States:
    """Return the output of every `LayerNormalization`, in order, each [S, D] float32."""
    model = load_with_data(artifact.root / artifact.model)
    norms = [node.output[0] for node in model.graph.node if node.op_type == "LayerNormalization"]
    present = {value.name for value in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in norms if name not in present)

    # Fusion would remove the values between operators.
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), sess_options=options, providers=["CPUExecutionProvider"]
    )

    values = session.run(norms, batch.feed([value.name for value in session.get_inputs()]))
    # One text: its tokens are rows, whether or not there is an axis of texts.
    return [np.asarray(value, dtype=np.float32).reshape(-1, value.shape[-1]) for value in values]
