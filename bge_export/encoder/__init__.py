"""A transformer encoder as data: read from an ONNX graph, folded, reordered and run."""
