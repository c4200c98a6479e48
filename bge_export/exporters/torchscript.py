"""Exports a checkpoint to TorchScript: traced, frozen, and loadable with torch alone.

torch deprecates TorchScript, but Elasticsearch and libtorch hosts load no other format
(docs/how-to/torchscript.md). The file holds one function instead of a module, because a module's type name contains a
number that depends on earlier traces in the process; a function's bytes are reproducible. Its weights are constants:
choose the device with `torch.jit.load(..., map_location=...)`; `.to()` has no effect.
"""

import io
import json
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from bge_export.checkpoint.static_folder import STATIC
from bge_export.contracts import SENTENCE_EMBEDDING, Attempts, Checkpoint, ExportedModel
from bge_export.errors import ExportError, UsageError
from bge_export.files.json_files import read_object_if_there
from bge_export.formats.torchscript import ELAND_FILE, PLAIN_FILE
from bge_export.graph import tracing
from bge_export.progress import stage

ELAND_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
TWO_INPUT_TOKENIZERS = frozenset({"bart", "debertav2", "mpnet", "roberta", "xlmroberta"})
"""With these tokenizers Elasticsearch passes only the first two of `ELAND_INPUTS`, for any architecture:
multilingual-e5-small is a BERT with XLM-RoBERTa's tokenizer (`_SentenceTransformerWrapperModule` in eland's
`ml/pytorch/wrappers.py`)."""

NAMES = "bge_export.json"
"""Extra file in the archive with the names of inputs and outputs: TorchScript itself stores only input names."""

TENSOR_ALIGNMENT = 64
"""Alignment in bytes at which torch's reader maps tensors (`caffe2/serialize/inline_container.h`)."""


@dataclass(frozen=True)
class TorchScriptExporter:
    """Writes `torchscript/model.pt`, or eland's file.

    Attributes:
        sentence_embedding: whether the pooled embedding is a second output; the function then returns a tuple, else a
            tensor.
        layout: `plain` has the inputs and outputs of the ONNX artifacts. `eland` has the signature that Elasticsearch
            calls: positional inputs, and the pooled embedding as the only output, a tensor. It accepts position ids
            but ignores them, and computes positions like the checkpoint.
    """

    sentence_embedding: bool = False
    layout: Literal["plain", "eland"] = "plain"
    format: ClassVar[str] = "torchscript"
    precisions: ClassVar[tuple[str, ...]] = ("fp32",)
    tools: ClassVar[tuple[str, ...]] = ("torch", "transformers")

    @property
    def options(self) -> Mapping[str, object]:
        """Return the exporter's options."""
        return asdict(self)

    def export(self, checkpoint: Checkpoint, root: Path, precisions: Sequence[str]) -> Sequence[Attempts]:
        """Write one file.

        Raises:
            CheckpointError: the weights do not fit the architecture.
            ExportError: the model cannot be traced.
            UsageError: eland's layout is asked of a static model.
        """
        eland = self.layout == "eland"
        if eland and checkpoint.model_type == STATIC:
            raise UsageError(
                f"{checkpoint.source} is a static embedding, which reads no special tokens; Elasticsearch puts them "
                "around every text. Leave out --layout eland."
            )
        encoder = tracing.traced(checkpoint, sentence_embedding=eland or self.sentence_embedding)

        module: nn.Module
        outputs: tuple[str, ...]
        if eland:
            name, module = ELAND_FILE, _Eland(encoder, token_types=checkpoint.token_types)
            inputs, outputs = eland_inputs(checkpoint), (SENTENCE_EMBEDDING,)
        else:
            name, module, inputs = PLAIN_FILE, encoder, tracing.input_names(checkpoint)
            outputs = tracing.output_names(checkpoint, sentence_embedding=self.sentence_embedding)

        try:
            with stage(f"tracing {checkpoint.source}", 1):
                archive = _traced(module, tracing.trace_inputs(encoder.model, inputs), inputs, outputs)
        except Exception as error:
            raise ExportError(tracing.untraceable(checkpoint, error)) from error

        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_reproducibly(archive, path)
        return [iter([ExportedModel(precision, (name,), inputs, outputs)]) for precision in precisions]


class _Eland(nn.Module):
    """Wraps the encoder in eland's signature: four inputs or the first two of them, one output."""

    def __init__(self, encoder: tracing.Traced, *, token_types: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.token_types = token_types

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,  # noqa: ARG002 - part of the signature
    ) -> Tensor:
        """Return the embedding, [B, D] float32."""
        both = self.encoder(input_ids, attention_mask, token_type_ids if self.token_types else None)
        embedding: Tensor = both[1]
        return embedding


def eland_inputs(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Return the inputs that Elasticsearch passes to this checkpoint, in order; they depend on the tokenizer."""
    settings = read_object_if_there(checkpoint.root / "tokenizer_config.json")
    name = str(settings.get("tokenizer_class", "")).removesuffix("Fast")

    # A generic or missing class does not tell the family: use the architecture.
    named = name.endswith("Tokenizer") and name != "PreTrainedTokenizer"
    family = name.removesuffix("Tokenizer") if named else checkpoint.model_type.replace("-", "")

    return ELAND_INPUTS[:2] if family.lower() in TWO_INPUT_TOKENIZERS else ELAND_INPUTS


def _traced(module: nn.Module, example: Sequence[Tensor], inputs: Sequence[str], outputs: Sequence[str]) -> io.BytesIO:
    """Return the module, traced and frozen into one function, as a torch archive."""
    archive = io.BytesIO()

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the deprecation, and notes on shapes that are constant on purpose
        traced = torch.jit.trace(module, tuple(example), check_trace=False)  # type: ignore[no-untyped-call]
        frozen = torch.jit.freeze(traced.eval())

        graph = frozen.graph.copy()
        graph.eraseInput(0)  # freezing made every weight a constant, so the module itself is unused
        for value, name in zip(graph.inputs(), inputs, strict=True):
            value.setDebugName(name)
        _follow_device(graph)

        function = torch._C._create_function_from_graph("forward", graph)
        names = json.dumps({"inputs": list(inputs), "outputs": list(outputs)})
        torch.jit.save(function, archive, _extra_files={NAMES: names})

    return archive


def _follow_device(graph: torch._C.Graph) -> None:
    """Create the model's own tensors (MPNet's relative positions) on the device of its input, not of the trace.

    `map_location` moves weights, but does not change the devices written in the graph.
    """
    constants = [node for node in graph.nodes() if node.kind() == "prim::Constant"]
    devices = [node for node in constants if str(node.output().type()) == "Device"]
    if not devices:
        return

    follow = graph.create("prim::device", [next(graph.inputs())], 1)
    graph.prependNode(follow)
    follow.output().setType(torch._C.DeviceObjType.get())

    for node in devices:
        node.output().replaceAllUsesWith(follow.output())
        node.destroy()


def _write_reproducibly(archive: io.BytesIO, path: Path) -> None:
    """Write the archive without its machine-dependent parts: source paths, their hash, the name of its folder."""
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as new:
        for entry in old.namelist():
            if entry.endswith((".debug_pkl", "serialization_id")):
                continue

            # Entries are renamed, so the tensors must be aligned again: pad the header (30 bytes, name, extra field).
            info = zipfile.ZipInfo(f"model/{entry.partition('/')[2]}")  # dated 1980-01-01, the default
            start = (new.fp.tell() if new.fp else 0) + 30 + len(info.filename.encode()) + 4
            padding = -start % TENSOR_ALIGNMENT
            info.extra = b"FB" + padding.to_bytes(2, "little") + b"Z" * padding

            new.writestr(info, old.read(entry))


EXPORTER = TorchScriptExporter
