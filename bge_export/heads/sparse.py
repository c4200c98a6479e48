"""Weights of tokens: how much each token of a text, or of the vocabulary, stands for what the text is about."""

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
class SparseHead:
    """Token weights, none below zero.

    BGE-M3 gives one weight for each token of the text; whoever reads them keeps the largest of each token id, and none
    of the ids that are `unused`. SPLADE gives one weight for each token of the vocabulary, and has nothing to drop.

    Attributes:
        per: whether there is one weight a token of the text, or one a token of the vocabulary.
        vocabulary: V, the number of token ids.
        unused: the ids whose weights count for nothing, in ascending order.
        pooling: per vocabulary, how the weights of a text's tokens become one.
        log_twice: per vocabulary, whether log(1 + x) is taken of them a second time.
    """

    kind: ClassVar[str] = "sparse"
    reads: ClassVar[Literal["text", "pair"]] = "text"

    per: Literal["token", "vocabulary"]
    vocabulary: int
    unused: tuple[int, ...] = ()
    pooling: Literal["max", "sum"] = "max"
    log_twice: bool = False

    def shapes(self, output: str, texts: int, tokens: int) -> Sequence[tuple[int, ...]]:  # noqa: ARG002 - as a head
        """Return the shape of the weights for B texts of S tokens: [B, S] or [B, V]."""
        return ((texts, tokens if self.per == "token" else self.vocabulary),)

    def rows(
        self,
        outputs: Mapping[str, NDArray[np.float32]],
        attention_mask: NDArray[np.int64],  # noqa: ARG002 - as a head
    ) -> Mapping[str, NDArray[np.float32]]:
        """Return output -> its weights, as the graph gives them."""
        return dict(outputs)

    def by_id(self, weights: NDArray[np.float32], ids: Sequence[int]) -> dict[int, float]:
        """Return token id -> weight of one text, for each weight that counts.

        Args:
            weights: those of the text's S tokens, or of the V tokens of the vocabulary.
            ids: the ids of the text's S tokens.
        """
        if self.per == "vocabulary":
            return {int(one): float(weights[one]) for one in np.flatnonzero(weights)}

        largest: dict[int, float] = {}
        for token, weight in zip(ids, weights.tolist(), strict=True):
            if weight > largest.get(token, 0.0) and token not in self.unused:
                largest[token] = weight
        return largest

    def module(self) -> "Module":
        """Return the last step of the head in torch; a linear layer comes before it if the weights are per token."""
        from bge_export.heads._token_modules import TokenWeights, VocabularyWeights

        if self.per == "token":
            return TokenWeights()
        return VocabularyWeights(self.pooling, log_twice=self.log_twice)


def sparse_head(spec: ModelSpec) -> SparseHead:
    """Return the spec's head of this kind.

    Raises:
        UsageError: it has none.
    """
    head = spec.heads.get(SparseHead.kind)
    if not isinstance(head, SparseHead):
        raise UsageError("This model gives no token weights. Give one that does.")
    return head


HEAD = SparseHead
