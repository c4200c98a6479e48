"""Shapes of the timed batches, and the random token batch of each shape, which is the same for every file."""

from dataclasses import dataclass

import numpy as np

from bge_export.contracts import TokenBatch
from bge_export.errors import UsageError


@dataclass(frozen=True)
class Shape:
    """A number of texts and of tokens per text, written `8x64`."""

    texts: int
    tokens: int

    @classmethod
    def parse(cls, written: str) -> "Shape":
        """Read the written form.

        Raises:
            UsageError: the text is not a valid shape.
        """
        texts, x, tokens = written.partition("x")
        if not (x and texts.isdecimal() and tokens.isdecimal() and int(texts) and int(tokens)):
            raise UsageError(f"{written!r} is not a shape. Write texts and tokens, such as 1x16 or 8x64.")
        return cls(int(texts), int(tokens))

    def __str__(self) -> str:
        """Return the written form."""
        return f"{self.texts}x{self.tokens}"

    def batch(self, vocabulary: int, seed: int) -> TokenBatch:
        """Return a batch of random ids in [0, vocabulary), without padding; the ids do not affect the time."""
        ids = np.random.default_rng([seed, self.texts, self.tokens]).integers(
            vocabulary, size=(self.texts, self.tokens), dtype=np.int64
        )
        return TokenBatch(ids, np.ones_like(ids), np.zeros_like(ids))


SHAPES = (Shape(1, 16), Shape(1, 64), Shape(1, 256), Shape(8, 64), Shape(32, 32))
"""The default shapes: a query, a sentence, a passage, and two batches of sentences."""
