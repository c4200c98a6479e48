"""Refusals of a single text. Comparisons are written so that an undefined number is refused."""

from collections.abc import Iterator
from functools import partial

from bge_export.files.spec import SpecRecord
from bge_export.parity.figures import cosine_figure, difference_figure, excerpt
from bge_export.parity.gate.limits import Limits
from bge_export.parity.gate.norms import UNIT, above, batch_norm_failures, relative_error, wider
from bge_export.parity.gate.verdict import Failure, failure
from bge_export.parity.measure.batches import EVERY_TEXT
from bge_export.parity.measure.client_tokens import kinds_of
from bge_export.parity.report import ClientRow, Lane, RowParity

ROUNDING = 1e-9
"""Distance by which a cosine computed in float64 may leave [-1, 1]; a hundred times the rounding error."""

SAME = 1e-6
"""Cosines that differ by less count as equal, such as those of a client's embedding and of the artifact's."""


def norm_is_one(spec: SpecRecord) -> bool:
    """Return whether the dense head, alone or beside others, divides a vector by its norm."""
    return spec.heads.dense is not None and spec.heads.dense.normalize


def judge_row(row: RowParity, lane: Lane, limits: Limits) -> Iterator[Failure]:
    """Yield each refusal of one row."""
    fail = partial(failure, lane=lane.name, row=row.id, text=row.text)
    for contradiction in _contradictions(row, lane):
        yield fail("inconsistent", contradiction, "facts that fit together")
    if not row.tokens_equal:
        yield fail("token-ids", f"other token ids ({row.tokens} of them)", "the checkpoint's own")

    # Without a finite direction, every other figure is undefined.
    if not row.finite:
        yield fail("not-finite", "NaN or infinity in the embedding", "finite values")
        return
    if row.norm == 0 and row.reference_norm != 0:
        yield fail("zero-norm", "norm 0", "an embedding that is not zero")
        return

    longest = limits.norm_error(row.kind, normalized=norm_is_one(lane.spec))
    yield from _reference_failures(row, limits, longest, fail)
    yield from _batch_failures(row, limits, longest, fail)


def _reference_failures(
    row: RowParity, limits: Limits, norm_error: float, fail: "partial[Failure]"
) -> Iterator[Failure]:
    """Yield the refusals of a text embedded alone that differs too much from the reference."""
    least = limits.least_cosine(row.kind)
    if _below(row.cosine, least):
        yield fail(
            "cosine",
            f"cosine {cosine_figure(row.cosine)}",
            _at_least(row, limits),
            would_pass=cosine_figure(row.cosine) if (row.cosine or 0) > 0 else None,
            figure=row.cosine,
            kind=row.kind if limits.by_kind else None,
        )

        # A vector that matches another text's reference was probably given to the wrong text.
        if row.nearest != row.id and not _below(row.nearest_cosine, least):
            yield fail(
                "swapped-rows", f"the vector of text {excerpt(str(row.nearest))!r}", f"that of {excerpt(row.id)!r}"
            )

    relative = relative_difference(row)
    if limits.max_abs is not None and above(relative, limits.max_abs):
        got, needed = f"difference {difference_figure(relative)}", f"at most {limits.max_abs}"
        yield fail("max-abs", got, needed, would_pass=wider(relative), figure=relative)

    error = relative_error(row.norm, row.reference_norm)
    if above(error, norm_error):
        got = f"norm {row.norm}, {difference_figure(error)} off the reference's {row.reference_norm}"
        needed = f"at most {norm_error} off"
        yield fail("norm", got, needed, would_pass=wider(error), figure=error)


def _batch_failures(row: RowParity, limits: Limits, norm_error: float, fail: "partial[Failure]") -> Iterator[Failure]:
    """Yield the refusals of a text whose embedding changes in a batch."""
    for shape, cosine in row.batch_cosine.items():
        if _below(cosine, limits.min_batch_cosine):
            yield fail(
                "batch-cosine",
                f"cosine {cosine_figure(cosine)} in batches {shape!r}",
                f"at least {limits.min_batch_cosine}",
                would_pass=cosine_figure(cosine) if (cosine or 0) > 0 else None,
                figure=cosine,
            )

    for shape, norm in row.batch_norm.items():
        error = relative_error(norm, row.reference_norm)
        if above(error, norm_error):
            got = f"norm {norm} in batches {shape!r}, {difference_figure(error)} off the reference's"
            needed = f"at most {norm_error} off"
            yield fail("batch-norm", got, needed, would_pass=wider(error), figure=error)

    yield from batch_norm_failures(row, limits, norm_error, fail)


def judge_client(
    row: RowParity, client: ClientRow, text: str, lane: Lane, limits: Limits, accepted: frozenset[str]
) -> Iterator[Failure]:
    """Yield each refusal of a client's native pipeline for one text.

    The client's vector is judged if its token ids equal the checkpoint's. If they differ, the vector embeds a different
    token sequence: the difference is refused unless the policy accepts one of the kinds that the text belongs to.
    """
    fail = partial(failure, lane=lane.name, row=row.id, text=row.text)

    if not client.tokens_equal:
        kinds = tuple(kinds_of(text, row.tokens, lane.spec.inputs.max_tokens))
        if not accepted.intersection(kinds):
            got = f"the client's own tokenizer makes other ids ({client.tokens} of them)"
            named = f", or a policy that accepts {' or '.join(kinds)} there" if kinds else ""
            yield fail("client-tokens", got, f"the checkpoint's own{named}")
        return

    # Clients such as Transformers.js divide by the norm without a guard. The checkpoint's notes say so.
    if not client.finite and row.reference_norm == 0:
        return
    if not client.finite:
        yield fail("not-finite", "NaN or infinity in the client's own embedding", "finite values")
        return

    # A loss that the artifact shows without the client is the artifact's, and `_reference_failures` refuses it.
    artifacts_own = row.cosine is not None and not _below(client.cosine, row.cosine - SAME)
    least = limits.least_cosine(row.kind)
    if _below(client.cosine, least) and not (artifacts_own and _below(row.cosine, least)):
        got = f"cosine {cosine_figure(client.cosine)} of the client's own embedding"
        yield fail(
            "client-cosine",
            got,
            _at_least(row, limits),
            figure=client.cosine,
            kind=row.kind if limits.by_kind else None,
        )

    error = relative_error(client.norm, row.reference_norm)
    longest = limits.norm_error(row.kind, normalized=norm_is_one(lane.spec))
    if above(error, longest):
        got = f"norm {client.norm} of the client's own embedding"
        needed = f"at most {longest} off the reference's {row.reference_norm}"
        yield fail("client-norm", got, needed, figure=error)


def _contradictions(row: RowParity, lane: Lane) -> Iterator[str]:
    """Yield facts of a row that contradict each other, so that no measurement can have produced them."""
    for value in (row.cosine, row.nearest_cosine, *row.batch_cosine.values()):
        if value is not None and not abs(value) <= 1 + ROUNDING:
            yield f"a cosine of {value}"

    known = (row.cosine, row.max_abs, row.norm)
    if not row.finite and any(value is not None for value in known):
        yield "numbers of an embedding that is not finite"
    if row.finite and (row.max_abs is None or row.norm is None):
        yield "no norm or no difference of an embedding that is finite"
    if any(value is not None and not value >= 0 for value in (row.max_abs, row.norm, *row.batch_norm.values())):
        yield "a negative norm or difference"

    # With a reference of norm zero, a cosine stands for "both are zero".
    zeros = row.reference_norm == 0 and (row.cosine is None or row.norm == 0)
    if not (row.reference_norm > 0 or zeros):
        yield f"a reference of norm {row.reference_norm}"
    # A reference longer than 1 would widen every limit that is relative to its norm.
    if norm_is_one(lane.spec) and not zeros and not abs(row.reference_norm - 1) <= UNIT:
        yield f"a reference of norm {row.reference_norm}, though the checkpoint normalises"

    # Without special tokens an empty text has none, and its vector is zero, unless layers make something of that.
    dense = lane.spec.heads.dense
    least = 0 if zeros or (dense is not None and dense.layers) else 1
    if not least <= row.tokens <= lane.spec.inputs.max_tokens:
        yield f"{row.tokens} tokens where the longest input is {lane.spec.inputs.max_tokens}"
    if not set(EVERY_TEXT) <= set(row.batch_cosine) or set(row.batch_norm) != set(row.batch_cosine):
        yield f"batches {sorted(row.batch_cosine)} where every text is measured in {list(EVERY_TEXT)}"


def _at_least(row: RowParity, limits: Limits) -> str:
    """Return the cosine limit of a text in words, with a note if it is the limit of stress texts."""
    needed = f"at least {limits.least_cosine(row.kind)}"
    return f"{needed}, the limit of stress texts" if limits.by_kind and row.kind == "stress" else needed


def _below(value: float | None, limit: float) -> bool:
    return value is None or not value >= limit


def relative_difference(row: RowParity) -> float | None:
    """Return the largest component difference of a row, scaled to a reference of norm 1; None if undefined."""
    if row.max_abs == row.reference_norm == 0:
        return 0.0
    return None if row.max_abs is None or not row.reference_norm > 0 else row.max_abs / row.reference_norm
