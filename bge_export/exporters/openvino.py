"""Exports a checkpoint to OpenVINO IR, converted from the tidy ONNX graph that the ONNX exporter writes.

Converting from ONNX instead of the torch module gives fewer operators at equal speed, and the right names
(docs/decisions/0010).
"""

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import onnx
import openvino

from bge_export.contracts import Attempts, Checkpoint, ExportedModel
from bge_export.errors import ExportError, UsageError
from bge_export.exporters import started
from bge_export.graph.answers import answers_only
from bge_export.graph.trace import trace
from bge_export.precision import model_file
from bge_export.precision.int8.quantize import Quantized, quantize
from bge_export.precision.int8_options import Int8Options
from bge_export.progress import stage

CONVERSION = re.compile(r"\n\t*<conversion_parameters>.*?</conversion_parameters>", re.DOTALL)
"""OpenVINO's record of the conversion, removed because it includes the path of the source file."""


@dataclass(frozen=True)
class OpenVinoExporter:
    """Writes `openvino_model.xml` and `.bin`; fp16 stores float16 weights as `openvino/openvino_model_fp16.xml`.

    fp32 stands at the top of the folder, the only place where optimum-intel, LlamaIndex and LangChain look unasked;
    sentence-transformers looks there first. Elsewhere they would convert the PyTorch weights and run those.

    fp16 keeps its name even if it is the only precision: a target has one name in every folder, so that a folder can
    be extended (docs/decisions/0012), and consumers that load `openvino_model.xml` by default never get another
    precision. Only the weights are rounded: OpenVINO does not round scalars that float16 cannot represent, so that
    arithmetic whose result becomes an index (MPNet's distance buckets) gives the same indices; a test counts them.

    int8 stores the quantized weights of the ONNX int8 file, in the layout that OpenVINO runs fastest.

    Attributes:
        sentence_embedding: whether the graph also returns the pooled embedding.
        static_shape: fixed batch size and sequence length, which NPUs need; None for dynamic sizes.
        int8: options of int8 quantization.
    """

    sentence_embedding: bool = False
    static_shape: tuple[int, int] | None = None
    int8: Int8Options = field(default_factory=Int8Options)
    format: ClassVar[str] = "openvino"
    precisions: ClassVar[tuple[str, ...]] = ("fp32", "fp16", "int8")
    tools: ClassVar[tuple[str, ...]] = (
        "torch",
        "transformers",
        "onnx",
        "onnx-ir",
        "onnxruntime",
        "openvino",
    )

    @property
    def options(self) -> Mapping[str, object]:
        """Return the exporter's options."""
        return asdict(self) | {"int8": self.int8.record()}

    def export(self, checkpoint: Checkpoint, root: Path, precisions: Sequence[str]) -> Sequence[Attempts]:
        """Write one pair of files per precision below `root`.

        Raises:
            CheckpointError: the weights do not fit the architecture.
            ExportError: the model cannot be traced or converted.
            UsageError: the static length differs from the checkpoint's maximum length.
        """
        longest = checkpoint.spec.inputs.max_tokens
        if self.static_shape and self.static_shape[1] != longest:
            raise UsageError(
                f"A length of {self.static_shape[1]} is not the checkpoint's: it takes {longest} tokens, and longer "
                f"texts would be cut short. Use --static-shape {self.static_shape[0]}x{longest}."
            )

        with stage(f"tracing {checkpoint.source}", 1):
            graph = trace(checkpoint, root, sentence_embedding=self.sentence_embedding)

        written: list[Attempts] = []
        if "int8" in precisions:  # first, because the conversion clears the graph
            variants = quantize(graph, checkpoint, self.int8, "batch-major")
            written.append(started(self._saved_variants(variants, checkpoint, root)))

        if floats := [precision for precision in precisions if precision != "int8"]:
            model = self._converted(graph, checkpoint, root)
            written += [iter([_save(model, graph, root, precision)]) for precision in floats]

        return written

    def _saved_variants(self, variants: Iterator[Quantized], checkpoint: Checkpoint, root: Path) -> Attempts:
        for variant in variants:
            model = self._converted(variant.model, checkpoint, root)
            yield replace(_save(model, variant.model, root, "int8"), facts=variant.facts)

    def _converted(self, graph: onnx.ModelProto, checkpoint: Checkpoint, root: Path) -> openvino.Model:
        with tempfile.TemporaryDirectory(dir=root) as folder:
            path = Path(folder) / "model.onnx"
            onnx.save_model(answers_only(graph, checkpoint.spec), path, save_as_external_data=True, location="weights")

            try:
                model = openvino.convert_model(path)
                if self.static_shape:
                    shape = openvino.PartialShape(list(self.static_shape))
                    model.reshape({value.name: shape for value in graph.graph.input})
            except Exception as error:
                raise ExportError(f"{checkpoint.source}: OpenVINO cannot convert the graph: {error}") from error

            _number_unnamed(model)
            return model


def _number_unnamed(model: openvino.Model) -> None:
    """Rename nodes with generated names by their index, because OpenVINO numbers them across the whole process."""
    for index, node in enumerate(model.get_ordered_ops()):
        if re.fullmatch(r"\w+_\d+", node.get_friendly_name()):
            node.set_friendly_name(f"{node.get_type_name()}:{index}")


def _save(model: openvino.Model, graph: onnx.ModelProto, root: Path, precision: str) -> ExportedModel:
    inputs, outputs = (tuple(v.name for v in values) for values in (graph.graph.input, graph.graph.output))
    name = model_file("openvino", precision)
    path = root / name
    path.parent.mkdir(exist_ok=True)

    openvino.save_model(model, path, compress_to_fp16=precision == "fp16")
    path.write_text(CONVERSION.sub("", path.read_text("utf-8")), "utf-8")

    return ExportedModel(precision, (name, str(Path(name).with_suffix(".bin"))), inputs, outputs)


EXPORTER = OpenVinoExporter
