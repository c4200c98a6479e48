"""Optional capabilities of runtimes and sessions beyond `contracts`, detected with `isinstance`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from bge_export.contracts import Artifact, Session, TokenBatch


@runtime_checkable
class SelectiveRuntime(Protocol):
    """A runtime that cannot load every artifact of its formats on every device."""

    def reads(self, artifact: Artifact, device: str) -> bool:
        """Return whether it can load the artifact on the device; True for an unknown device."""


@runtime_checkable
class ClientRuntime(Protocol):
    """A runtime whose sessions run in separate client processes."""

    def open_together(self, artifacts: Sequence[Artifact], device: str, threads: int) -> Sequence[Session]:
        """Open several artifacts side by side in one client; closing one session closes all."""

    def stage(self, artifact: Artifact, donors: Sequence[Path], stage: Path) -> Artifact:
        """Return a bare model file as an artifact of a folder that clients can load, built in the empty `stage`."""


@runtime_checkable
class TimedSession(Protocol):
    """A session whose client measures its own time and memory; this process and the transport do not count."""

    def seconds(self, batch: TokenBatch, least: float) -> float:
        """Return the median seconds per run by the client's clock: one untimed run, then `least` seconds of runs."""

    def peak_bytes(self) -> int | None:
        """Return the client's peak memory in bytes; None if it is unknown."""


@runtime_checkable
class ClientSession(Protocol):
    """A session whose client has its own tokenizer and pipeline, called as the client's users call them."""

    def tokenize(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Return the token ids of each text, by the client's tokenizer."""

    def embed_text(self, text: str) -> NDArray[np.float32]:
        """Return the embedding of a text by the client's pipeline, [D] float32, pooled and normalised by the client."""
