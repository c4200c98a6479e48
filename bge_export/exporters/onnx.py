"""Exports a checkpoint to ONNX: traces it once in float32, arranges the graph and writes it in each precision.

ONNX Runtime from 1.13, onnxruntime-web 1.14 and WebGPU's float16 LayerNorm all support opset 17 and IR 8
(docs/decisions/0002).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import onnx
import onnx_ir as ir

from bge_export.contracts import Attempts, Checkpoint, ExportedModel
from bge_export.encoder.arrange import arrange_floats
from bge_export.exporters import started
from bge_export.graph.trace import trace
from bge_export.precision import find_conversion, find_precision, model_file, precision_names, precisions
from bge_export.precision.int8.quantize import Quantized, quantize
from bge_export.precision.int8_options import Int8Options
from bge_export.progress import stage

IR_VERSION = 8
TRACED = "as traced"
"""Key of the graph that precisions of no other precision are converted from."""

INLINE_LIMIT_BYTES = 2_000_000_000
"""A protobuf message is limited to 2 GiB; larger weights go into `<model>.onnx_data`, the name that JavaScript clients
and text-embeddings-inference look for."""


@dataclass(frozen=True)
class OnnxExporter:
    """Writes `onnx/model.onnx` and its variants in other precisions.

    Attributes:
        sentence_embedding: whether the graph also returns the pooled embedding.
        int8: options of int8 quantization.
    """

    sentence_embedding: bool = False
    int8: Int8Options = field(default_factory=Int8Options)
    format: ClassVar[str] = "onnx"
    precisions: ClassVar[tuple[str, ...]] = precision_names("onnx")
    tools: ClassVar[tuple[str, ...]] = ("torch", "transformers", "onnx", "onnx-ir", "onnxruntime")

    @property
    def options(self) -> Mapping[str, object]:
        """Return the exporter's options."""
        return asdict(self) | {"int8": self.int8.record()}

    def export(self, checkpoint: Checkpoint, root: Path, precisions: Sequence[str]) -> Sequence[Attempts]:
        """Write one file per precision below `root`.

        Raises:
            CheckpointError: the weights do not fit the architecture.
            ExportError: the graph cannot be traced.
            MissingLibrary: torch, transformers or onnxruntime is not installed.
        """
        with stage(f"tracing {checkpoint.source}", 1):
            traced = trace(checkpoint, root, sentence_embedding=self.sentence_embedding)

        written: dict[str, Attempts] = {}
        if others := [precision for precision in self.precisions if precision in precisions and precision != "int8"]:
            graphs = {TRACED: traced, "fp32": arrange_floats(traced)}
            if "int8" not in precisions and all(find_precision(name).of for name in others if name != "fp32"):
                traced = graphs[TRACED] = graphs["fp32"]  # frees the weights of the traced graph

            for precision in others:
                with stage(f"onnx-{precision}", 1):
                    model = _made(precision, graphs, checkpoint)
                written[precision] = iter([_save_model(model, root, precision)])
            del graphs, model  # quantizing needs the memory

        if "int8" in precisions:
            variants = quantize(traced, checkpoint, self.int8, "sequence-major")
            written["int8"] = started(_saved_variants(variants, root))

        return [written[precision] for precision in self.precisions if precision in written]


def _saved_variants(variants: Iterator[Quantized], root: Path) -> Attempts:
    for variant in variants:
        yield replace(_save_model(variant.model, root, "int8"), facts=variant.facts)


def _save_model(model: onnx.ModelProto, root: Path, precision: str) -> ExportedModel:
    files = save(model, root, model_file("onnx", precision))
    inputs, outputs = (tuple(v.name for v in values) for values in (model.graph.input, model.graph.output))
    return ExportedModel(precision, files, inputs, outputs)


def _made(precision: str, graphs: dict[str, onnx.ModelProto], checkpoint: Checkpoint) -> onnx.ModelProto:
    """Return the graph in a precision; cache it in `graphs` if other precisions are converted from it."""
    if precision in graphs:
        return graphs[precision]

    # A copy, because the conversion may modify its graph.
    copy = onnx.ModelProto()
    copy.CopyFrom(_made(find_precision(precision).of or TRACED, graphs, checkpoint))
    model = find_conversion(precision)(copy, checkpoint)

    if any(other.of == precision for other in precisions("onnx")):
        graphs[precision] = model

    return model


def save(model: onnx.ModelProto, root: Path, name: str) -> tuple[str, ...]:
    """Write the graph to `root/name` with IR 8, weights inline below 2 GB; return its files, the model file first."""
    model.ir_version = IR_VERSION
    model.producer_name, model.producer_version = "bge_export", ""

    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)

    if sum(len(tensor.raw_data) for tensor in model.graph.initializer) < INLINE_LIMIT_BYTES:
        path.write_bytes(model.SerializeToString(deterministic=True))
        return (name,)

    # onnx_ir, because onnx.save_model would clear the tensors that the next precision is converted from.
    ir.save(ir.from_proto(model), path, external_data=f"{path.name}_data", size_threshold_bytes=1024)
    return (name, f"{name}_data")


EXPORTER = OnnxExporter
