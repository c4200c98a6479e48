"""ONNX graph in, ONNX graph of another precision out: one file a precision."""
