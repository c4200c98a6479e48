"""What some runtimes and sessions can do besides `contracts`: further seams, found by being there."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from bge_export.contracts import Artifact


@runtime_checkable
class SelectiveRuntime(Protocol):
    """A runtime that has no way to load some artifacts of its formats on some devices."""

    def reads(self, artifact: Artifact, device: str) -> bool:
        """Return whether it has a way to load the artifact there; True for a device that it does not know."""


@runtime_checkable
class ClientSession(Protocol):
    """A session in a client that has a tokenizer and a pipeline of its own, as its users call it."""

    def tokenize(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Return the ids that the client's tokenizer makes of each text."""

    def embed_text(self, text: str) -> NDArray[np.float32]:
        """Return what the client's pipeline makes of a text, [D] float32, pooled and normalised by the client."""
