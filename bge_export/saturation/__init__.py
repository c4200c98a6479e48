"""The saturation constraint on int8 weights: if violated, results are wrong on x86 processors without VNNI.

Such processors (AVX2, or AVX-512 before Cascade Lake) multiply uint8 by int8 with `vpmaddubsw`, which adds the products
of two neighbouring inputs, 2i and 2i + 1, in a saturating 16-bit integer. For weights w and v of the same sign,
255 * (|w| + |v|) must stay below 32768, so |w| + |v| is at most 128. Weights of opposite signs cannot saturate. If the
file limits the inputs to quantized values up to 127, the weights may use all 8 bits. If two activations are multiplied
as integers, the right operand is treated as the weight; such a product counts as one weight with one pair.

One module per format, found by its name, yields the weights of an artifact that are multiplied with 8-bit activations.
Whatever carries an int8 weight to a product is followed; a weight that cannot be followed counts as one pair that
saturates, and its name says why. This module itself needs only numpy.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from bge_export.contracts import Artifact
from bge_export.errors import ArtifactError, MissingLibrary
from bge_export.plugins import find, names
from bge_export.saturation.bounds import GREATEST_CODE

GREATEST_SUM = 2**15 - 1

PAIR_SUM = GREATEST_SUM // GREATEST_CODE
"""Largest allowed |w| + |v| of two neighbouring weights of the same sign."""

Weights: TypeAlias = Iterator[tuple[str, NDArray[np.int8], int]]
"""For each int8 weight that is multiplied with 8-bit activations: its name, its integers [..., K, N] (inputs first),
and qmax, the largest quantized value that the activations can have."""


MOST_LETTERS = 300
"""Longest name of a weight with the reason why it cannot be followed."""


@dataclass(frozen=True)
class PairFacts:
    """Saturation statistics of the int8 weights of one file.

    Attributes:
        weights: number of weights multiplied with 8-bit activations; a weight used by two products counts twice.
        pairs: number of pairs of neighbouring inputs in these weights.
        saturating: number of pairs that can saturate.
        first: name of the first weight with a saturating pair, and the reason if it cannot be followed.
        first_saturating: number of saturating pairs in that weight.
    """

    weights: int
    pairs: int
    saturating: int
    first: str | None
    first_saturating: int


def unfollowed(name: str, reason: str) -> tuple[str, NDArray[np.int8], int]:
    """Return what stands for a weight that cannot be followed: one pair that saturates."""
    return f"{name} (it cannot be followed: {reason})"[:MOST_LETTERS], np.full((2, 1), 127, np.int8), GREATEST_CODE


def saturating_pairs(integers: NDArray[np.int8], greatest: int = GREATEST_CODE) -> int:
    """Return the number of pairs of rows 2i and 2i + 1 of [..., K, N] that can saturate; an unpaired last row cannot.

    Args:
        integers: the weight.
        greatest: qmax of its inputs.
    """
    # int16, because |-128| overflows int8.
    even = integers[..., : integers.shape[-2] // 2 * 2, :].astype(np.int16)
    one, other = even[..., 0::2, :], even[..., 1::2, :]

    return int(
        ((np.sign(one) == np.sign(other)) & (np.abs(one) + np.abs(other) > GREATEST_SUM // max(greatest, 1))).sum()
    )


def kernel_columns(integers: NDArray[np.int8]) -> NDArray[np.int8]:
    """Return the weight of a convolution, [N, K, ...], as columns of inputs; runtimes put channels first or last."""
    orders = [integers, np.moveaxis(integers, 1, -1)][: 1 if math.prod(integers.shape[2:]) == 1 else 2]
    return np.concatenate([order.reshape(len(integers), -1).T for order in orders], axis=1)


def pair_facts(weights: Iterable[tuple[str, NDArray[np.int8], int]]) -> PairFacts:
    """Return the statistics of named weights, each [..., K, N] with the qmax of its inputs."""
    count = pairs = saturating = first_saturating = 0
    first = None

    for name, integers, greatest in weights:
        found = saturating_pairs(integers, greatest)
        count += 1
        pairs += integers.size // max(integers.shape[-2], 1) * (integers.shape[-2] // 2)
        saturating += found

        if found and first is None:
            first, first_saturating = name, found

    return PairFacts(count, pairs, saturating, first, first_saturating)


def checked_formats() -> tuple[str, ...]:
    """Return the formats whose int8 weights can be read."""
    return names(__name__)


def facts_of(path: Path, format_name: str) -> PairFacts:
    """Return the saturation statistics of a file.

    Raises:
        ArtifactError: the file cannot be read.
        MissingLibrary: the library that reads the format is not installed.
        UsageError: the format is not supported.
    """
    return pair_facts(find(__name__, format_name, "int8_weights")(path))


def known_facts(artifacts: Iterable[Artifact]) -> dict[str, PairFacts]:
    """Return digest -> statistics of each artifact whose weights can be read here.

    An artifact is skipped if its format has no integers or its library is missing; the gate refuses it if it needs the
    statistics. A file that cannot be read counts as saturating: a runtime may still read it.
    """
    found: dict[str, PairFacts] = {}

    for artifact in artifacts:
        if artifact.target.format in checked_formats():
            try:
                found[artifact.digest] = facts_of(artifact.root / artifact.model, artifact.target.format)
            except MissingLibrary:
                continue
            except ArtifactError as error:
                found[artifact.digest] = pair_facts([unfollowed(artifact.model, str(error))])

    return found
