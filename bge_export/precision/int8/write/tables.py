"""Embedding tables in a graph: where they are looked up, and how they are stored on 8 bits."""

import numpy as np
import onnx_ir as ir

from bge_export.precision.int8.round.quantized import round_table

LARGE_TABLE_ROWS = 256
"""Embedding tables from this size on are rounded to 8 bits row by row; smaller ones would save nothing."""


def lookups(value: ir.Value) -> list[tuple[ir.Node, int]]:
    """Return the embedding lookups under a sum, each with the place of its index."""
    node = value.producer()
    if node is None:  # `reading` lets no other graph through
        raise ValueError(f"{value.name}: the embeddings are no sum of lookups")
    if node.op_type == "Gather":
        return [(node, 1)]
    return [found for source in node.inputs if source is not None and source.const_value is None
            for found in lookups(source)]  # fmt: skip


def round_tables(graph: ir.Graph) -> dict[ir.Value, ir.Value]:
    """Store large embedding tables as 8 bits a value and a scale a row; return what took the place of each lookup."""
    replaced: dict[ir.Value, ir.Value] = {}
    tape = ir.tape.Tape(graph)
    for gather in [node for node in graph if node.op_type == "Gather"]:
        table, index = gather.inputs[0], gather.inputs[1]
        array = None if table is None or table.const_value is None else table.const_value.numpy()
        if array is None or table is None or index is None or array.ndim != 2 or len(array) < LARGE_TABLE_ROWS:
            continue
        if array.dtype != np.float32:
            continue
        rounded = round_table(array)
        name = gather.name or "embeddings"
        codes = tape.initializer(ir.tensor(rounded.integers, name=f"{name}.integers"), f"{name}.integers")
        scale = tape.initializer(ir.tensor(rounded.scale, name=f"{name}.scale"), f"{name}.scale")
        parts = [
            ir.node("Gather", [codes, index], {"axis": 0}, name=f"{name}/codes"),
            ir.node("Gather", [scale, index], {"axis": 0}, name=f"{name}/scale"),
        ]
        parts.append(ir.node("Cast", [parts[0].outputs[0]], {"to": ir.DataType.FLOAT}, name=f"{name}/float"))
        parts.append(ir.node("Mul", [parts[2].outputs[0], parts[1].outputs[0]], name=f"{name}/rows"))
        for part in parts:
            part.outputs[0].name = f"{part.name}:0"
            graph.insert_before(gather, part)
        ir.convenience.replace_all_uses_with(gather.outputs[0], parts[3].outputs[0])
        replaced[gather.outputs[0]] = parts[3].outputs[0]
        graph.remove(gather, safe=True)
        if not table.consumers():
            del graph.initializers[table.name or ""]
    return replaced
