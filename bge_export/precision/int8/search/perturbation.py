"""Graphs whose states tremble by a part in a million: what another runtime's last bits may do to a text.

Runtimes and processors differ in the last bits of normalisations, exponentials, error functions. Mostly a rounding to
8 bits hides that; where it does not, a code moves by one, and a text near a point where the model tips over lands on
the other side. A file is steady where no such text does, however its states tremble.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import onnx
import onnx_ir as ir

from bge_export.encoder.encoder import Floats

TREMOR = 1e-6
"""Relative standard deviation of what every normalised state is multiplied by: some ten units in the last place."""

NORMALIZATION = "LayerNormalization"


def trembling(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, int]]:
    """Return a graph with an input that multiplies each normalised state but the last, and their widths."""
    shaken = ir.from_proto(model)
    graph = shaken.graph
    widths: dict[str, int] = {}
    for node in [node for node in graph if node.op_type == NORMALIZATION and node.outputs[0] not in graph.outputs]:
        state, gamma = node.outputs[0], node.inputs[1]
        assert gamma is not None and gamma.const_value is not None  # noqa: S101, PT018 - written by `arrange`
        name = f"tremor.{len(widths)}"
        widths[name] = gamma.const_value.size
        factor = ir.val(name, ir.DataType.FLOAT, [widths[name]])
        graph.inputs.append(factor)
        product = ir.node("Mul", [state, factor], name=f"{name}/shaken")
        product.outputs[0].name = f"{name}/state"
        ir.convenience.replace_all_uses_with(state, product.outputs[0])
        product.replace_input_with(0, state)
        graph.insert_after(node, product)
    return ir.to_proto(shaken), widths


def tremors(widths: Mapping[str, int], count: int) -> Iterator[dict[str, Floats]]:
    """Yield what the inputs are given: ones first, which leave all as it is, then `count` that are drawn."""
    draw = np.random.default_rng(0)
    yield {name: np.ones(width, np.float32) for name, width in widths.items()}
    for _ in range(count):
        yield {name: draw.normal(1, TREMOR, width).astype(np.float32) for name, width in widths.items()}
