"""One number a pair: the logit of a query and a text, by which a reranker sorts the texts of a query."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ScoreHead:
    """The logits as the classifier gives them: without a sigmoid, which rounds everything good to 1.

    The classifier has weights, so it is always part of the graph: nothing else can be scored from its token states.

    Attributes:
        labels: L, the number of logits, which is 1.
    """

    kind: ClassVar[str] = "score"
    reads: ClassVar[Literal["text", "pair"]] = "pair"

    labels: int = 1

    def shapes(self, output: str, texts: int, tokens: int) -> Sequence[tuple[int, ...]]:  # noqa: ARG002 - as a head
        """Return the shape of every output for B pairs, whatever their length: [B, L]."""
        return ((texts, self.labels),)

    def rows(
        self,
        outputs: Mapping[str, NDArray[np.float32]],
        attention_mask: NDArray[np.int64],  # noqa: ARG002 - as a head
    ) -> Mapping[str, NDArray[np.float32]]:
        """Return output -> its logits, [B, L] float32, as the graph gives them."""
        return dict(outputs)


HEAD = ScoreHead
