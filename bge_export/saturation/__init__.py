"""The pair rule, without which int8 weights give other vectors on processors that lack VNNI.

Such a processor (x86 with AVX2, or AVX-512 before Cascade Lake) multiplies uint8 by int8 with an instruction that adds
the products of two neighbouring inputs, 2i and 2i + 1, in a saturating 16-bit integer. With weights w and v of the same
sign 255 * (|w| + |v|) must stay below 32768: |w| + |v| may be 128 at most. Those of opposite signs cannot saturate.
Inputs that a file keeps to codes up to 127 leave all 8 bits to their weights. Where two activations are multiplied as
integers, the right ones take the place of weights; such a product counts as one weight with one pair.

One file a format says which weights of an artifact are multiplied so, found by its name. This module needs numpy alone.
"""

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
"""What two neighbouring weights of the same sign may sum to in size."""

Weights: TypeAlias = Iterator[tuple[str, NDArray[np.int8], int]]
"""Name and integers [..., K, N], inputs first, of each int8 weight that is multiplied with 8-bit activations, and the
greatest code that these can have."""


@dataclass(frozen=True)
class PairFacts:
    """How the int8 weights of one file keep the rule.

    Attributes:
        weights: how many of them are multiplied with 8-bit activations; one that is multiplied twice counts twice.
        pairs: how many pairs of neighbouring inputs they have.
        broken: how many of those break the rule.
        first: the name of the first weight with such a pair.
        first_broken: how many that one has.
    """

    weights: int
    pairs: int
    broken: int
    first: str | None
    first_broken: int


def broken_pairs(integers: NDArray[np.int8], greatest: int = GREATEST_CODE) -> int:
    """Return how many pairs of rows 2i and 2i + 1 of [..., K, N] break the rule; a last row without partner cannot.

    Args:
        integers: the weight.
        greatest: code of its inputs.
    """
    even = integers[..., : integers.shape[-2] // 2 * 2, :].astype(np.int16)
    one, other = even[..., 0::2, :], even[..., 1::2, :]
    return int(
        ((np.sign(one) == np.sign(other)) & (np.abs(one) + np.abs(other) > GREATEST_SUM // max(greatest, 1))).sum()
    )


def pair_facts(weights: Iterable[tuple[str, NDArray[np.int8], int]]) -> PairFacts:
    """Return the facts of named weights, each [..., K, N] with the greatest code of its inputs."""
    count = pairs = broken = first_broken = 0
    first = None
    for name, integers, greatest in weights:
        found = broken_pairs(integers, greatest)
        count += 1
        pairs += integers.size // max(integers.shape[-2], 1) * (integers.shape[-2] // 2)
        broken += found
        if found and first is None:
            first, first_broken = name, found
    return PairFacts(count, pairs, broken, first, first_broken)


def facts_of(path: Path, format_name: str) -> PairFacts:
    """Return the facts of a file.

    Raises:
        ArtifactError: the file cannot be read.
        MissingLibrary: the library that reads the format is not installed.
        UsageError: no such format is read.
    """
    return pair_facts(find(__name__, format_name, "int8_weights")(path))


def known_facts(artifacts: Iterable[Artifact]) -> dict[str, PairFacts]:
    """Return digest -> facts of each artifact whose weights can be looked at here.

    An artifact is left out where its format has no integers or its library is missing, and where the file is damaged,
    which its runtime says better. The gate refuses those that needed the facts.
    """
    found: dict[str, PairFacts] = {}
    for artifact in artifacts:
        if artifact.target.format in names(__name__):
            try:
                found[artifact.digest] = facts_of(artifact.root / artifact.model, artifact.target.format)
            except (ArtifactError, MissingLibrary):
                continue
    return found
