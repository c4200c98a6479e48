"""Scores artifacts on sentence pairs: Spearman correlation of cosines with human scores, as in MTEB's STS tasks.

A score shows whether a small error matters; it does not replace parity, which detects errors that no score shows.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bge_export.contracts import Artifact, Runtime
from bge_export.errors import MissingLibrary, TextsError
from bge_export.evaluate.embedding import embed
from bge_export.files.regular import TEXTS_BYTES, read_regular_text

BYTE_ORDER_MARK = "\ufeff"
"""What some editors put before the first character of a UTF-8 file."""

COLUMNS = ("score", "sentence1", "sentence2")


@dataclass(frozen=True)
class Pairs:
    """P pairs of sentences and their gold scores, [P] float64."""

    name: str
    first: tuple[str, ...]
    second: tuple[str, ...]
    scores: NDArray[np.float64]


@dataclass(frozen=True)
class PairScore:
    """The score of one output of one artifact, Spearman x 100."""

    target: str
    output: str
    runtime: str
    device: str
    pairs: int
    spearman: float


def read_pairs(path: Path) -> Pairs:
    """Read a .tsv file with the columns score, sentence1 and sentence2; quotes are ordinary characters.

    Raises:
        TextsError: the file is missing or malformed.
    """
    try:
        content = read_regular_text(path, TEXTS_BYTES).removeprefix(BYTE_ORDER_MARK)
        header, *lines = content.removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise TextsError(f"{path} cannot be read: {error}.") from error

    names = header.split("\t")
    if missing := [name for name in COLUMNS if name not in names]:
        raise TextsError(f"{path} has no column {missing[0]!r}; it needs {', '.join(COLUMNS)}.")

    score, first, second = (names.index(name) for name in COLUMNS)
    try:
        rows = [line.split("\t") for line in lines]
        scores = np.asarray([float(row[score]) for row in rows])
        pairs = Pairs(path.parent.name, tuple(r[first] for r in rows), tuple(r[second] for r in rows), scores)
    except (ValueError, IndexError) as error:
        raise TextsError(f"{path}: a line has no number under 'score' or too few cells: {error}.") from error

    if len(pairs.scores) < 2 or not np.isfinite(scores).all():
        raise TextsError(f"{path}: a correlation needs two pairs at least, each with a finite score.")
    if (scores == scores[0]).all():
        raise TextsError(f"{path}: every pair has the score {scores[0]:g}, and no correlation with that is defined.")
    return pairs


def score_pairs(
    artifact: Artifact,
    runtime: Runtime,
    device: str,
    threads: int,
    pairs: Pairs,
) -> list[PairScore]:
    """Return the score of each output of the artifact; progress counts texts.

    Raises:
        MeasurementError: the artifact cannot be run, or returned vectors whose cosine is undefined.
        MissingLibrary: scipy is not installed.
    """
    try:
        from scipy.stats import spearmanr
    except ImportError as error:
        raise MissingLibrary("scipy", "evaluate", "correlations") from error

    embedded = embed(artifact, runtime, device, threads, (*pairs.first, *pairs.second))
    count = len(pairs.first)

    scores = []
    for output, rows in embedded.items():
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        correlation = spearmanr((unit[:count] * unit[count:]).sum(axis=1), pairs.scores).statistic
        scores.append(
            PairScore(str(artifact.target), output, runtime.name, device, count, round(100 * float(correlation), 4))
        )

    return scores
