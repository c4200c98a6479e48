"""A small checkpoint of every architecture, ready for the steps of the int8 recipe."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from architectures import Kind, build

from bge_export.calibration.observing import Batch, batches
from bge_export.checkpoint.opening import open_checkpoint
from bge_export.contracts import Checkpoint, TokenBatch
from bge_export.encoder.encoder import Encoder
from bge_export.encoder.forward import run
from bge_export.encoder.reading import read_encoder
from bge_export.graph.trace import trace
from bge_export.texts.tokens import TextTokenizer

TEXTS = (
    "hello world", "the dog sleeps in the garden", "bees find their way home by the sun", "a question", "!",
    "water and bread; the weather today is good, the last ferry leaves at nine", "cat cat cat cat cat cat cat cat",
    "vectors of questions and passages", "the cat sleeps in the house and the dog in the garden 0123",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Sample:
    """A small checkpoint, its graph, its encoder, and texts ready for both."""

    checkpoint: Checkpoint
    model: onnx.ModelProto
    encoder: Encoder
    tokens: TokenBatch
    batch: Batch
    batches: list[Batch]

    def states(self, encoder: Encoder) -> torch.Tensor:
        """Return the last hidden states of the batch, [B, S, H], zero at padding."""
        parts = batches(encoder, self.rows, self.pad)
        assert len(parts) == 1
        with torch.no_grad():
            # the prelude's own sum of embeddings: the batch holds the state after the read encoder's normalisation
            return run(encoder, self.embedded, parts[0].bias) * parts[0].mask[..., None]

    rows: list[tuple[int, ...]]
    pad: Callable[..., TokenBatch]
    embedded: torch.Tensor


def make_sample(kind: Kind, folder: Path) -> Sample:
    checkpoint = open_checkpoint(str(build(kind, folder / kind, "cls")))
    model = trace(checkpoint, folder, sentence_embedding=False)
    encoder = read_encoder(model)
    tokenizer = TextTokenizer.load(checkpoint.root, checkpoint.spec.inputs.max_tokens)
    rows = sorted(tokenizer.encode(TEXTS), key=len)
    tokens = tokenizer.pad(rows)
    (batch,) = batches(encoder, rows, tokenizer.pad)
    session = onnxruntime.InferenceSession(encoder.prelude.SerializeToString(), providers=["CPUExecutionProvider"])
    embedded = session.run(None, tokens.feed([value.name for value in session.get_inputs()]))[0]
    return Sample(checkpoint, model, encoder, tokens, batch, [batch], rows, tokenizer.pad, torch.from_numpy(embedded))


def run_graph(model: onnx.ModelProto, tokens: TokenBatch) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feed = tokens.feed([value.name for value in session.get_inputs()])
    return np.asarray(session.run(["last_hidden_state"], feed)[0])


def cosines(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    a, b = some.astype(np.float64), others.astype(np.float64)
    return np.asarray((a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1))
