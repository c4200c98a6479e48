"""Quantizes the token embedding table to 4 bits; standard operators dequantize the rows after they are gathered.

The single operator `GatherBlockQuantized` needs IR 10, and gives different results on WebGPU in Transformers.js 3.
"""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

IDS = "input_ids"
WIDEST_BLOCK = 64
MIDDLE = 8
"""Zero point: embeddings are symmetric around zero, and a zero point per block gains nothing."""

SHRINKS = np.linspace(1.0, 0.6, 24)
"""Candidate fractions of a block's range; the one with the least squared error is used."""


def pack_table(graph: onnx.GraphProto) -> None:
    """Replace the lookup of token ids in a float table of even width, if any, by a lookup in a packed table.

    Args:
        graph: the graph, changed in place.
    """
    tables = {t.name: t for t in graph.initializer if len(t.dims) == 2 and t.data_type == TensorProto.FLOAT}

    ids = {IDS} | {node.output[0] for node in graph.node if node.op_type == "Transpose" and node.input[0] == IDS}

    for index, node in enumerate(graph.node):
        if node.op_type == "Gather" and node.input[1] in ids and (table := tables.get(node.input[0])):
            if table.dims[1] % 2:
                return

            new, constants = _lookup(node, numpy_helper.to_array(table))
            graph.initializer.extend(constants)
            del graph.node[index]
            for offset, each in enumerate(new):
                graph.node.insert(index + offset, each)
            return


def round_table(table: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    """Return 4-bit quantized values [V, D], and the scales of their blocks, [V, D / block]."""
    width = table.shape[1]
    block = next(size for size in range(WIDEST_BLOCK, 0, -1) if width % size == 0)
    blocks = table.reshape(len(table), -1, block)

    widest = np.abs(blocks).max(-1, keepdims=True)
    best, codes, scales = np.full(widest.shape, np.inf, np.float32), np.zeros(blocks.shape, np.uint8), widest

    for shrink in SHRINKS:
        scale = np.maximum(widest * np.float32(shrink / (MIDDLE - 0.5)), np.finfo(np.float16).tiny)
        scale = scale.astype(np.float16).astype(np.float32)  # as stored in the file

        tried = np.clip(np.round(blocks / scale) + MIDDLE, 0, 2 * MIDDLE - 1)
        error = (((tried - MIDDLE) * scale - blocks) ** 2).sum(-1, keepdims=True)

        better = error < best
        best, scales = np.where(better, error, best), np.where(better, scale, scales)
        codes = np.where(better, tried, codes).astype(np.uint8)

    return codes.reshape(table.shape), scales[..., 0].astype(np.float16)


def _lookup(node: onnx.NodeProto, table: NDArray[np.float32]) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Return the nodes that replace a Gather, and their constants.

    Each byte holds a value of the first half of the dimensions in its low half and a value of the second half in its
    high half, so that unpacking only needs a concatenation, without interleaving. The arithmetic is on floats below
    256, exact in any precision, and supported by every execution provider.
    """
    codes, scales = round_table(table)
    half = table.shape[1] // 2
    base, ids = node.name, node.input[1]

    constants = {
        "bytes": codes[:, :half] | (codes[:, half:] << 4),
        "scales": scales,
        "sixteenth": np.float32(1 / 16),
        "sixteen": np.float32(16),
        "middle": np.float32(MIDDLE),
        "blocks": np.array([0, 0, scales.shape[1], -1], np.int64),
        "last": np.array([-1], np.int64),
        "row": np.array([0, 0, table.shape[1]], np.int64),
    }

    # Gather the bytes, split them into halves, subtract the zero point, and multiply by the gathered scales.
    steps: list[tuple[str, list[str], str, dict[str, Any]]] = [
        ("Gather", ["bytes", ids], "packed", {}),
        ("Cast", ["packed"], "both", {"to": TensorProto.FLOAT}),
        ("Mul", ["both", "sixteenth"], "shifted", {}),
        ("Floor", ["shifted"], "high", {}),
        ("Mul", ["high", "sixteen"], "high_part", {}),
        ("Sub", ["both", "high_part"], "low", {}),
        ("Concat", ["low", "high"], "codes", {"axis": -1}),
        ("Sub", ["codes", "middle"], "centred", {}),
        ("Reshape", ["centred", "blocks"], "centred_blocks", {}),
        ("Gather", ["scales", ids], "half_scales", {}),
        ("Cast", ["half_scales"], "scale", {"to": TensorProto.FLOAT}),
        ("Unsqueeze", ["scale", "last"], "scale_blocks", {}),
        ("Mul", ["centred_blocks", "scale_blocks"], "scaled", {}),
        ("Reshape", ["scaled", "row"], node.output[0], {}),
    ]

    nodes = []
    for kind, inputs, output, attributes in steps:
        names = [name if name == ids else f"{base}/{name}" for name in inputs]
        result = output if output == node.output[0] else f"{base}/{output}"
        nodes.append(helper.make_node(kind, names, [result], f"{base}/{output}", **attributes))

    return nodes, [numpy_helper.from_array(np.asarray(value), f"{base}/{key}") for key, value in constants.items()]
