"""What some runtimes and sessions can do besides `contracts`: further seams, found by being there."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from bge_export.contracts import Artifact, Session, TokenBatch


@runtime_checkable
class SelectiveRuntime(Protocol):
    """A runtime that has no way to load some artifacts of its formats on some devices."""

    def reads(self, artifact: Artifact, device: str) -> bool:
        """Return whether it has a way to load the artifact there; True for a device that it does not know."""


@runtime_checkable
class ClientRuntime(Protocol):
    """A runtime whose sessions are clients in processes of their own."""

    def open_together(self, artifacts: Sequence[Artifact], device: str, threads: int) -> Sequence[Session]:
        """Open several artifacts beside each other in one client; closing one closes all."""

    def stage(self, artifact: Artifact, donors: Sequence[Path], stage: Path) -> Artifact:
        """Return a bare model file as an artifact of a folder that the clients load, made in the empty `stage`."""


@runtime_checkable
class TimedSession(Protocol):
    """A session in a client, which times and weighs itself: the way to it and this process are left out."""

    def seconds(self, batch: TokenBatch, least: float) -> float:
        """Return the median seconds of a run by the client's clock: one untimed, then over `least` seconds of runs."""

    def peak_bytes(self) -> int | None:
        """Return the most memory that the client has held, in bytes; None where nothing says."""


@runtime_checkable
class ClientSession(Protocol):
    """A session in a client that has a tokenizer and a pipeline of its own, as its users call it."""

    def tokenize(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Return the ids that the client's tokenizer makes of each text."""

    def embed_text(self, text: str) -> NDArray[np.float32]:
        """Return what the client's pipeline makes of a text, [D] float32, pooled and normalised by the client."""
