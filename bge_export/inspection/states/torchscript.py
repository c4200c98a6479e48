"""Reads the states of a frozen TorchScript graph: makes its layer normalisations outputs, and runs it on the CPU."""

import numpy as np
import torch

from bge_export.contracts import Artifact, TokenBatch
from bge_export.formats._torchscript_file import load_torchscript
from bge_export.inspection.states import States


def read_states(artifact: Artifact, batch: TokenBatch) -> States:
    """Return the output of every `aten::layer_norm`, in order, each [S, D] float32."""
    module = load_torchscript(artifact.root / artifact.model, "cpu")

    # Replace the graph's outputs by the layer normalisations.
    graph = module.graph.copy()
    norms = [node.output() for node in graph.nodes() if node.kind() == "aten::layer_norm"]
    while list(graph.outputs()):
        graph.eraseOutput(0)
    for value in norms:
        graph.registerOutput(value)
    graph.makeMultiOutputIntoTuple()

    probe = torch._C._create_function_from_graph("states", graph)
    names = [value.debugName().partition(".")[0] for value in list(graph.inputs())[1:]]
    tensors = [torch.from_numpy(array) for array in batch.feed(names).values()]

    with torch.inference_mode():
        values = probe(module._c, *tensors)
    return [np.asarray(value[0].numpy(), dtype=np.float32) for value in values]
