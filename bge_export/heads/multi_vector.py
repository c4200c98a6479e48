"""One vector for each token of a text, compared by MaxSim: each token of a query with its nearest of a document."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from bge_export.contracts import ModelSpec
from bge_export.errors import UsageError

if TYPE_CHECKING:
    from torch.nn import Module


@dataclass(frozen=True)
class MultiVectorHead:
    """How token states become one vector a token.

    Attributes:
        dim: M, the width of each vector.
        skipped: how many tokens at the beginning have no vector: the first, [CLS], in BGE-M3, else none. Models that
            skip it also give zeros for padding; others give a vector for every place, since the tokens by which
            ColBERT expands a query count although the mask leaves them out.
        normalize: whether each vector is divided by its L2 norm.
    """

    kind: ClassVar[str] = "multi_vector"
    reads: ClassVar[Literal["text", "pair"]] = "text"

    dim: int
    skipped: int = 0
    normalize: bool = True

    def shapes(self, output: str, texts: int, tokens: int) -> Sequence[tuple[int, ...]]:  # noqa: ARG002 - as a head
        """Return the shape of the vectors for B texts of S tokens."""
        return ((texts, tokens - self.skipped, self.dim),)

    def rows(
        self,
        outputs: Mapping[str, NDArray[np.float32]],
        attention_mask: NDArray[np.int64],  # noqa: ARG002 - as a head
    ) -> Mapping[str, NDArray[np.float32]]:
        """Return output -> its vectors, as the graph gives them."""
        return dict(outputs)

    def token_rows(self, vectors: NDArray[np.float32], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the vectors [T, M] of one text's tokens, from those of every place [S - skipped, M] and its mask."""
        given: NDArray[np.float32] = vectors[mask[self.skipped :] != 0]
        return given

    def module(self) -> "Module":
        """Return what follows the head's linear layers in torch."""
        from bge_export.heads._token_modules import TokenVectors

        return TokenVectors(self.skipped, normalize=self.normalize)


def vectors_head(spec: ModelSpec) -> MultiVectorHead:
    """Return the spec's head of this kind.

    Raises:
        UsageError: it has none.
    """
    head = spec.heads.get(MultiVectorHead.kind)
    if not isinstance(head, MultiVectorHead):
        raise UsageError("This model gives no vectors of tokens. Give one that does.")
    return head


HEAD = MultiVectorHead
