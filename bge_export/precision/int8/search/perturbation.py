"""Perturbs the states of a graph by one part in a million, as the rounding of another runtime may do.

Runtimes and processors differ in the last bits of normalisations, exponentials and error functions. Rounding to 8 bits
usually hides that. If it does not, a quantized value moves by one, and a text near a point where the model tips over
lands on the other side. A file is robust if no text does so under any perturbation.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import onnx
import onnx_ir as ir

from bge_export.encoder.encoder import Floats

PERTURBATION = 1e-6
"""Relative standard deviation of the factors of every normalised state: some ten units in the last place."""

NORMALIZATION = "LayerNormalization"


def perturbable(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, int]]:
    """Return a graph that multiplies each normalised state but the last by a new input, and the inputs' widths."""
    perturbed = ir.from_proto(model)
    graph = perturbed.graph
    widths: dict[str, int] = {}

    for node in [node for node in graph if node.op_type == NORMALIZATION and node.outputs[0] not in graph.outputs]:
        state, gamma = node.outputs[0], node.inputs[1]
        assert gamma is not None and gamma.const_value is not None  # noqa: S101, PT018 - written by `arrange`

        name = f"perturbation.{len(widths)}"
        widths[name] = gamma.const_value.size
        factor = ir.val(name, ir.DataType.FLOAT, [widths[name]])
        graph.inputs.append(factor)

        product = ir.node("Mul", [state, factor], name=f"{name}/perturbed")
        product.outputs[0].name = f"{name}/state"

        # The product replaces the state everywhere; its own input is then set back to the state.
        ir.convenience.replace_all_uses_with(state, product.outputs[0])
        product.replace_input_with(0, state)
        graph.insert_after(node, product)

    return ir.to_proto(perturbed), widths


def perturbations(widths: Mapping[str, int], count: int) -> Iterator[dict[str, Floats]]:
    """Yield values for these inputs: first ones, which change nothing, then `count` random draws."""
    draw = np.random.default_rng(0)
    yield {name: np.ones(width, np.float32) for name, width in widths.items()}
    for _ in range(count):
        yield {name: draw.normal(1, PERTURBATION, width).astype(np.float32) for name, width in widths.items()}
