"""Passes on ONNX graphs: one a file, each `ModelProto` or `onnx_ir.Model` in, the same out."""
