"""Conversions of ONNX graphs to other precisions, one module per precision: graph in, graph out."""
