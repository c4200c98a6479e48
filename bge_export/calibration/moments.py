"""Computes second moments of the inputs of a graph's matrix products, over the package's calibration texts.

In an encoder that `reading` can match, each token is weighted by how far an error there moves the embedding
(docs/decisions/0015); in any other graph all tokens have equal weight.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from bge_export.calibration.hessian import hessian
from bge_export.calibration.objective import Objective, objective_of
from bge_export.calibration.observing import Batch, backward, batches, groups
from bge_export.calibration.texts import calibration_rows, calibration_tokenizer
from bge_export.contracts import Checkpoint
from bge_export.encoder.encoder import POINTS, Encoder, Layer
from bge_export.encoder.matching import UnknownGraph
from bge_export.encoder.reading import read_encoder
from bge_export.texts.tokens import TextTokenizer

if TYPE_CHECKING:
    import onnxruntime

IR_VERSION = 8
"""Set explicitly: onnx writes its newest version, which onnxruntime may not support yet."""

SHARE_OF_ALL = 1.0
"""Weight of the unweighted mean, relative to 1 for the importance-weighted mean. With 0.3, a text that repeats one
word, each token of low importance, moves by 0.053 on bge-small-en, beyond its limit; with 1 it moves by 0.030."""

Moments = Mapping[str, NDArray[np.float32]]
"""Name of a weight [K, N] -> mean of x xᵀ over its input tokens x, [K, K] float32."""


def input_moments(model: onnx.ModelProto, products: Sequence[onnx.NodeProto], checkpoint: Checkpoint) -> Moments:
    """Return the moments of each product's input.

    Args:
        model: a float32 graph of the checkpoint.
        products: its products of a computed tensor and a constant matrix.
        checkpoint: provides the tokenizer and the pooling of the embedding.
    """
    tokenizer = calibration_tokenizer(checkpoint)
    rows = calibration_rows(tokenizer, None)

    weighted: Moments = {}
    try:
        encoder = read_encoder(model)
    except UnknownGraph:
        pass
    else:
        weighted = weighted_moments(encoder, objective_of(checkpoint), batches(encoder, rows, tokenizer.pad))

    # The products outside of the encoder's layers, or all if the graph is unknown.
    rest = [node for node in products if node.input[1] not in weighted]
    return {**weighted, **(second_moments(model, rest, rows, tokenizer) if rest else {})}


def weighted_moments(encoder: Encoder, objective: Objective, texts: Sequence[Batch]) -> Moments:
    """Return the moments of an encoder's weights, each token weighted by how far an error there moves the embedding."""
    generator = torch.Generator().manual_seed(1)
    sums: dict[str, _Sums] = {}

    for batch in texts:
        for layer_index, trace, gradients in backward(encoder, objective, batch, generator):
            for point, gradient in gradients.items():
                x = trace.inputs[point][batch.mask].detach()
                lengths = gradient[batch.mask].square().sum(-1).sqrt()
                added = _Sums(hessian(x, lengths), x.T @ x, lengths.sum().item(), len(x))

                # Layers may share a weight: then it covers the tokens of all of them.
                for name in _sources(encoder.layers[layer_index], point):
                    sums[name] = sums[name].joined(added) if name in sums else added

    return {name: each.moments() for name, each in sums.items()}


@dataclass(frozen=True)
class _Sums:
    """Sums over tokens: of length * x xᵀ and of x xᵀ, [K, K] each, and of the lengths; and the number of tokens."""

    weighted: torch.Tensor
    plain: torch.Tensor
    length: float
    count: int

    def joined(self, other: "_Sums") -> "_Sums":
        return _Sums(
            self.weighted + other.weighted,
            self.plain + other.plain,
            self.length + other.length,
            self.count + other.count,
        )

    def moments(self) -> NDArray[np.float32]:
        mean = self.weighted / max(self.length, 1e-30)
        result: NDArray[np.float32] = ((mean + SHARE_OF_ALL * self.plain / self.count) / (1 + SHARE_OF_ALL)).numpy()
        return result


def _sources(layer: Layer, point: str) -> tuple[str, ...]:
    """Return the names of the weights at a quantization point."""
    if point == POINTS[0]:
        return layer.query.source, layer.key.source, layer.value.source
    return (getattr(layer, point).source,)


def second_moments(
    model: onnx.ModelProto, products: Sequence[onnx.NodeProto], rows: Sequence[Sequence[int]], tokenizer: TextTokenizer
) -> Moments:
    """Run a graph on token rows and return the moments of its products, without padding.

    Args:
        model: a float32 graph.
        products: nodes of the graph; their first input is [B, S, K] float32, or [..., K] if it has not one row per
            token.
        rows: token ids of each text.
        tokenizer: pads the rows.
    """
    names = list(dict.fromkeys(node.input[0] for node in products))
    session = _probe(model, names)
    inputs = [value.name for value in session.get_inputs()]

    sums: dict[str, NDArray[np.float32]] = {}
    counts: dict[str, int] = {}

    for group in groups([len(row) for row in rows]):
        batch = tokenizer.pad([rows[index] for index in group])
        mask = batch.attention_mask > 0

        for name, values in zip(names, session.run(names, batch.feed(inputs)), strict=True):
            tokens = values[mask] if values.shape[:-1] == mask.shape else values.reshape(-1, values.shape[-1])
            counts[name] = counts.get(name, 0) + len(tokens)
            product = tokens.T @ tokens
            sums[name] = sums[name] + product if name in sums else product

    return {node.input[1]: sums[node.input[0]] / np.float32(counts[node.input[0]]) for node in products}


def _probe(model: onnx.ModelProto, names: Sequence[str]) -> "onnxruntime.InferenceSession":
    """Return a session of the graph with the named tensors as outputs."""
    import onnxruntime

    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.ir_version = IR_VERSION

    del probe.graph.output[:]
    probe.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names)

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # hides warnings about outputs without shapes

    # External data, because a protobuf message is limited to 2 GiB.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe.onnx"
        onnx.save_model(probe, path, save_as_external_data=True, location="weights")
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
