"""Passes on ONNX graphs, one per file: each takes a `ModelProto` or an `onnx_ir.Model` and returns the same type."""
