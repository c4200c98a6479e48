"""What the operators of OpenVINO do with int8 weights and 8-bit activations."""

DEQUANTIZING = ("Convert", "Subtract", "Multiply")
SHAPING = ("Transpose", "Reshape", "Squeeze", "Unsqueeze")
SELECTING = ("Gather", "Slice", "StridedSlice")
PADDING = "Pad"
PASSED = (*SHAPING, *SELECTING, PADDING, "Concat", "Split", "VariadicSplit", "Broadcast")
"""Operators whose results are still 8-bit activations if their inputs are."""

MOVING = (*SHAPING, *SELECTING, "Concat", "Split", "VariadicSplit", "Broadcast", "Tile", "Select")
"""Operators whose result consists of values of their inputs: they move quantized values as they move real ones."""

ARITHMETIC = ("Add", "Subtract", "Multiply", "Divide")
"""With a constant a part of dequantization; of two other tensors a float result."""

INTEGERS = ("i8", "u8")
LEVELS = 256

CONVOLUTIONS = ("Convolution", "GroupConvolution")
OTHER_PRODUCTS = frozenset({
    "AUGRUCell", "AUGRUSequence", "BinaryConvolution", "ConvolutionBackpropData", "DeformableConvolution", "Einsum",
    "GRUCell", "GRUSequence", "GroupConvolutionBackpropData", "LSTMCell", "LSTMSequence", "RNNCell", "RNNSequence",
    "ScaledDotProductAttention",
})  # fmt: skip
"""Products whose pairs are not computed here: an int8 weight beside 8-bit activations counts as saturating."""

PRODUCTS = frozenset({"MatMul", *CONVOLUTIONS, *OTHER_PRODUCTS})

CONTROL_FLOW = ("If", "Loop", "TensorIterator")

FORGETTING = frozenset({
    "Cos", "Equal", "Erf", "Exp", "Gelu", "Greater", "GreaterEqual", "GroupNormalization", "HSigmoid", "HSwish", "Less",
    "LessEqual", "Log", "LogSoftmax", "LogicalNot", "MVN", "Mish", "NormalizeL2", "NotEqual", "Power", "RMS", "Range",
    "ReduceL1", "ReduceL2", "ReduceProd", "Sigmoid",
    "Sin", "SoftMax", "SoftPlus", "Softmax", "Sqrt", "SquaredDifference", "Swish", "Tanh",
})  # fmt: skip
"""Operators whose result is a new float tensor: its inputs' quantization is of no use for it. Those are not among them
that OpenVINO moves before a dequantization, as it does with `ReduceMax`."""

SHAPES = ("ShapeOf",)
"""Operators that look at no value of their input."""
