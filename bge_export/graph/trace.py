"""Traces a checkpoint into a tidy ONNX graph in memory, the start of the ONNX and the OpenVINO exporters.

torch's TorchScript-based exporter does the tracing, because it writes opset 17 directly (docs/decisions/0001).
"""

import tempfile
import warnings
from pathlib import Path

import onnx
import torch

from bge_export.contracts import Checkpoint
from bge_export.errors import ExportError
from bge_export.graph import token_heads, tracing
from bge_export.graph.tidy import tidy
from bge_export.memory import release

OPSET = 17


def trace(checkpoint: Checkpoint, scratch: Path, *, sentence_embedding: bool) -> onnx.ModelProto:
    """Return the model as a textbook float32 graph with dynamic batch size and sequence length.

    The first output is the last hidden state, of a reranker too: `graph.answers` takes it out when its file is written.

    Args:
        checkpoint: the model.
        scratch: a folder with room for the weights; the temporary files in it are removed.
        sentence_embedding: whether the pooled embedding is a second output.

    Raises:
        ExportError: torch cannot trace the architecture.
    """
    encoder = tracing.traced(checkpoint, sentence_embedding=sentence_embedding, states=True)
    inputs = tracing.input_names(checkpoint)
    outputs = tracing.output_names(checkpoint, sentence_embedding=sentence_embedding, states=True)

    tokens = {0: "batch_size", 1: "sequence_length"}
    axes = dict.fromkeys((*inputs, outputs[0]), tokens) | {name: token_heads.axes(name) for name in outputs[1:]}

    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        path = Path(folder) / "traced.onnx"
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the exporter's deprecation and its notes on constant shapes
                torch.onnx.export(
                    encoder,
                    tracing.trace_inputs(encoder.model, inputs),
                    path,
                    dynamo=False,
                    opset_version=OPSET,
                    input_names=list(inputs),
                    output_names=list(outputs),
                    dynamic_axes=axes,
                )
        except OSError:
            raise
        except Exception as error:
            raise ExportError(tracing.untraceable(checkpoint, error)) from error

        # Each copy of the weights goes before the next is made.
        del encoder
        release()
        traced = onnx.load(path)

    graph = tidy(traced)
    release()
    return graph
