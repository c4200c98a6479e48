"""Folders that hold a file of ONNX Runtime's dynamic quantization under the name of our int8 file."""

from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

from bge_export.bundle.manifest import read_manifest, write_manifest
from bge_export.checkpoint.opening import open_checkpoint
from bge_export.precision import model_file


def present_as_int8(folder: Path, checkpoint: Path, *, per_channel: bool) -> None:
    """Replace the float32 file of an exported folder by a dynamically quantized one that claims to be `onnx-int8`.

    The manifest is written anew, so that nothing but the vectors can tell the gate.

    Args:
        folder: what `bge-export onnx` wrote with float32 alone.
        checkpoint: what it was exported from.
        per_channel: whether each output channel of a weight has a scale of its own.
    """
    wide, rounded = folder / model_file("onnx", "fp32"), folder / model_file("onnx", "int8")

    # Otherwise it warns that shapes should be inferred first, which they have been.
    model = onnx.load(wide)
    model.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    quantize_dynamic(model, rounded, per_channel=per_channel, weight_type=QuantType.QInt8)
    wide.unlink()

    (record,) = read_manifest(folder).models
    presented = record.model_copy(update={"target": "onnx-int8", "files": [model_file("onnx", "int8")], "options": {}})
    write_manifest(folder, open_checkpoint(checkpoint), [presented], checked=False)
