"""Converts ONNX graphs to other precisions: graph in, graph out."""
