"""Computes the integers of an OpenVINO model's weights, one node at a time, in bounded time and memory."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from bge_export.files.regular import GRAPH_BYTES
from bge_export.saturation.openvino_flow import Flows, given
from bge_export.saturation.openvino_operators import ARITHMETIC, INTEGERS, MOVING

Array = NDArray[Any]

DEEPEST = 200
"""Longest chain of nodes that is followed back from one tensor."""

MOST_REPEATS = 32
"""How often the bytes of a file may be computed anew."""


@dataclass
class Computed:
    """Computes constants of one model.

    Attributes:
        flows: what is known of its tensors.
        path: its XML file; the weights lie beside it.
        spent_bytes: the bytes that were computed so far.
    """

    flows: Flows
    path: Path
    spent_bytes: int = field(default=0)

    def codes(self, value: Any, depth: int = 0) -> tuple[Array, str]:  # noqa: ANN401 - openvino has no types
        """Return the integers that an operand of a product stands for, and the name of the constant they come from.

        Raises:
            ValueError: they depend on the model's inputs, or an operator stands between them and the product that does
                not leave them as they are.
        """
        node = value.get_node()
        name, flow = node.get_type_name(), self.flows[node.get_name(), value.get_index()]

        if flow.dynamic:
            raise ValueError(f"{node.get_friendly_name()!r} depends on the model's inputs")
        if depth > DEEPEST:
            raise ValueError(f"{node.get_friendly_name()!r} is more than {DEEPEST} operators behind")

        if flow.kind in INTEGERS:
            return self.value(value), flow.weight or str(node.get_friendly_name())
        if name == "Convert":
            return self.codes(node.input_value(0), depth + 1)
        if name in MOVING:
            return self._moved(value, depth)
        if name in ARITHMETIC:
            return self._scaled(node, depth)

        raise ValueError(f"{name} {node.get_friendly_name()!r} changes it")

    def _moved(self, value: Any, depth: int) -> tuple[Array, str]:  # noqa: ANN401 - openvino has no types
        """Return integers moved by a node as it moves the floats that they stand for."""
        node, origins, inputs = value.get_node(), [], []

        for one, flow in zip(node.input_values(), given(self.flows, node), strict=True):
            if flow.weight is None and one.get_element_type().is_real():
                raise ValueError(f"{node.get_type_name()} {node.get_friendly_name()!r} joins it with floats")
            if flow.weight is None:
                inputs.append(self.value(one))
            else:
                integers, origin = self.codes(one, depth + 1)
                inputs.append(integers)
                origins.append(origin)

        return self._run(value, inputs, openvino.Type.i8), origins[0]

    def _scaled(self, node: Any, depth: int) -> tuple[Array, str]:  # noqa: ANN401 - openvino has no types
        """Return the integers behind the one operand of an operator of arithmetic that carries them."""
        left, right = given(self.flows, node)
        first = node.get_type_name() in ("Subtract", "Divide") and left.weight is not None
        zero = node.get_type_name() == "Subtract" and left.weight != right.weight

        if left.weight is not None and right.weight is not None and not (first and zero):
            raise ValueError(f"{node.get_type_name()} {node.get_friendly_name()!r} computes with two weights")

        codes, origin = self.codes(node.input_value(0 if left.weight is not None else 1), depth + 1)
        shape = tuple(node.output(0).get_shape())
        self._spend(math.prod(shape))
        return np.broadcast_to(codes, shape), origin

    def value(self, value: Any) -> Array:  # noqa: ANN401 - openvino has no types
        """Return a value that does not depend on the model's inputs.

        Raises:
            ValueError: it does, is too large, or cannot be computed.
        """
        return self._value(value, {}, 0)

    def _value(self, value: Any, known: dict[tuple[str, int], Array], depth: int) -> Array:  # noqa: ANN401 - the same
        """Implement `value`; `known` caches shared values, or evaluation could take exponential time."""
        node = value.get_node()
        key = node.get_name(), value.get_index()

        if depth > DEEPEST:
            raise ValueError(f"{node.get_friendly_name()!r} is more than {DEEPEST} operators behind")
        if node.get_type_name() == "Constant":
            self._spend(node.get_byte_size())
            return np.asarray(node.get_data())

        if key not in known:
            inputs = [self._value(one, known, depth + 1) for one in node.input_values()]
            known[key] = self._run(value, inputs, value.get_element_type())
        return known[key]

    def _run(self, value: Any, inputs: list[Array], kind: Any) -> Array:  # noqa: ANN401 - the same
        """Return one result of a node for given inputs; all its results have elements of type `kind`."""
        node = value.get_node()
        shapes = [output.get_partial_shape() for output in node.outputs()]
        if any(shape.is_dynamic for shape in shapes):
            raise ValueError(f"the shape of {node.get_friendly_name()!r} is not known")

        self._spend(sum(math.prod(shape.to_shape()) for shape in shapes) * max(kind.size, 1))
        results = [openvino.Tensor(kind, shape.to_shape()) for shape in shapes]
        if not node.evaluate(results, [openvino.Tensor(np.ascontiguousarray(one)) for one in inputs]):
            raise ValueError(f"{node.get_type_name()} {node.get_friendly_name()!r} cannot be computed")

        return np.asarray(results[value.get_index()].data)

    def _spend(self, count: int) -> None:
        """Count bytes; raise ValueError if they are more than one result, or one file, may have."""
        if count > GRAPH_BYTES:
            raise ValueError(f"a result would have {count} bytes")

        self.spent_bytes += count
        weights = self.path.with_suffix(".bin")
        size = self.path.stat().st_size + (weights.stat().st_size if weights.is_file() else 0)
        if self.spent_bytes > GRAPH_BYTES // 2 + MOST_REPEATS * size:
            raise ValueError(f"{self.spent_bytes} bytes would be computed for this file")
