"""Exports a checkpoint to ONNX: traces it once in float32, arranges the graph and writes it in each precision.

ONNX Runtime from 1.13, onnxruntime-web 1.14 and WebGPU's float16 LayerNorm all support opset 17 and IR 8
(docs/decisions/0002).
"""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import onnx

from bge_export.contracts import Attempts, Checkpoint, ExportedModel
from bge_export.encoder.arrange import arrange_floats
from bge_export.exporters import started
from bge_export.graph.answers import answers_only
from bge_export.graph.saving import save
from bge_export.graph.trace import trace
from bge_export.memory import release
from bge_export.precision import find_conversion, find_precision, model_file, precision_names
from bge_export.precision.int8.quantize import Quantized, quantize
from bge_export.precision.int8_options import Int8Options
from bge_export.progress import stage

TRACED = "as traced"
"""Key of the graph that precisions of no other precision are converted from."""


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
            graphs = _Graphs(checkpoint, trace(checkpoint, root, sentence_embedding=self.sentence_embedding))

        wanted = [precision for precision in self.precisions if precision in precisions]
        written: dict[str, Attempts] = {}
        for number, precision in enumerate(wanted):
            if precision == "int8":
                continue
            with stage(f"onnx-{precision}", 1):
                model = graphs.take(precision, later=wanted[number + 1 :])
                written[precision] = iter([_save_model(model, checkpoint, root, precision)])
                del model  # the next conversion needs the memory

        if "int8" in wanted:
            variants = quantize(graphs.take(TRACED, later=()), checkpoint, self.int8, "sequence-major")
            written["int8"] = started(_saved_variants(variants, checkpoint, root))

        return [written[precision] for precision in self.precisions if precision in written]


def _saved_variants(variants: Iterator[Quantized], checkpoint: Checkpoint, root: Path) -> Attempts:
    for variant in variants:
        yield replace(_save_model(variant.model, checkpoint, root, "int8"), facts=variant.facts)


def _save_model(given: onnx.ModelProto, checkpoint: Checkpoint, root: Path, precision: str) -> ExportedModel:
    model = answers_only(given, checkpoint.spec)
    files = save(model, root, model_file("onnx", precision))
    inputs, outputs = (tuple(v.name for v in values) for values in (model.graph.input, model.graph.output))
    return ExportedModel(precision, files, inputs, outputs)


class _Graphs:
    """The graphs that others are converted from, each kept until the last of those is made."""

    def __init__(self, checkpoint: Checkpoint, traced: onnx.ModelProto) -> None:
        """Begin with the graph as traced."""
        self._checkpoint = checkpoint
        self._known = {TRACED: traced}

    def take(self, name: str, *, later: Sequence[str]) -> onnx.ModelProto:
        """Return the graph of a precision, or as traced, which the caller may change.

        Args:
            name: the precision.
            later: the precisions that are still to be made after it.
        """
        if name not in self._known:
            self._known[name] = self._made(name, later)
        return self._given(name, {*self._known}, later)

    def _made(self, name: str, later: Sequence[str]) -> onnx.ModelProto:
        """Return a graph that is not known yet, from the one that it is converted from."""
        source = find_precision(name).of or TRACED
        if source not in self._known:
            self._known[source] = self._made(source, (name, *later))

        known = {*self._known, name}
        if name != "fp32":
            return find_conversion(name)(self._given(source, known, later), self._checkpoint)

        # It has weights of its own, unless the graph is none that can be arranged.
        arranged = arrange_floats(self._known[source])
        if arranged is self._known[source]:
            return self._given(source, known, later)
        if not _needed(source, known, later):
            del self._known[source]
        return arranged

    def _given(self, name: str, known: Set[str], later: Sequence[str]) -> onnx.ModelProto:
        """Return a known graph, or a copy if a later precision is made from it."""
        if _needed(name, known, later):
            copy = onnx.ModelProto()
            copy.CopyFrom(self._known[name])
            return copy

        graph = self._known.pop(name)
        release()
        return graph


def _needed(name: str, known: Set[str], later: Sequence[str]) -> bool:
    """Return whether a graph is the nearest known one that a later precision is made from."""
    return name in (next(source for source in (other, *_sources(other)) if source in known) for other in later)


def _sources(precision: str) -> Sequence[str]:
    """Return the graphs that a precision is made from, the nearest first; quantizing to int8 arranges its own."""
    source = TRACED if precision == "int8" else find_precision(precision).of or TRACED
    return (source,) if source == TRACED else (source, *_sources(source))


EXPORTER = OnnxExporter
