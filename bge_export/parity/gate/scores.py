"""Refusals of a reranker's lane: of single logits, and of the order of each query's candidates."""

from collections.abc import Iterator
from functools import partial

from bge_export.parity.figures import difference_figure, excerpt, least_figure
from bge_export.parity.gate.limits import ScoreLimits
from bge_export.parity.gate.sweep import lane_failures as sweep_lane_failures
from bge_export.parity.gate.verdict import Failure, failure
from bge_export.parity.measure.batches import EVERY_TEXT
from bge_export.parity.orders import orders, spread
from bge_export.parity.report import Lane, ReferenceRecord, ScoreRow, SweepPart
from bge_export.texts.corpus import Corpus


def score_failures(lane: Lane, reference: ReferenceRecord | None, limits: ScoreLimits) -> Iterator[Failure]:
    """Yield each refusal of a lane with scores.

    Args:
        lane: the lane.
        reference: the record of the reference it was measured against; None if the report has none.
        limits: its limits.
    """
    whole = spread(lane.scores)
    found = orders(lane.scores, limits.tied_share)
    if not whole > 0 or not found:
        got = f"logits of one query differ by {difference_figure(whole)} at most"
        yield failure("no-order", got, "candidates that the checkpoint orders", lane=lane.name)
        return

    for row in lane.scores:
        yield from _row_failures(row, lane, limits, whole)
    yield from _order_failures(lane, limits)

    if reference is not None:
        yield from sweep_lane_failures(lane, reference, partial(_part_failures, lane, limits, whole))


def pair_set_failures(lane: Lane, corpus: Corpus) -> Iterator[Failure]:
    """Yield a refusal for each row that is given to other candidates than those of its query."""
    first: dict[str | None, str] = {}
    queries: dict[str, str] = {}
    for pair in corpus.texts:
        queries[pair.id] = first.setdefault(pair.query, pair.id)

    for row in lane.scores:
        if row.query != queries.get(row.id, row.query):
            got = f"a candidate of {excerpt(row.query)!r}"
            needed = f"of {excerpt(queries[row.id])!r}, as in {corpus.name}"
            yield failure("inconsistent", got, needed, lane=lane.name, row=row.id, text=row.text)


def _row_failures(row: ScoreRow, lane: Lane, limits: ScoreLimits, whole: float) -> Iterator[Failure]:
    """Yield the refusals of one pair; `whole` is the spread of the reference's logits."""
    fail = partial(failure, lane=lane.name, row=row.id, text=row.text)
    most = lane.spec.inputs.max_tokens
    if not 1 <= row.tokens <= most:
        yield fail("inconsistent", f"{row.tokens} tokens where the longest input is {most}", "facts that fit together")
    if not set(EVERY_TEXT) <= set(row.batch):
        got = f"batches {sorted(row.batch)} where every pair is measured in {list(EVERY_TEXT)}"
        yield fail("inconsistent", got, "facts that fit together")
    if not row.tokens_equal:
        yield fail("token-ids", f"other token ids or types ({row.tokens} of them)", "the checkpoint's own")

    if row.logit is None or row.difference is None:
        yield fail("not-finite", "a logit that is NaN or infinite", "finite values")
        return

    share = row.difference / whole
    if not row.difference <= limits.max_error or not share <= limits.max_share:
        got = f"logit {row.logit:.6g}, {difference_figure(row.difference)} off the checkpoint's {row.reference:.6g}"
        needed = f"at most {_allowed(limits.max_error, limits.max_share, whole)}"
        yield fail("logit", got, needed, figure=row.difference)

    for shape, logit in row.batch.items():
        moved = None if logit is None else abs(logit - row.logit) / whole
        if moved is None or not moved <= limits.max_batch_share:
            got = f"in batches {shape!r} its logit moves by {difference_figure(moved)} of the spread of all logits"
            yield fail("batch-logit", got, f"at most {limits.max_batch_share}", figure=moved)


def _order_failures(lane: Lane, limits: ScoreLimits) -> Iterator[Failure]:
    """Yield the refusals of the order of each query's candidates."""
    texts = {row.id: row.text for row in lane.scores}
    for order in orders(lane.scores, limits.tied_share):
        fail = partial(failure, lane=lane.name, row=order.query, text=texts.get(order.query))
        of = f"of the {order.candidates} candidates of its query"
        if order.tau is None or not order.tau >= limits.min_tau:
            got = f"Kendall's tau {least_figure(order.tau)} {of}"
            yield fail("order", got, f"at least {limits.min_tau}", figure=order.tau)
        if order.top is None or not order.top >= limits.min_top:
            got = f"{least_figure(order.top)} of the first candidates stay among the first, {of}"
            yield fail("top", got, f"at least {limits.min_top}", figure=order.top)


def _part_failures(lane: Lane, limits: ScoreLimits, whole: float, part: SweepPart) -> Iterator[Failure]:
    """Yield the refusals of one kind of batch of the sweep."""
    what = f"in the sweep's {part.kind}"
    if not part.finite:
        yield failure("not-finite", f"NaN or infinity {what}", "finite values", lane=lane.name)
        return

    share = None if part.difference is None else part.difference / whole
    if share is None or not share <= limits.max_sweep_share:
        got = f"a logit {what} is off by {difference_figure(share)} of the spread of all logits"
        yield failure("sweep-logit", got, f"at most {limits.max_sweep_share}", lane=lane.name, figure=share)


def _allowed(error: float, share: float, whole: float) -> str:
    """Return the smaller of both limits of a logit's difference, and which it is."""
    if share * whole < error:
        return f"{difference_figure(share * whole)}, {share} of the spread of all logits"
    return f"{error}"
