"""Stores the large embedding tables of a graph as 8-bit integers."""

import numpy as np
import onnx_ir as ir

from bge_export.precision.int8.round.quantized import round_table

LARGE_TABLE_ROWS = 256
"""Embedding tables with at least this many rows are rounded to 8 bits row by row; smaller ones would save nothing."""


def round_tables(graph: ir.Graph) -> dict[ir.Value, ir.Value]:
    """Store large embedding tables as int8 with one scale per row; return the replacement of each lookup."""
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

        # Look up integers and scales by the same ids, and multiply them in float32.
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
