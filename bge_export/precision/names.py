"""File names of the written models, one per target."""

from collections.abc import Mapping

MODEL_FILES: Mapping[str, str] = {
    "onnx-fp32": "onnx/model.onnx",
    "onnx-fp16": "onnx/model_fp16.onnx",
    "onnx-int8": "onnx/model_quantized.onnx",
    "onnx-uint8": "onnx/model_uint8.onnx",
    "onnx-int8-dynamic": "onnx/model_int8.onnx",
    "onnx-q4": "onnx/model_q4.onnx",
    "onnx-q4f16": "onnx/model_q4f16.onnx",
    "onnx-bnb4": "onnx/model_bnb4.onnx",
    "openvino-fp32": "openvino/openvino_model.xml",
    "openvino-fp16": "openvino/openvino_model_fp16.xml",
    "openvino-int8": "openvino/openvino_model_qint8_quantized.xml",
}
"""Target -> the file that consumers look for: Transformers.js (`src/utils/dtypes.js` of version 4),
text-embeddings-inference, sentence-transformers and optimum-intel. The last two load `openvino_model.xml` by default
and any other file by its name."""
