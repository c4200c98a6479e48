"""One vector a text: a pooling of token states, divided by its norm if the model promises that."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from bge_export.contracts import DENSE_VECS, SENTENCE_EMBEDDING, Pooling, Promise, Reads
from bge_export.errors import UsageError

if TYPE_CHECKING:
    from torch.nn import Module

POOLED = (SENTENCE_EMBEDDING, DENSE_VECS)
"""Outputs that are one vector a text."""

Float = TypeVar("Float", np.float32, np.float64)


@dataclass(frozen=True)
class Dense:
    """How token states become one vector a text. What a model does after that (layers, a shorter vector) belongs here.

    Attributes:
        dim: D, the width of the vector.
        pooling: which token states form it.
        normalize: whether it is divided by its L2 norm.
    """

    kind: ClassVar[str] = "dense"
    reads: ClassVar[Literal["text", "pair"]] = "text"

    dim: int
    pooling: Pooling
    normalize: bool

    def shapes(self, output: str, texts: int, tokens: int) -> Sequence[tuple[int, ...]]:
        """Return the shapes that an output may have for B texts of S tokens: with CLS, the first state is enough."""
        if output in POOLED:
            return ((texts, self.dim),)

        states = (texts, tokens, self.dim)
        return (states, (texts, 1, self.dim)) if self.pooling == "cls" else (states,)

    def rows(
        self, outputs: Mapping[str, NDArray[np.float32]], attention_mask: NDArray[np.int64]
    ) -> Mapping[str, NDArray[np.float32]]:
        """Return output -> its vectors, [B, D] float32. Zero and non-finite ones stay, so that parity can report them.

        Args:
            outputs: `sentence_embedding` or `dense_vecs` [B, D], pooled by the graph itself; any other is token states
                [B, S, D].
            attention_mask: [B, S] int64, 1 for a token and 0 for padding, on either side.
        """
        return {
            name: given if name in POOLED else self._pooled(given, attention_mask) for name, given in outputs.items()
        }

    def _pooled(self, states: NDArray[np.float32], attention_mask: NDArray[np.int64]) -> NDArray[np.float32]:
        pooled = pool(states, attention_mask, self.pooling)
        return normalize(pooled) if self.normalize else pooled

    def module(self) -> "Module":
        """Return the head in torch: states [B, S, D] and mask [B, S] -> [B, D]."""
        from bge_export.heads._dense_module import DenseModule

        return DenseModule(self.dim, self.pooling, normalize=self.normalize)


def pool(states: NDArray[Float], attention_mask: NDArray[np.int64], pooling: Pooling) -> NDArray[Float]:
    """Return [B, D] of states [B, S, D] in their own precision; the mask [B, S] marks the tokens."""
    if pooling == "cls":
        return states[:, 0]

    if pooling == "mean":
        weights = attention_mask[:, :, None].astype(states.dtype)
        pooled: NDArray[Float] = (states * weights).sum(axis=1) / weights.sum(axis=1)
        return pooled

    # Counted from the end, since the texts of a batch may be padded on the left too.
    ends = attention_mask.shape[1] - 1 - np.argmax(attention_mask[:, ::-1] != 0, axis=1)
    last: NDArray[Float] = states[np.arange(len(states)), ends]
    return last


def normalize(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return [B, D] float32 rows divided by their L2 norm; a zero row stays zero, a non-finite one becomes NaN."""
    wide = rows.astype(np.float64)
    norms = np.sqrt((wide * wide).sum(axis=1, keepdims=True))

    with np.errstate(invalid="ignore"):
        return (wide / np.where(norms == 0.0, 1.0, norms)).astype(np.float32)


NO_EMBEDDINGS = "This model is a reranker: it scores pairs and gives no embeddings. Give an embedding model."
OTHER_HEADS = (
    "This model gives token weights or a vector for each token (its heads: {}), and this is about one vector a text. "
    "Give an embedding model, or a folder that was exported with --as embedding."
)


def without_embeddings(kinds: Collection[str]) -> str:
    """Return why a model with heads of these kinds is none that gives one vector a text."""
    return NO_EMBEDDINGS if "score" in kinds else OTHER_HEADS.format(", ".join(kinds))


def dense_head(promise: Promise) -> Dense:
    """Return the dense head of a model that gives nothing else.

    Raises:
        UsageError: it has another head, alone or beside it: whoever knows vectors alone would drop that. Ask
            `Promise.only_dense` first where another head has another answer.
    """
    head = promise.heads.get(Dense.kind)
    if not isinstance(head, Dense) or not promise.only_dense:
        raise UsageError(without_embeddings(promise.heads))
    return head


HEAD = Dense

UNDECLARED = Promise(Reads(0, {}), {Dense.kind: Dense(0, "cls", normalize=True)})
"""Taken as the promise of a bare file, which declares none: the cheapest pooling, zero for unknown width and length."""
