"""What the operators of ONNX and ONNX Runtime do with int8 weights and 8-bit activations."""

from collections.abc import Mapping

INTEGER_PRODUCTS: Mapping[str, tuple[int | None, int]] = {
    "MatMulInteger": (0, 1),
    "MatMulIntegerToFloat": (0, 1),
    "QLinearMatMul": (0, 3),
    "QGemm": (0, 3),
    "QAttention": (0, 1),
    "DynamicQuantizeMatMul": (None, 1),
    "ConvInteger": (0, 1),
    "QLinearConv": (0, 3),
}
"""Operator -> indices of its left operand, None if it is float, and of its right one, the weight; both have 8 bits."""

FLOAT_PRODUCTS = ("MatMul", "FusedMatMul", "TransposeMatMul", "Gemm", "FusedGemm")
"""Products of two float tensors that runtimes compute with 8 bits if both are dequantized."""

CONVOLUTIONS = ("Conv", "FusedConv", "NhwcFusedConv", "ConvInteger", "QLinearConv")
"""Operators whose weight is [N, K / groups, ...]: K channels, then the positions of the kernel."""

OTHER_PRODUCTS = (
    "Attention",
    "ConvTranspose",
    "DecoderAttention",
    "DeformConv",
    "DynamicQuantizeLSTM",
    "Einsum",
    "GRU",
    "GroupQueryAttention",
    "LSTM",
    "MultiHeadAttention",
    "PackedAttention",
    "PackedMultiHeadAttention",
    "RNN",
)
"""Products whose pairs are not computed here: an int8 weight beside 8-bit activations counts as saturating."""

PRODUCTS = frozenset({*INTEGER_PRODUCTS, *FLOAT_PRODUCTS, *CONVOLUTIONS, *OTHER_PRODUCTS})

SHAPING = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Flatten")
"""Operators that leave each value unchanged: runtimes move them across the quantization."""

SELECTING = ("Slice", "Gather")
"""Operators that drop some values."""

ADDING = ("Pad", "Concat", "Split", "Expand", "Tile")
"""Further operators whose results are still 8-bit activations, but may mix several grids."""

MOVING = (*SHAPING, *SELECTING, "Concat", "Split", "Expand", "Tile", "Where")
"""Operators whose result consists of values of their inputs: they move quantized values as they move real ones."""

ARITHMETIC = ("Add", "Sub", "Mul", "Div")
"""With a constant a part of dequantization, as in `(w - zero) * scale`; of two other tensors a float result."""

ELEMENTWISE = (
    *ARITHMETIC, "Where", "Min", "Max", "Clip", "Abs", "Neg", "Sign", "Round", "Floor", "Ceil", "Relu", "Cast",
    "Equal", "Less", "Greater", "Not", "And", "Or",
)  # fmt: skip

EVALUATED = frozenset(
    {*MOVING, *ADDING, *ELEMENTWISE, "Constant", "ConstantOfShape", "QuantizeLinear", "DequantizeLinear"}
)
"""Operators that are computed if all their inputs are constant."""

SAME_KIND = frozenset(
    {*SHAPING, *SELECTING, *ADDING, *ARITHMETIC, "Where", "Min", "Max", "Clip", "Abs", "Neg", "Relu", "MaxPool",
     "AveragePool", "GlobalMaxPool", "GlobalAveragePool", "GatherElements", "GatherND", "Dropout"}
)  # fmt: skip
"""Operators whose result has the element type of their first input (of `Where`, the second)."""

FORGETTING = frozenset({
    "ArgMax", "ArgMin", "BiasGelu", "BiasSoftmax", "ConstantOfShape", "Cos", "EmbedLayerNormalization", "Equal", "Erf",
    "Exp", "FastGelu", "Gelu", "Greater", "GreaterOrEqual", "GroupNormalization", "HardSigmoid", "HardSwish",
    "InstanceNormalization", "IsInf", "IsNaN", "LayerNormalization", "Less", "LessOrEqual", "Log", "LogSoftmax",
    "LpNormalization", "MatMulBnb4", "MatMulNBits", "Mish", "NonZero", "Not", "Pow", "QuickGelu", "RMSNormalization",
    "Range", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceProd", "ReduceSumSquare", "Sigmoid",
    "SimplifiedLayerNormalization", "Sin", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "Softmax",
    "Softplus", "Sqrt", "Swish", "Tanh",
})  # fmt: skip
"""Operators whose result is a new float tensor: its inputs' quantization is of no use for it. Those are not among them
that OpenVINO moves before a dequantization, as it does with `ReduceMax`."""

SHAPES = ("Shape", "Size")
"""Operators that look at no value of their input."""

QUANTIZED_NEIGHBOURS = frozenset({
    "DequantizeLinear", "GatherBlockQuantized", "QEmbedLayerNormalization", "QLinearAdd", "QLinearAveragePool",
    "QLinearConcat", "QLinearGlobalAveragePool", "QLinearLeakyRelu", "QLinearMul", "QLinearReduceMean",
    "QLinearSigmoid", "QLinearSoftmax", "QLinearWhere", "QuantizeLinear",
})  # fmt: skip
"""Operators of ONNX Runtime that take 8-bit tensors and hold no product."""
