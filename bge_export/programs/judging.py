"""Judges the vectors that a program printed for the golden texts, and names the likely cause if they are wrong."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bge_export.bundle.contract import Contract
from bge_export.texts.corpus import Kind
from bge_export.texts.golden import USES, GoldenRow, Use, judged_as

SHOWN = 40
"""Characters of a wrong line in a message."""


@dataclass(frozen=True)
class RowLimits:
    """What each text of a kind must keep: the smallest cosine, and the largest relative difference of the norms."""

    cosine: float
    norm_error: float


@dataclass(frozen=True)
class Judged:
    """One golden text.

    Attributes:
        id, kind, use: as in `GoldenRow`.
        tokens: the number of its tokens.
        cosine: with the golden vector; None if it is not defined.
        norm_error: difference of the norms, relative to the golden vector's; None if it is not defined.
        limits: what it has to keep.
    """

    id: str
    kind: str
    use: Use
    tokens: int
    cosine: float | None
    norm_error: float | None
    limits: RowLimits

    @property
    def turned(self) -> bool:
        """Return whether the vector points elsewhere than the golden one."""
        return self.cosine is None or not self.cosine >= self.limits.cosine

    @property
    def right(self) -> bool:
        """Return whether cosine and norm are within the limits."""
        return not self.turned and self.norm_error is not None and self.norm_error <= self.limits.norm_error


@dataclass(frozen=True)
class ProgramVerdict:
    """What was found of a program.

    Attributes:
        rows: each golden text; none if the output is not of the right form.
        limits: what each kind of text had to keep.
        faults: what is wrong with the output or the vectors, one sentence each.
        causes: likely causes, one sentence each.
    """

    rows: tuple[Judged, ...]
    limits: Mapping[Kind, RowLimits]
    faults: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Return whether the program gives the folder's embeddings."""
        return bool(self.rows) and not self.faults


def read_vectors(printed: str, count: int, width: int) -> tuple[NDArray[np.float64] | None, str]:
    """Return the printed vectors, [N, D] float64, or None and what is wrong with the output.

    Args:
        printed: one JSON list a line; empty lines are skipped.
        count: the number of texts, N.
        width: the number of components, D.
    """
    rows = []
    for line in filter(str.strip, printed.splitlines()):
        row = _numbers(line)
        if row is None:
            return None, f"it printed {line[:SHOWN]!r}, which is not a JSON list of numbers; print nothing but vectors"
        rows.append(row)

    if len(rows) != count:
        return None, f"it printed {len(rows)} vectors for {count} texts"
    if others := [len(row) for row in rows if len(row) != width]:
        return None, f"it printed a vector of {others[0]} components, not {width}"
    return np.asarray(rows, dtype=np.float64), ""


def _numbers(line: str) -> list[float] | None:
    """Return the numbers of a JSON list, None if the line is none."""
    try:
        row = json.loads(line)
        listed = isinstance(row, list) and not any(isinstance(one, bool | str) for one in row)
        return [float(one) for one in row] if listed else None
    except (ValueError, TypeError, OverflowError, RecursionError):
        return None


def judge_vectors(
    vectors: NDArray[np.float64],
    golden: Sequence[GoldenRow],
    contract: Contract,
    limits: Mapping[Kind, RowLimits],
    *,
    token_ids: bool,
) -> ProgramVerdict:
    """Judge vectors by the limits of a target.

    Args:
        vectors: [N, D], in the order of the texts.
        golden: the N texts.
        contract: what the folder says.
        limits: those of the file that the program runs, of each kind of text (`texts.golden`).
        token_ids: whether the program was given token ids instead of texts.
    """
    rows = []
    for row, vector in zip(golden, vectors, strict=True):
        cosine, error = _compared(vector, np.asarray(row.vector))
        rows.append(Judged(row.id, row.kind, row.use, len(row.token_ids), cosine, error, limits[judged_as(row)]))

    wrong = [row for row in rows if not row.right]
    if not wrong:
        return ProgramVerdict(tuple(rows), limits)

    kinds = ", ".join(dict.fromkeys(row.kind for row in wrong))
    faults = (f"{len(wrong)} of {len(rows)} texts are embedded otherwise: {kinds}",)
    return ProgramVerdict(tuple(rows), limits, faults, tuple(_causes(rows, contract, token_ids=token_ids)))


def _compared(vector: NDArray[np.float64], right: NDArray[np.float64]) -> tuple[float | None, float | None]:
    """Return cosine and relative difference of the norms; None for a wrong zero vector, and for one not finite."""
    norm, expected = float(np.linalg.norm(vector)), float(np.linalg.norm(right))
    if norm == expected == 0.0:  # a text without tokens: nothing but zero is right
        return 1.0, 0.0
    if not np.isfinite(norm) or norm == 0.0 or expected == 0.0:
        return None, None
    return float(vector @ right) / (norm * expected), abs(norm / expected - 1.0)


def _causes(rows: Sequence[Judged], contract: Contract, *, token_ids: bool) -> Iterator[str]:
    """Yield the likely causes, by which kinds of text are wrong."""
    if any(row.cosine is None for row in rows):
        yield "a vector is zero or not finite: look at the attention mask and at empty texts"

    turned = {row.id for row in rows if row.turned}
    if len(turned) < len(rows) and any(not row.right and row.id not in turned for row in rows):
        yield (
            "vectors have another length: divide them by their L2 norm"
            if contract.embedding.normalize
            else "vectors have another length: do not divide them by their norm"
        )
    if not turned:
        return

    right = [row for row in rows if row.id not in turned]
    wrong = [row for row in rows if row.id in turned]
    kinds = sorted({row.kind for row in wrong})
    if not right:
        yield (
            f"every text is wrong: the pooling is {contract.embedding.pooling}, of an output with token states; or the "
            f"{'file is another one' if token_ids else 'file or the tokenizer is another one'}"
        )
    elif {row.id for row in right} in _longest(rows):
        yield "only the longest text is right: fill batches at the end, with attention mask 0, or run texts alone"
    elif kinds == ["query"]:
        yield f"put the prompt before queries: {contract.text.prompts['query']!r}"
    elif min(row.tokens for row in wrong) > max(row.tokens for row in right):
        yield f"cut longer texts at {contract.text.max_tokens} tokens, the special tokens included, at the right end"
    else:
        yield f"other tokens of {', '.join(kinds)}: use {contract.tokens.tokenizer} as it is, on texts as they are"


def _longest(rows: Sequence[Judged]) -> list[set[str]]:
    """Return the names of the longest texts, of all and of each kind of use: a batch may hold either."""

    def of(group: Sequence[Judged]) -> set[str]:
        most = max((row.tokens for row in group), default=0)
        return {row.id for row in group if row.tokens == most}

    by_use = [[row for row in rows if row.use == use] for use in USES]
    return [of(rows), set().union(*map(of, by_use))]
