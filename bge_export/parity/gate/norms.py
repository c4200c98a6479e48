"""Every "no" about lengths of vectors beyond those of one text alone: in batches, and of all texts together."""

from collections.abc import Iterator, Sequence
from functools import partial
from statistics import median

from bge_export.parity.figures import difference_figure
from bge_export.parity.gate.limits import Limits
from bge_export.parity.gate.verdict import Failure, failure
from bge_export.parity.measure.batches import EVERY_TEXT
from bge_export.parity.report import Lane, RowParity

ONE_VECTOR = 0.999999
"""Where the limit of batches is at least this, a text has one vector whatever is beside it, and so one norm."""

UNIT = 1e-5
"""By how much a float32 vector that was normalised may miss norm 1."""

ALIKE = 0.999
"""Where it is at least this, a text's vectors in two batches differ by less than rounding moved them."""


def batch_norm_failures(
    row: RowParity, limits: Limits, norm_error: float, fail: "partial[Failure]"
) -> Iterator[Failure]:
    """Yield batches in which a text is longer or shorter than alone, where the limit of norms is that of rounding.

    That limit is wide, since rounding moves norms; a batch has no such excuse.
    """
    if norm_error != limits.max_raw_norm_error or row.norm is None:
        return
    most = limits.max_norm_error if limits.min_batch_cosine >= ONE_VECTOR else norm_error
    for shape, norm in row.batch_norm.items():
        error = relative_error(norm, row.norm)
        if above(error, most):
            got = f"norm {norm} in batches {shape!r}, {difference_figure(error)} off that of the text alone"
            yield fail("batch-norm", got, f"at most {most} off", figure=error)


def judge_shift(lane: Lane, limits: Limits) -> Iterator[Failure]:
    """Yield the refusals of norms that are off one way, of a checkpoint that does not normalise.

    Texts alone, each shape of batches, and what a client embeds by itself are each judged: one may be right and
    another not.
    """
    if lane.spec.normalize:
        return
    yield from _normalised(lane)
    if limits.max_norm_shift is None:
        return

    for where, errors in _series(lane.rows, limits):
        shift = abs(median(errors)) if errors else None
        if above(shift, limits.max_norm_shift):
            got = f"norms {where} are off by {difference_figure(shift)} in the median of the texts"
            yield failure(
                "norm-shift", got, f"at most {limits.max_norm_shift}", lane=lane.name, would_pass=wider(shift)
            )


def _normalised(lane: Lane) -> Iterator[Failure]:
    """Yield the refusal of vectors that were normalised although the checkpoint does not normalise.

    Where the checkpoint's norms are near 1 by themselves, wide limits alone would let them pass.
    """
    norms = [row.norm for row in lane.rows if row.norm is not None]
    references = [row.reference_norm for row in lane.rows]
    if not norms or not all(abs(norm - 1) <= UNIT for norm in norms):
        return

    if any(abs(norm - 1) > UNIT for norm in references):
        got = f"vectors of norm 1, where the checkpoint's are {min(references):.4g} to {max(references):.4g} long"
        yield failure("norm", got, "vectors that are not normalised, as the checkpoint's are not", lane=lane.name)


def _series(rows: Sequence[RowParity], limits: Limits) -> Iterator[tuple[str, Sequence[float]]]:
    """Yield the signed relative errors of each kind of norm that a lane has.

    A shape that only some texts are embedded in is held against these texts alone: of a few, rounding by itself moves
    the median. Where a vector depends on its neighbours that says nothing either, and such a shape is left out.
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
    """Return by how much a norm is off another, relative to that one; None where one of them does not exist."""
    return None if norm is None or not other > 0 else abs(norm - other) / other


def above(value: float | None, limit: float) -> bool:
    """Return whether a value is above its limit, or does not exist."""
    return value is None or not value <= limit


def wider(value: float | None) -> str | None:
    """Return the limit that would have let a difference pass, where a file of limits may hold it."""
    return difference_figure(value) if value is not None and value < 0.99 else None
