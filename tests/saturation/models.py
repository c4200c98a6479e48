"""Small graphs with one int8 weight that breaks the rule in every pair, multiplied in each of the ways there are."""

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper, parser

K, N = 5, 3
PAIRS = K // 2 * N
HEAD = '<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]> g (float[S,5] x) => (float[S,3] y)'
ACTIVATIONS = "q = QuantizeLinear(x, s, z)\n a = DequantizeLinear(q, s, z)\n"

WAYS: dict[str, tuple[str, bool]] = {
    "MatMul": (f"{ACTIVATIONS} b = DequantizeLinear<axis=1>(w, t, u)\n y = MatMul(a, b)", False),
    "Gemm": (f"{ACTIVATIONS} b = DequantizeLinear<axis=1>(w, t, u)\n y = Gemm(a, b)", False),
    "Gemm with transB": (f"{ACTIVATIONS} b = DequantizeLinear<axis=0>(w, t, u)\n y = Gemm<transB=1>(a, b)", True),
    "weight turned after it is float": (
        f"{ACTIVATIONS} c = DequantizeLinear<axis=0>(w, t, u)\n b = Transpose<perm=[1,0]>(c)\n y = MatMul(a, b)", True,
    ),
    "weight turned before": (
        f"{ACTIVATIONS} c = Transpose<perm=[1,0]>(w)\n b = DequantizeLinear<axis=1>(c, t, u)\n y = MatMul(a, b)", True,
    ),
    "activations turned twice": (
        f"{ACTIVATIONS} b = DequantizeLinear<axis=1>(w, t, u)\n c = Transpose(a)\n d = Transpose(c)\n y = MatMul(d, b)",
        False,
    ),
    "weight on the left": (
        f"{ACTIVATIONS} b = DequantizeLinear<axis=0>(w, t, u)\n c = Transpose(a)\n d = MatMul(b, c)\n y = Transpose(d)",
        True,
    ),
    "activations of which rows are taken": (
        f"{ACTIVATIONS} c = Gather(a, rows)\n b = DequantizeLinear<axis=1>(w, t, u)\n y = MatMul(c, b)", False,
    ),
    "activations that are padded": (
        f"{ACTIVATIONS} c = Pad(a, ends)\n b = DequantizeLinear<axis=1>(w, t, u)\n y = MatMul(c, b)", False,
    ),
    "weight cut out": (
        f"{ACTIVATIONS} c = DequantizeLinear<axis=1>(w, t, u)\n b = Slice(c, from, to)\n y = MatMul(a, b)", False,
    ),
    "MatMulInteger": (
        "q, e, f = DynamicQuantizeLinear(x)\n m = MatMulInteger(q, w, f)\n y = Cast<to=1>(m)", False,
    ),
    "QLinearMatMul": (
        "q = QuantizeLinear(x, s, z)\n m = QLinearMatMul(q, s, z, w, t, u, s, z)\n y = DequantizeLinear(m, s, z)",
        False,
    ),
    "DynamicQuantizeMatMul": ("y = com.microsoft.DynamicQuantizeMatMul(x, w, t)", False),
}  # fmt: skip
"""Name -> the nodes, and whether the weight is stored as [N, K]."""

ROUNDED = "q = QuantizeLinear(x, s, z)\n c = Transpose(x)\n"

ACTIVATIONS_IN_ITS_PLACE: dict[str, tuple[str, bool]] = {
    "int8": (f"{ROUNDED} d = QuantizeLinear(c, s, i)\n m = MatMulInteger(q, d, z, i)", True),
    "int8, turned": (
        f"{ROUNDED} e = QuantizeLinear(x, s, i)\n d = Transpose(e)\n m = MatMulInteger(q, d, z, i)", True,
    ),
    "int8, requantized": (
        f"{ROUNDED} d = QuantizeLinear(c, s, i)\n n = QLinearMatMul(q, s, z, d, s0, i, s, z)\n m = Cast<to=6>(n)", True,
    ),
    "uint8": (f"{ROUNDED} d = QuantizeLinear(c, s, z)\n m = MatMulInteger(q, d, z, u0)", False),
    "uint8 of a dynamic range": (
        f"{ROUNDED} d, e, f = DynamicQuantizeLinear(c)\n m = MatMulInteger(q, d, z, f)", False,
    ),
    "without a zero point, which is uint8": (f"{ROUNDED} d = QuantizeLinear(c, s)\n m = MatMulInteger(q, d, z)", False),
}  # fmt: skip
"""Name -> products of two activations on integers, and whether they may break the rule."""


def model(nodes: str, weight: np.ndarray, *, turned: bool = False) -> onnx.ModelProto:
    """Return a graph of these nodes over the weight [K, N]."""
    made = parser.parse_model(f"{HEAD} {{ {nodes} }}")
    stored = weight.T if turned else weight
    columns = np.zeros(weight.shape[1], dtype=np.int8)
    values = {
        "w": np.ascontiguousarray(stored), "t": np.full(len(columns), 0.01, dtype=np.float32), "u": columns,
        "s": np.float32(0.02), "z": np.uint8(128), "rows": np.array([0, 0]), "ends": np.array([0, 0, 1, 0]),
        "from": np.array([0, 0]), "to": np.array([K, N]), "i": np.int8(0), "s0": np.float32(0.02), "u0": np.uint8(128),
    }  # fmt: skip
    used = {name for node in made.graph.node for name in node.input}
    for name in sorted(used & set(values)):
        made.graph.initializer.append(numpy_helper.from_array(np.asarray(values[name]), name))
    onnx.checker.check_model(made)
    return made


def written(folder: Path, nodes: str, *, turned: bool = False, fill: int = 127) -> Path:
    """Write a graph whose weight is `fill` everywhere."""
    path = folder / "model.onnx"
    onnx.save(model(nodes, np.full((K, N), fill, dtype=np.int8), turned=turned), path)
    return path


def float_weight() -> onnx.ModelProto:
    """Return a graph whose weight is stored as float32 and quantized in the graph, as some tools write it."""
    made = model(WAYS["MatMul"][0], np.zeros((K, N), dtype=np.int8))
    (stored,) = (tensor for tensor in made.graph.initializer if tensor.name == "w")
    made.graph.initializer.remove(stored)
    made.graph.initializer.append(numpy_helper.from_array(np.full((K, N), 1.27, dtype=np.float32), "v"))
    made.graph.node.insert(0, helper.make_node("QuantizeLinear", ["v", "t", "u"], ["w"], axis=1))
    onnx.checker.check_model(made)
    return made


BACK = "b = DequantizeLinear<axis=1>(w, t, u)\n y = MatMul(a, b)"
WITHIN = "c = Clip(x, low, high)\n"
MISSED = "d = QuantizeLinear(c, s, z)\n e = DequantizeLinear(d, s, z)\n f = Sub(c, e)\n"
REST = "q = QuantizeLinear(f, r, h)\n a = DequantizeLinear(q, r, h)\n"

PADDED = f"{WITHIN} q = QuantizeLinear(c, s, z)\n p = Pad(q, ends, z)\n a = DequantizeLinear(p, s, z)\n {BACK}"

BOUNDED = {
    "bounds": f"{WITHIN} q = QuantizeLinear(c, s, z)\n a = DequantizeLinear(q, s, z)\n {BACK}",
    "what bounds missed": f"{WITHIN} {MISSED} {REST} {BACK}",
    "codes that are padded with small ones": PADDED,
}
"""Activations that no code above 127 is needed for; s = 0.02 and z = 28, r = 0.02 / 126 and h = 64."""

UNBOUNDED = {
    "wide bounds": BOUNDED["bounds"].replace("high", "higher"),
    "no bounds": f"{ACTIVATIONS} {BACK}",
    "codes that are padded with large ones": PADDED.replace("ends, z", "ends, large"),
    "no bounds behind a padding": PADDED.replace("c, s, z", "x, s, z"),
    "bounds that are no number": BOUNDED["bounds"].replace("high", "nan"),
    "bounds of another tensor": f"{WITHIN} {ACTIVATIONS} {BACK}",
    "what was missed without bounds": BOUNDED["what bounds missed"].replace(WITHIN, "c = Identity(x)\n"),
    "what a narrower grid missed": BOUNDED["what bounds missed"].replace("high", "higher").replace(" s, z", " r, z"),
    "what was missed of another tensor": BOUNDED["what bounds missed"].replace("Sub(c, e)", "Sub(x, e)"),
    "on another grid than it was rounded to": BOUNDED["what bounds missed"].replace(
        "e = DequantizeLinear(d, s, z)", "e = DequantizeLinear(d, t0, z)"
    ),
}
"""Activations whose codes may go up to 255."""

NUMBERS = {
    "low": -0.56, "high": 1.98, "higher": 4.0, "nan": np.nan, "r": 0.02 / 126, "t0": 0.03, "s": 0.02,
}  # fmt: skip


def bounded(folder: Path, nodes: str) -> Path:
    """Write a graph of activations within bounds, whose weight is 127 everywhere."""
    made = parser.parse_model(f"{HEAD} {{ {nodes} }}")
    values = {name: np.float32(value) for name, value in NUMBERS.items()} | {
        "w": np.full((K, N), 127, np.int8), "t": np.full(N, 0.01, np.float32), "u": np.zeros(N, np.int8),
        "z": np.uint8(28), "h": np.uint8(64), "large": np.uint8(200), "ends": np.array([0, 0, 1, 0]),
    }  # fmt: skip
    used = {name for node in made.graph.node for name in node.input}
    for name in sorted(used & set(values)):
        made.graph.initializer.append(numpy_helper.from_array(np.asarray(values[name]), name))
    onnx.checker.check_model(made)
    onnx.save(made, folder / "model.onnx")
    return folder / "model.onnx"
