"""Ways from an int8 weight to a product, each of which hides a weight that breaks the rule in every pair."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper, parser
from saturation.models import ACTIVATIONS, K, N

BACK = "b = DequantizeLinear<axis=1>(w, t, u)\n"
DOMAINS = '"" : 17, "com.microsoft" : 1, "elsewhere" : 1'
ENDS = "(float[S,5] x) => (float[S,3] y)"
IMAGE = "(float[1,2,4,4] x) => (float[1,3,2,2] y)"
CODES = "q = QuantizeLinear(x, s, z)\n"
INTO_FLOAT = "y = Cast<to=1>(m)"

FOLLOWED: Mapping[str, str] = {
    "a Cast in place of the dequantization": f"{ACTIVATIONS} b = Cast<to=1>(w)\n y = MatMul(a, b)",
    "dequantization spelled out": (
        f"{ACTIVATIONS} c = Cast<to=1>(w)\n d = Cast<to=1>(u)\n e = Sub(c, d)\n b = Mul(e, t)\n y = MatMul(a, b)"
    ),
    "a factor behind the dequantization": f"{ACTIVATIONS} {BACK} c = Mul(t, b)\n y = MatMul(a, c)",
    "two parts that are joined": (
        f"{ACTIVATIONS} c = DequantizeLinear(top, t0, u0)\n d = DequantizeLinear(rest, t0, u0)\n"
        "b = Concat<axis=0>(c, d)\n y = MatMul(a, b)"
    ),
    "two parts that are joined as integers": (
        f"{ACTIVATIONS} c = Concat<axis=0>(top, rest)\n b = DequantizeLinear(c, t0, u0)\n y = MatMul(a, b)"
    ),
    "a part that is split off": (
        f"{ACTIVATIONS} c = DequantizeLinear(wide, t0, u0)\n b, d = Split<axis=1>(c)\n y = MatMul(a, b)"
    ),
    "a choice of two": f"{ACTIVATIONS} {BACK} c = Where(yes, b, b)\n y = MatMul(a, c)",
    "a choice of two integers": (
        f"{ACTIVATIONS} c = Where(yes, w, w)\n b = DequantizeLinear<axis=1>(c, t, u)\n y = MatMul(a, b)"
    ),
    "a sum of integers": f"{ACTIVATIONS} c = Add(some, more)\n b = DequantizeLinear(c, t0, u0)\n y = MatMul(a, b)",
    "a column that is spread": (
        f"{ACTIVATIONS} c = Expand(column, shape)\n b = DequantizeLinear(c, t0, u0)\n y = MatMul(a, b)"
    ),
    "floats that are cast to int8": f"{CODES} c = Cast<to=3>(floats)\n m = MatMulInteger(q, c, z)\n {INTO_FLOAT}",
    "integers that are cast to int8": (
        f"{ACTIVATIONS} c = Cast<to=3>(large)\n b = DequantizeLinear<axis=1>(c, t, u)\n y = MatMul(a, b)"
    ),
    "weights on the left of integers": (
        "c = Transpose(x)\n d = QuantizeLinear(c, s, z)\n m = MatMulInteger(turned, d)\n n = Cast<to=1>(m)\n"
        "y = Transpose(n)"
    ),
    "QGemm": f"{CODES} y = com.microsoft.QGemm<transB=1>(q, s, z, turned, t0, u0)",
    "MatMulIntegerToFloat": f"{CODES} y = com.microsoft.MatMulIntegerToFloat(q, w, s, t0, z, u0)",
    "FusedMatMul": f"{ACTIVATIONS} {BACK} y = com.microsoft.FusedMatMul(a, b)",
    "activations behind Relu": f"{ACTIVATIONS} {BACK} c = Relu(a)\n y = MatMul(c, b)",
    "activations behind Clip": f"{ACTIVATIONS} {BACK} c = Clip(a, low, high)\n y = MatMul(c, b)",
    "activations behind a factor": f"{ACTIVATIONS} {BACK} c = Mul(s, a)\n y = MatMul(c, b)",
    "activations behind Where": f"{ACTIVATIONS} {BACK} c = Where(row, low, a)\n y = MatMul(c, b)",
    "activations behind Concat": f"{ACTIVATIONS} {BACK} c = Concat<axis=0>(x, a)\n y = MatMul(c, b)",
    "activations behind an unknown operator": f"{ACTIVATIONS} {BACK} c = elsewhere.Same(a)\n y = MatMul(c, b)",
    "activations behind a maximum over one": (
        f"{ACTIVATIONS} {BACK} c = Unsqueeze(a, axis0)\n d = ReduceMax<axes=[0],keepdims=0>(c)\n y = MatMul(d, b)"
    ),
    "integers that are cast to floats": f"{CODES} {BACK} a = Cast<to=1>(q)\n y = MatMul(a, b)",
}  # fmt: skip
"""Name -> nodes whose weight is found with all its pairs."""

UNFOLLOWED: Mapping[str, tuple[str, str]] = {
    "two weights that are added": (f"{ACTIVATIONS} {BACK} c = Add(b, b)\n y = MatMul(a, c)", "Add"),
    "a weight times what the input gives": (
        f"{ACTIVATIONS} {BACK} c = ReduceMax<keepdims=0>(x)\n d = Mul(b, c)\n y = MatMul(a, d)", "depends on",
    ),
    "a choice that the input makes": (
        f"{ACTIVATIONS} {BACK} c = ReduceMax<keepdims=0>(x)\n d = Less(c, low)\n e = Where(d, b, b)\n y = MatMul(a, e)",
        "depends on",
    ),
    "rows that the input picks": (
        f"{ACTIVATIONS} c = Shape(a)\n d = Gather(rows3, c)\n e = DequantizeLinear(d, t0, u0)\n f = Transpose(a)\n"
        "g = Slice(f, from, two)\n h = Transpose(g)\n y = MatMul(h, e)",
        "depends on",
    ),
    "pooled weights": (
        f"{ACTIVATIONS} c = Unsqueeze(w, axis0)\n d = Unsqueeze(c, axis0)\n e = MaxPool<kernel_shape=[1,1]>(d)\n"
        "f = Squeeze(e, axes)\n b = DequantizeLinear(f, t0, u0)\n y = MatMul(a, b)",
        "MaxPool",
    ),
    "a maximum of integers beside integers": (
        f"{CODES} c = Unsqueeze(w, axis0)\n d = ReduceMax<axes=[0],keepdims=0>(c)\n m = MatMulInteger(q, d, z)\n"
        f" {INTO_FLOAT}", "ReduceMax",
    ),
    "a maximum of integers": (
        f"{ACTIVATIONS} c = Unsqueeze(w, axis0)\n d = ReduceMax<axes=[0],keepdims=0>(c)\n"
        "b = DequantizeLinear<axis=1>(d, t, u)\n y = MatMul(a, b)", "ReduceMax",
    ),
    "a maximum of floats": (
        f"{ACTIVATIONS} {BACK} c = Unsqueeze(b, axis0)\n d = ReduceMax<axes=[0],keepdims=0>(c)\n y = MatMul(a, d)",
        "ReduceMax",
    ),
    "a root of squares": (f"{ACTIVATIONS} {BACK} c = Pow(b, two0)\n d = Sqrt(c)\n y = MatMul(a, d)", "Sqrt"),
    "a product of constants": (f"{ACTIVATIONS} {BACK} c = MatMul(square, b)\n y = MatMul(a, c)", "MatMul"),
    "an operator of somebody else": (f"{ACTIVATIONS} {BACK} y = elsewhere.Product(a, b)", "Product"),
    "an operator of somebody else on integers": (f"{CODES} y = com.microsoft.Product(q, w)", "Product"),
    "an operator of somebody else in between": (
        f"{ACTIVATIONS} {BACK} c = elsewhere.Same(b)\n y = MatMul(a, c)", "Same",
    ),
    "a function": (f"{ACTIVATIONS} {BACK} y = own.Product(a, b)", "an input of the function Product"),
    "a function of integers": (f"{CODES} y = own.Integers(q, w)", "right"),
    "a weight out of a function": (f"{ACTIVATIONS} {BACK} c = own.Same(b)\n y = MatMul(a, c)", "depends on"),
    "Einsum": (f'{ACTIVATIONS} {BACK} y = Einsum<equation="ij,jk->ik">(a, b)', "Einsum"),
    "a Cast that does not fit": (
        f"{CODES} c = Cast<to=3>(larger)\n m = MatMulInteger(q, c, z)\n {INTO_FLOAT}", "no int8",
    ),
    "shapes that do not fit": (
        f"{ACTIVATIONS} c = Reshape(w, shape7)\n b = DequantizeLinear(c, t0, u0)\n y = MatMul(a, b)", "Reshape",
    ),
    "a huge shape": (
        f"{ACTIVATIONS} c = Expand(column, huge)\n b = DequantizeLinear(c, t0, u0)\n y = MatMul(a, b)", "bytes",
    ),
    "branches": (
        f"{ACTIVATIONS} b = If(yes0) <then_branch = one () => (float[5,3] b1) {{ b1 = DequantizeLinear(w, t0, u0) }},"
        " else_branch = two () => (float[5,3] b2) { b2 = DequantizeLinear(w, t0, u0) }>\n y = MatMul(a, b)",
        "depends on",
    ),
}  # fmt: skip
"""Name -> nodes, and what the reason names."""

FUNCTIONS = """
<opset_import: ["" : 17], domain: "own"> Product (left, right) => (out) { out = MatMul(left, right) }
<opset_import: ["" : 17], domain: "own"> Integers (left, right) => (out)
    { made = MatMulInteger(left, right)
      out = Cast<to=1>(made) }
<opset_import: ["" : 17], domain: "own"> Same (given) => (out) { out = Identity(given) }
"""

VALUES: Mapping[str, np.ndarray] = {
    "w": np.full((K, N), 127, np.int8), "t": np.full(N, 0.01, np.float32), "u": np.zeros(N, np.int8),
    "s": np.array(0.02, np.float32), "z": np.array(128, np.uint8), "t0": np.array(0.01, np.float32),
    "u0": np.array(0, np.int8), "top": np.full((2, N), 127, np.int8), "rest": np.full((K - 2, N), 127, np.int8),
    "low": np.array(-1, np.float32),
    "high": np.array(1, np.float32), "wide": np.full((K, 2 * N), 127, np.int8), "yes": np.ones((K, 1), bool),
    "yes0": np.array(True), "row": np.zeros((1, K), bool), "some": np.full((K, N), 64, np.int8),
    "more": np.full((K, N), 63, np.int8), "column": np.full((K, 1), 127, np.int8), "shape": np.array([K, N]),
    "shape7": np.array([7, 2]), "huge": np.array([1 << 20, K, 1 << 20]), "floats": np.full((K, N), 127, np.float32),
    "larger": np.full((K, N), 300, np.float32), "large": np.full((K, N), 127, np.int32),
    "turned": np.full((N, K), 127, np.int8), "rows3": np.full((9, N), 127, np.int8), "axis0": np.array([0]),
    "square": np.eye(K, dtype=np.float32), "two0": np.array(2, np.float32), "axes": np.array([0, 1]),
    "from": np.array([0]), "two": np.array([2]),
}  # fmt: skip


def saved(
    folder: Path,
    nodes: str,
    *,
    ends: str = ENDS,
    domains: str = DOMAINS,
    changes: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """Write a graph of nodes over those values that it uses; `own` is the domain of its functions."""
    used_functions = "own." in nodes
    domains += ', "own" : 1' if used_functions else ""
    made = parser.parse_model(
        f"<ir_version: 8, opset_import: [{domains}]> g {ends} {{ {nodes} }} {FUNCTIONS if used_functions else ''}"
    )
    text = str(made.graph)
    for name, value in {**VALUES, **(changes or {})}.items():
        if f'"{name}"' in text:
            made.graph.initializer.append(numpy_helper.from_array(value, name))
    path = folder / "model.onnx"
    onnx.save(made, path)
    return path
