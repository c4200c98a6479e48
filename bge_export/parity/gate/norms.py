"""Refusals about the norms of vectors in batches and over all texts; `rows` judges the norm of a text alone."""

from collections.abc import Iterator, Sequence
from functools import partial
from statistics import median
from typing import get_args

from bge_export.parity.figures import difference_figure
from bge_export.parity.gate.limits import Limits
from bge_export.parity.gate.verdict import Failure, failure
from bge_export.parity.measure.batches import EVERY_TEXT
from bge_export.parity.report import Lane, RowParity
from bge_export.texts.corpus import Kind

ONE_VECTOR = 0.999999
"""If the batch cosine limit is at least this, batches must not change a text's vector, nor therefore its norm."""

UNIT = 1e-5
"""Largest deviation of the norm of a normalized float32 vector from 1."""

FEWEST = 16
"""Texts of one kind whose median says something: rounding alone moves that of a few."""

ALIKE = 0.999
"""If the batch cosine limit is at least this, batches change a text's vector by less than rounding did."""


def batch_norm_failures(
    row: RowParity, limits: Limits, norm_error: float, fail: "partial[Failure]"
) -> Iterator[Failure]:
    """Yield a failure for each batch shape that changes a text's norm, if the norm limit is the one for rounding.

    That limit is wide, since rounding changes norms, but a batch must not change them.
    """
    if norm_error == limits.max_norm_error or row.norm is None:
        return

    most = limits.max_norm_error if limits.min_batch_cosine >= ONE_VECTOR else norm_error
    for shape, norm in row.batch_norm.items():
        error = relative_error(norm, row.norm)
        if above(error, most):
            got = f"norm {norm} in batches {shape!r}, {difference_figure(error)} off that of the text alone"
            yield fail("batch-norm", got, f"at most {most} off", figure=error)


def judge_zeros(lane: Lane) -> Iterator[Failure]:
    """Yield the refusal of a checkpoint that gives most texts the zero vector: of them nothing can be measured."""
    zeros = sum(row.reference_norm == 0 for row in lane.rows)
    if 2 * zeros > len(lane.rows):
        got = f"{zeros} of {len(lane.rows)} vectors of the checkpoint of norm 0"
        yield failure("zero-norm", got, "texts that it knows: at most half of them without a vector", lane=lane.name)


def judge_shift(lane: Lane, limits: Limits) -> Iterator[Failure]:
    """Yield the refusals of norms that are shifted in one direction, if the checkpoint does not normalize.

    Texts alone, each batch shape and a client's native pipeline are judged separately, since any one may be wrong. So
    is each kind of text, where limits know kinds: one of them may be fewer than half of all texts.
    """
    if lane.spec.heads.dense is None or lane.spec.heads.dense.normalize:
        return

    yield from _normalised(lane)
    if limits.max_norm_shift is None:
        return

    found = list(_shifts(lane.rows, limits, "texts", limits.max_norm_shift))
    if not found and limits.by_kind:
        for kind in get_args(Kind):
            own = [row for row in lane.rows if row.kind == kind]
            found += _shifts(own, limits, f"{kind} texts", limits.norm_shift(kind), fewest=FEWEST)

    for got, most, shift in found:
        yield failure("norm-shift", got, f"at most {most:.4g}", lane=lane.name, would_pass=wider(shift))


def _shifts(
    rows: Sequence[RowParity], limits: Limits, whose: str, most: float | None, *, fewest: int = 0
) -> Iterator[tuple[str, float, float | None]]:
    """Yield each series of at least `fewest` norms whose median is above a limit: in words, the limit, the median."""
    if most is None:
        return
    for where, errors in _series(rows, limits):
        shift = abs(median(errors)) if errors else None
        if len(errors) >= fewest and above(shift, most):
            yield f"norms {where} are off by {difference_figure(shift)} in the median of the {whose}", most, shift


def _normalised(lane: Lane) -> Iterator[Failure]:
    """Yield the refusal of vectors that are normalized although the checkpoint does not normalize.

    If the checkpoint's raw norms happen to be near 1, the wide limits alone would let such vectors pass.
    """
    norms = [row.norm for row in lane.rows if row.norm]  # a zero vector has no length to divide by
    references = [row.reference_norm for row in lane.rows if row.reference_norm]
    if not norms or not all(abs(norm - 1) <= UNIT for norm in norms):
        return

    if any(abs(norm - 1) > UNIT for norm in references):
        got = f"vectors of norm 1, where the checkpoint's are {min(references):.4g} to {max(references):.4g} long"
        yield failure("norm", got, "vectors that are not normalised, as the checkpoint's are not", lane=lane.name)


def _series(rows: Sequence[RowParity], limits: Limits) -> Iterator[tuple[str, Sequence[float]]]:
    """Yield the name and the signed relative errors of each series of norms in a lane.

    A batch shape that holds only some texts is compared with the same texts alone instead of the reference: rounding
    alone shifts the median of a few texts. If vectors depend on their neighbours, that comparison is meaningless too,
    and the shape is left out.
    """
    yield "of texts alone", _errors((row.norm, row.reference_norm) for row in rows)

    for shape in dict.fromkeys(shape for row in rows for shape in row.batch_norm):
        where, own = f"in batches {shape!r}", [row for row in rows if shape in row.batch_norm]
        if shape in EVERY_TEXT:
            yield where, _errors((row.batch_norm[shape], row.reference_norm) for row in own)
        elif limits.min_batch_cosine >= ALIKE:
            yield where, _errors((row.batch_norm[shape], row.norm) for row in own)

    clients = [(row.client, row.reference_norm) for row in rows if row.client is not None and row.client.tokens_equal]
    if clients:
        yield "of the client's own embeddings", _errors((client.norm, reference) for client, reference in clients)


def _errors(pairs: Iterator[tuple[float | None, float | None]]) -> Sequence[float]:
    return [norm / other - 1 for norm, other in pairs if norm is not None and other is not None and other > 0]


def relative_error(norm: float | None, other: float) -> float | None:
    """Return the error of a norm relative to another; 0 if both are zero, None if it is undefined."""
    if norm == other == 0:
        return 0.0
    return None if norm is None or not other > 0 else abs(norm - other) / other


def above(value: float | None, limit: float) -> bool:
    """Return whether a value is above its limit or undefined."""
    return value is None or not value <= limit


def wider(value: float | None) -> str | None:
    """Return the limit that would let a difference pass; None if it is not valid in a limits file."""
    return difference_figure(value) if value is not None and value < 0.99 else None
