"""Writes a quantized encoder as an ONNX graph."""
