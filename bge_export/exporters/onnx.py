"""Checkpoint to ONNX: traced once in float32, cleaned, then written in each precision.

Opset 17 and IR 8 are what ONNX Runtime from 1.13, onnxruntime-web 1.14 and WebGPU's float16 LayerNorm all take
(docs/decisions/0002). Traced with torch's TorchScript exporter, which writes opset 17 itself (docs/decisions/0001).
"""

import gc
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import onnx
import onnx_ir as ir

from bge_export.contracts import Checkpoint, ExportedModel
from bge_export.errors import ExportError, MissingLibrary
from bge_export.manifest import MODEL_FILES

OPSET, IR_VERSION = 17, 8
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
        try:
            from bge_export.graph.tidy import tidy
            from bge_export.precision import fp16
        except ImportError as error:
            raise MissingLibrary("torch and onnxscript", "export", "exporting to ONNX") from error
        model = tidy(trace(checkpoint, root, sentence_embedding=self.sentence_embedding))
        gc.collect()  # graphs refer in circles to the weights they were read from
        written: list[ExportedModel] = []
        for precision, convert in (("fp32", None), ("fp16", fp16.convert)):
            if precision in precisions:
                model = convert(model) if convert else model
                files = save(model, root, MODEL_FILES[f"onnx-{precision}"])
                inputs, outputs = (tuple(v.name for v in ends) for ends in (model.graph.input, model.graph.output))
                written.append(ExportedModel(precision, files, inputs, outputs))
        return written


def trace(checkpoint: Checkpoint, scratch: Path, *, sentence_embedding: bool) -> onnx.ModelProto:
    """Return the encoder as torch traces it, float32, any batch size and length.

    Args:
        checkpoint: the model.
        scratch: a folder with room for the weights; nothing stays in it.
        sentence_embedding: whether the pooled embedding is a second output.

    Raises:
        ExportError: torch cannot trace the architecture.
    """
    import torch

    from bge_export import tracing

    encoder = tracing.traced_encoder(checkpoint, sentence_embedding=sentence_embedding)
    inputs = tracing.input_names(checkpoint)
    outputs = tracing.output_names(sentence_embedding=sentence_embedding)
    tokens = {0: "batch_size", 1: "sequence_length"}
    axes = dict.fromkeys((*inputs, outputs[0]), tokens) | {name: {0: "batch_size"} for name in outputs[1:]}
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        path = Path(folder) / "traced.onnx"
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the exporter's deprecation and its remarks on constant shapes
                torch.onnx.export(
                    encoder, tracing.trace_inputs(encoder.model, inputs), path, dynamo=False, opset_version=OPSET,
                    input_names=list(inputs), output_names=list(outputs), dynamic_axes=axes,
                )  # fmt: skip
        except OSError:
            raise
        except Exception as error:
            raise ExportError(
                f"{checkpoint.source}: torch cannot trace {checkpoint.model_type!r}: {error}. "
                "Please report the architecture."
            ) from error
        return onnx.load(path)


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
