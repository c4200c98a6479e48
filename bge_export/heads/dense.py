"""One vector a text: a pooling of token states, the layers that follow it, and division by the norm if promised."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from bge_export.contracts import COMMON_POOLINGS, DENSE_VECS, SENTENCE_EMBEDDING, InputSpec, ModelSpec, Pooling
from bge_export.errors import UsageError
from bge_export.heads.layers import LEAST, Layer, Tensors, apply_layers

if TYPE_CHECKING:
    from torch.nn import Module

POOLED = (SENTENCE_EMBEDDING, DENSE_VECS)
"""Outputs that are one vector a text."""

Float = TypeVar("Float", np.float32, np.float64)


@dataclass(frozen=True)
class DenseHead:
    """How token states become one vector a text.

    Attributes:
        dim: D, the width of the vector.
        pooling: which token states form it.
        normalize: whether it is divided by its L2 norm, after everything else.
        layers: what lies between pooling and that division, in this order; nothing in most models.
    """

    kind: ClassVar[str] = "dense"
    reads: ClassVar[Literal["text", "pair"]] = "text"

    dim: int
    pooling: Pooling
    normalize: bool
    layers: tuple[Layer, ...] = ()

    def __post_init__(self) -> None:
        """Take layers as they stand in files too."""
        layers = tuple(one if isinstance(one, Layer) else Layer(**one) for one in self.layers)
        object.__setattr__(self, "layers", layers)

    @property
    def state_dim(self) -> int:
        """Return the width of the token states."""
        return self.layers[0].reads if self.layers else self.dim

    @property
    def in_graph(self) -> bool:
        """Return whether graphs must give the vector themselves: clients leave layers out, and pool in few ways."""
        return bool(self.layers) or self.pooling not in COMMON_POOLINGS

    @property
    def pooled(self) -> "DenseHead":
        """Return the head without the layers after pooling."""
        return DenseHead(self.state_dim, self.pooling, self.normalize)

    def with_weights(self, tensors: Sequence[Tensors]) -> "WeightedDense":
        """Return the head with the weights of its layers, which `rows` needs for states; one entry a layer."""
        return WeightedDense(self.dim, self.pooling, self.normalize, self.layers, tuple(tensors))

    def shapes(self, output: str, texts: int, tokens: int) -> Sequence[tuple[int, ...]]:
        """Return the shapes that an output may have for B texts of S tokens: with CLS, the first state is enough."""
        if output in POOLED:
            return ((texts, self.dim),)

        states = (texts, tokens, self.state_dim)
        return (states, (texts, 1, self.state_dim)) if self.pooling == "cls" else (states,)

    def rows(
        self, outputs: Mapping[str, NDArray[np.float32]], attention_mask: NDArray[np.int64]
    ) -> Mapping[str, NDArray[np.float32]]:
        """Return output -> its vectors, [B, D] float32. Zero and non-finite ones stay, so that parity can report them.

        Args:
            outputs: `sentence_embedding` or `dense_vecs` [B, D], made by the graph itself; any other is token states
                [B, S, D].
            attention_mask: [B, S] int64, 1 for a token and 0 for padding, on either side.
        """
        return {
            name: given if name in POOLED else self._vectors(given, attention_mask) for name, given in outputs.items()
        }

    def _vectors(self, states: NDArray[np.float32], attention_mask: NDArray[np.int64]) -> NDArray[np.float32]:
        vectors = self._after(pool(states, attention_mask, self.pooling))
        return normalize(vectors) if self.normalize else vectors

    def _after(self, pooled: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return pooled states through the layers."""
        if any(layer.weighted for layer in self.layers):
            raise UsageError(
                "These layers have weights, without which states give no vector: `with_weights` adds them."
            )
        return apply_layers(pooled, self.layers, [{}] * len(self.layers))

    def module(self, tensors: Sequence[Tensors] = (), *, may_be_empty: bool = False) -> "Module":
        """Return the head in torch: states [B, S, D] and mask [B, S] -> [B, D].

        Args:
            tensors: the weights of its layers.
            may_be_empty: whether texts may have no tokens.
        """
        from bge_export.heads._dense_module import DenseModule

        return DenseModule(
            self.state_dim,
            self.pooling,
            normalize=self.normalize,
            layers=self.layers,
            tensors=tensors,
            may_be_empty=may_be_empty,
        )


@dataclass(frozen=True)
class WeightedDense(DenseHead):
    """A dense head that knows the weights of its layers. It stands in no file.

    Attributes:
        tensors: the weights of each layer.
    """

    tensors: tuple[Tensors, ...] = field(default=(), compare=False, repr=False)

    def _after(self, pooled: NDArray[np.float32]) -> NDArray[np.float32]:
        return apply_layers(pooled, self.layers, self.tensors)


def pool(states: NDArray[Float], attention_mask: NDArray[np.int64], pooling: Pooling) -> NDArray[Float]:
    """Return [B, D] of states [B, S, D] in their own precision; the mask [B, S] marks the tokens.

    A mean is summed in float64: one after the other, a thousand states in float32 lose the sixth digit.
    """
    if pooling == "cls":
        return states[:, 0]

    if pooling == "mean":
        # A text without tokens has the zero vector; with special tokens there is none.
        weights = attention_mask[:, :, None].astype(states.dtype)
        total = (states * weights).sum(axis=1, dtype=np.float64)
        pooled: NDArray[Float] = (total / np.maximum(weights.sum(axis=1), 1)).astype(states.dtype)
        return pooled

    if pooling == "max":
        found: NDArray[Float] = (
            np.where(attention_mask[:, :, None] != 0, states, LEAST).astype(states.dtype).max(axis=1)
        )
        return found

    if pooling in ("mean_sqrt_len", "weightedmean"):
        return _weighed(states, attention_mask, pooling)

    # Counted from the end, since the texts of a batch may be padded on the left too.
    ends = attention_mask.shape[1] - 1 - np.argmax(attention_mask[:, ::-1] != 0, axis=1)
    last: NDArray[Float] = states[np.arange(len(states)), ends]
    return last


def _weighed(states: NDArray[Float], attention_mask: NDArray[np.int64], pooling: Pooling) -> NDArray[Float]:
    """Return the sum of all tokens by the root of their number, or their mean weighed by their places."""
    kept = np.minimum(attention_mask, 1)
    weights = kept if pooling == "mean_sqrt_len" else kept * np.cumsum(kept, axis=1)
    total = weights.sum(axis=1, keepdims=True).astype(states.dtype)
    by = np.sqrt(total) if pooling == "mean_sqrt_len" else total

    pooled: NDArray[Float] = (states * weights[:, :, None].astype(states.dtype)).sum(axis=1) / by
    return pooled


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


def dense_head(spec: ModelSpec) -> DenseHead:
    """Return the dense head of a model that gives nothing else.

    Raises:
        UsageError: it has another head, alone or beside it: whoever knows vectors alone would drop that. Ask
            `ModelSpec.only_dense` first where another head has another answer.
    """
    head = spec.heads.get(DenseHead.kind)
    if not isinstance(head, DenseHead) or not spec.only_dense:
        raise UsageError(without_embeddings(spec.heads))
    return head


def required_outputs(spec: ModelSpec) -> tuple[str, ...]:
    """Return the outputs that every file of a spec must have; none of a model whose clients pool token states."""
    if not spec.only_dense:
        return spec.outputs
    return (SENTENCE_EMBEDDING,) if dense_head(spec).in_graph else ()


HEAD = DenseHead

UNDECLARED = ModelSpec(InputSpec(0, {}), {DenseHead.kind: DenseHead(0, "cls", normalize=True)})
"""Taken as the spec of a bare file, which declares none: the cheapest pooling, zero for unknown width and length."""
