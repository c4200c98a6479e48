"""Cleans a traced graph of what tracing leaves behind, without touching a number.

Shape arithmetic (`Shape`, `Gather`, `Unsqueeze`, `Concat` before every `Reshape`) becomes a constant that copies the
dimensions it computed; constants become initializers; equal initializers become one; dead nodes go; names lose the
prefix of the tracing wrapper. What is left is the textbook graph, which every later pass can match.
"""

import onnx
import onnx_ir as ir
from onnx_ir.passes import PassManager, common

WRAPPER = "model"
"""The attribute of `tracing.TracedEncoder` that holds the encoder."""

SMALL_ELEMENTS = 1024
"""Only constants up to this size are compared to share them; a model's own weights stay as they are."""


def tidy(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the cleaned graph.

    Args:
        model: a graph as `torch.onnx` traces it, all weights inside. It is emptied, so that a model's weights are in
            memory twice at most.
    """
    shaped = _with_shapes(model)
    model.Clear()
    graph = ir.from_proto(shaped)
    _constant_reshapes(graph)
    PassManager(
        [
            common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
            common.DeduplicateInitializersPass(size_limit=SMALL_ELEMENTS),
            common.CommonSubexpressionEliminationPass(),
            common.IdentityEliminationPass(),
            common.RemoveUnusedNodesPass(),
            common.ClearMetadataAndDocStringPass(),
            common.TopologicalSortPass(),
        ]
    )(graph)
    _plain_names(graph)
    return ir.to_proto(graph)


def _with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with a symbolic shape on every value (onnxruntime's own inference)."""
    from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference

    shaped: onnx.ModelProto = SymbolicShapeInference.infer_shapes(model, auto_merge=True)
    return shaped


def _constant_reshapes(model: ir.Model) -> None:
    """Give each `Reshape` whose target is computed a constant target: 0 copies a dimension, one -1 is free.

    A target is replaced only where the inferred shapes prove it: every dimension of the output is a number, or the
    same symbol as the input's dimension at that place; at most one other is left to the runtime as -1.
    """
    for node in list(model.graph):
        data, target = (*node.inputs, None, None)[:2]
        if node.op_type != "Reshape" or target is None or data is None or target.const_value is not None:
            continue
        dims = _copied_dims(data.shape, node.outputs[0].shape)
        if dims is not None:
            constant = ir.node("Constant", [], {"value": ir.tensor(dims, dtype=ir.DataType.INT64)})
            model.graph.insert_before(node, constant)
            node.replace_input_with(1, constant.outputs[0])


def _copied_dims(source: ir.Shape | None, result: ir.Shape | None) -> list[int] | None:
    """Return the constant target that turns `source` into `result`, or None where the shapes do not prove one."""
    if source is None or result is None:
        return None
    dims: list[int] = []
    for place, dim in enumerate(result):
        if isinstance(dim, int):
            dims.append(dim)
        elif place < len(source) and dim.value is not None and dim == source[place]:
            dims.append(0)
        else:
            dims.append(-1)
    return dims if dims.count(-1) <= 1 else None


def _plain_names(model: ir.Model) -> None:
    """Name nodes after the module they came from, their results after the node, and weights after their use."""
    graph = model.graph
    kept = {id(value) for value in (*graph.inputs, *graph.outputs)}
    taken: set[str] = {value.name or "" for value in (*graph.inputs, *graph.outputs)}
    for node in graph:
        node.name = _unique((node.name or node.op_type).removeprefix(f"/{WRAPPER}").lstrip("/"), taken)
        for place, value in enumerate(node.outputs):
            if id(value) not in kept:
                value.name = _unique(f"{node.name}:{place}", taken)
        for place, weight in enumerate(node.inputs):
            if weight is not None and weight.is_initializer() and id(weight) not in kept:
                kept.add(id(weight))
                own = (weight.name or "").removeprefix(f"{WRAPPER}.")
                _rename_initializer(
                    graph, weight, _unique(own if own != weight.name else f"{node.name}.{place}", taken)
                )


def _rename_initializer(graph: ir.Graph, value: ir.Value, name: str) -> None:
    graph.initializers.pop(value.name or "")  # keyed by name: take it out, rename it, put it back
    value.name = name
    if value.const_value is not None:
        value.const_value.name = name
    graph.initializers[name] = value


def _unique(name: str, taken: set[str]) -> str:
    candidate, count = name, 1
    while candidate in taken:
        count += 1
        candidate = f"{name}_{count}"
    taken.add(candidate)
    return candidate
