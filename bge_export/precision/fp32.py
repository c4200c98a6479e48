"""The precision fp32: the graph as it is traced."""

from bge_export.precision import Holds, Precision, Step

PRECISION = Precision(
    "fp32",
    bits=32,
    of=None,
    help="float32, as the checkpoint computes",
    holds=Holds("float32", 0.99, tables=True),
    table=Step(22, "value"),
    files={"onnx": "onnx/model.onnx", "openvino": "openvino_model.xml"},
    client_dtype="fp32",
)
"""The file names are the ones that Transformers.js, text-embeddings-inference, sentence-transformers and optimum-intel
load by default."""
