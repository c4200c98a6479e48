"""Pads inputs to a multiple of four tokens inside the graph, so that a text has one vector in WebAssembly too.

In WebAssembly, ONNX Runtime sums the exponentials of a softmax four at a time and the remainder one by one: the sum of
a text of 125 tokens changes in its last bit if a batch pads it to 128. Float layers hide that; on a grid of 256 levels,
a value falls on another level, and the cosine of the vector may drop to 0.9997. A row that is already padded is summed
alike in every batch. This is for graphs that keep their softmax, as those of the plain arrangement do.
"""

import numpy as np
import onnx
from onnx import helper, numpy_helper

LANES = 4
IDS = "input_ids"
INPUTS = (IDS, "attention_mask", "token_type_ids")
STATES = "last_hidden_state"


def pad_inputs(model: onnx.ModelProto, max_tokens: int) -> onnx.ModelProto:
    """Return the graph with its inputs padded and its token states cut to length again; it is modified in place.

    Padding has ids, types and mask of 0, so the mask hides it. A graph with one state per text has nothing to cut. If
    the longest text does not fill a whole vector, nothing is padded beyond it: it has one length in every batch too.

    Args:
        model: graph with token ids and a mask, of any length.
        max_tokens: length of the longest text.
    """
    graph = model.graph
    names = [value.name for value in graph.input if value.name in INPUTS]

    # All readers of the inputs now read the padded ones; the states are cut where they leave the graph.
    for node in graph.node:
        for position, name in enumerate(node.input):
            if name in names:
                node.input[position] = f"{name}/padded"
        for position, name in enumerate(node.output):
            if name == STATES and _long(graph):
                node.output[position] = f"{name}/padded"

    constants = {"lanes": [LANES], "last": [1], "none": [0], "before": [0, 0, 0]}
    missing = "padding/missing"
    room: list[onnx.NodeProto] = []
    if max_tokens % LANES:
        constants["longest"] = [max_tokens]
        missing = "padding/within"
        room = [
            helper.make_node("Sub", ["padding/longest", "padding/shape"], ["padding/left"], "padding/left"),
            helper.make_node("Max", ["padding/left", "padding/none"], ["padding/room"], "padding/room"),
            helper.make_node("Min", ["padding/missing", "padding/room"], [missing], missing),
        ]

    graph.initializer.extend(
        numpy_helper.from_array(np.array(value, np.int64), f"padding/{name}") for name, value in constants.items()
    )
    first = [
        helper.make_node("Shape", [IDS], ["padding/shape"], "padding/shape", start=1, end=2),
        helper.make_node("Neg", ["padding/shape"], ["padding/negative"], "padding/negative"),
        helper.make_node("Mod", ["padding/negative", "padding/lanes"], ["padding/missing"], "padding/missing"),
        *room,
        helper.make_node("Concat", ["padding/before", missing], ["padding/pads"], "padding/pads", axis=0),
        *(helper.make_node("Pad", [name, "padding/pads"], [f"{name}/padded"], f"{name}/padded") for name in names),
    ]

    nodes = [*first, *graph.node]
    if _long(graph):
        cut = [f"{STATES}/padded", "padding/none", "padding/shape", "padding/last"]
        nodes.append(helper.make_node("Slice", cut, [STATES], STATES))

    # Copy the nodes before the list that owns them is cleared.
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)
    return model


def _long(graph: onnx.GraphProto) -> bool:
    """Return whether the graph returns a state for each token; with `--cls-only` that axis is 1."""
    states = next((value for value in graph.output if value.name == STATES), None)
    return states is not None and states.type.tensor_type.shape.dim[1].dim_value != 1
