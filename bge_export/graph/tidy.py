"""Removes the leftovers of tracing from an ONNX graph without changing any result.

Shape arithmetic (`Shape`, `Gather`, `Unsqueeze`, `Concat` before every `Reshape`) becomes a constant target that copies
the same dimensions; constants become initializers; equal initializers are merged; dead nodes are removed; names lose
the prefix of the tracing wrapper. The result is the textbook graph, which every later pass can match.
"""

import onnx
import onnx_ir as ir
from onnx_ir.passes import PassManager, common

WRAPPER = "model"
"""Attribute of `tracing.TracedEncoder` that holds the encoder."""

SMALL_ELEMENTS = 1024
"""Only constants up to this number of elements are deduplicated; the model's weights are not compared."""


def tidy(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the cleaned graph.

    Args:
        model: a graph traced by `torch.onnx`, with all weights inside. It is cleared, so that memory holds at most
            two copies of the weights.
    """
    shaped = _with_shapes(model)
    model.Clear()
    graph = ir.from_proto(shaped)

    # First, so that the passes below remove the shape arithmetic that is then unused.
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
    """Return the model with a symbolic shape on every value, inferred by onnxruntime."""
    from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference

    shaped: onnx.ModelProto = SymbolicShapeInference.infer_shapes(model, auto_merge=True)
    return shaped


def _constant_reshapes(model: ir.Model) -> None:
    """Replace each computed `Reshape` target by a constant: 0 copies a dimension, and at most one is -1 (inferred).

    A target is replaced only if the inferred shapes prove it: each dimension of the output is a number, or equals the
    symbol of the input's dimension at the same index; the runtime infers at most one other dimension (-1).
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
    """Return the constant target that reshapes `source` to `result`, or None if the shapes do not prove one."""
    if source is None or result is None:
        return None

    dims: list[int] = []
    for axis, dim in enumerate(result):
        if isinstance(dim, int):
            dims.append(dim)
        elif axis < len(source) and dim.value is not None and dim == source[axis]:
            dims.append(0)
        else:
            dims.append(-1)

    return dims if dims.count(-1) <= 1 else None


def _plain_names(model: ir.Model) -> None:
    """Name nodes after their source module, results after their node, and weights after their parameter or user."""
    graph = model.graph
    kept = {id(value) for value in (*graph.inputs, *graph.outputs)}
    taken: set[str] = {value.name or "" for value in (*graph.inputs, *graph.outputs)}

    for node in graph:
        node.name = _unique((node.name or node.op_type).removeprefix(f"/{WRAPPER}").lstrip("/"), taken)

        for position, value in enumerate(node.outputs):
            if id(value) not in kept:
                value.name = _unique(f"{node.name}:{position}", taken)

        for position, weight in enumerate(node.inputs):
            if weight is not None and weight.is_initializer() and id(weight) not in kept:
                kept.add(id(weight))
                own = (weight.name or "").removeprefix(f"{WRAPPER}.")
                _rename_initializer(
                    graph, weight, _unique(own if own != weight.name else f"{node.name}.{position}", taken)
                )


def _rename_initializer(graph: ir.Graph, value: ir.Value, name: str) -> None:
    # Initializers are keyed by name: take the value out, rename it, put it back.
    graph.initializers.pop(value.name or "")
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
