"""Readers of the hidden states inside an artifact, used to locate drift: one module per format, found by its name."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from bge_export.contracts import Artifact, TokenBatch
from bge_export.plugins import find, names

States: TypeAlias = list[NDArray[np.float32]]
ReadStates: TypeAlias = Callable[[Artifact, TokenBatch], States]
"""Artifact and one text -> the output of every layer normalisation in the encoder, in order, each [S, D] float32."""


def readable_formats() -> tuple[str, ...]:
    """Return the formats whose states can be read."""
    return names(__name__)


def find_states(format_name: str) -> ReadStates:
    """Return the reader of a format.

    Raises:
        UsageError: the format has no reader.
        MissingLibrary: its library is not installed.
    """
    read: ReadStates = find(__name__, format_name, "read_states")
    return read
