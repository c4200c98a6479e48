"""Checkpoint to ONNX: traced once in float32, cleaned, then written in each precision.

Opset 17 and IR 8 are what ONNX Runtime from 1.13, onnxruntime-web 1.14 and WebGPU's float16 LayerNorm all take
(docs/decisions/0002).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import onnx
import onnx_ir as ir

from bge_export.contracts import Checkpoint, ExportedModel
from bge_export.manifest import MODEL_FILES
from bge_export.onnx_trace import trace
from bge_export.precision import fp16

IR_VERSION = 8
INLINE_LIMIT_BYTES = 2_000_000_000
"""A protobuf message ends at 2 GiB; above this the weights go into `<model>.onnx_data`, the name that JavaScript
clients and text-embeddings-inference look for."""


@dataclass(frozen=True)
class OnnxExporter:
    """Writes `onnx/model.onnx` and its other precisions.

    Attributes:
        sentence_embedding: whether the graph also returns the pooled embedding.
    """

    sentence_embedding: bool = False
    format: ClassVar[str] = "onnx"
    precisions: ClassVar[tuple[str, ...]] = ("fp32", "fp16")
    tools: ClassVar[tuple[str, ...]] = ("torch", "transformers", "optimum", "onnx", "onnx-ir", "onnxruntime")

    @property
    def options(self) -> Mapping[str, object]:
        """Return the options."""
        return asdict(self)

    def export(self, checkpoint: Checkpoint, root: Path, precisions: Sequence[str]) -> Sequence[ExportedModel]:
        """Write one file a precision below `root` and say what was written.

        Raises:
            CheckpointError: the weights do not fit the architecture.
            ExportError: the graph could not be traced.
            MissingLibrary: torch, transformers or onnxruntime is not installed.
        """
        model = trace(checkpoint, root, sentence_embedding=self.sentence_embedding)
        written: list[ExportedModel] = []
        for precision, convert in (("fp32", None), ("fp16", fp16.convert)):
            if precision in precisions:
                model = convert(model) if convert else model
                files = save(model, root, MODEL_FILES[f"onnx-{precision}"])
                inputs, outputs = (tuple(v.name for v in ends) for ends in (model.graph.input, model.graph.output))
                written.append(ExportedModel(precision, files, inputs, outputs))
        return written


def save(model: onnx.ModelProto, root: Path, name: str) -> tuple[str, ...]:
    """Write the graph to `root/name` with IR 8, inline below 2 GB; return its files, the model file first."""
    model.ir_version = IR_VERSION
    model.producer_name, model.producer_version = "bge_export", ""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if sum(len(tensor.raw_data) for tensor in model.graph.initializer) < INLINE_LIMIT_BYTES:
        path.write_bytes(model.SerializeToString(deterministic=True))
        return (name,)
    # onnx_ir, because onnx.save_model would empty the tensors that the next precision is made of.
    ir.save(ir.from_proto(model), path, external_data=f"{path.name}_data", size_threshold_bytes=1024)
    return (name, f"{name}_data")


EXPORTER = OnnxExporter
