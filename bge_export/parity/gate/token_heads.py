"""Refusals of lanes whose output is token weights or vectors of tokens."""

from collections.abc import Callable, Iterator
from functools import partial

from bge_export.contracts import HEADS_OF
from bge_export.parity.figures import cosine_figure, difference_figure
from bge_export.parity.gate.limits import SparseLimits, VectorsLimits
from bge_export.parity.gate.policy import ThresholdPolicy
from bge_export.parity.gate.sweep import lane_failures as sweep_lane_failures
from bge_export.parity.gate.verdict import Failure, failure
from bge_export.parity.measure.batches import EVERY_TEXT
from bge_export.parity.report import Lane, ParityReport, SparseRow, SweepPart, VectorsRow

SCALE = 1e-12
"""Smallest largest weight of all texts that counts as weights at all."""

Fail = Callable[..., Failure]


def kind_of_head(lane: Lane) -> str:
    """Return the kind of the head that reads a lane's output."""
    kinds = lane.spec.heads.kinds
    return HEADS_OF.get(lane.output, "dense") if len(kinds) > 1 else next(iter(kinds))


def rows_of_its_head(lane: Lane) -> bool:
    """Return whether a measured lane has the facts of the head that reads its output, and no others."""
    kinds, kind = lane.spec.heads.kinds, kind_of_head(lane)
    there = {"dense": lane.rows, "score": lane.scores, "sparse": lane.weights, "multi_vector": lane.vectors}
    return kind in kinds and [name for name, rows in there.items() if rows] == [kind]


def token_head_failures(lane: Lane, report: ParityReport, policy: ThresholdPolicy) -> Iterator[Failure]:
    """Yield each refusal of a lane with token weights or vectors of tokens.

    Args:
        lane: the lane.
        report: its report.
        policy: the limits.
    """
    kind = "sparse" if lane.weights else "multi_vector"
    limits = policy.head_limits_for(kind, lane)
    if limits is None:
        got, needed = f"no limits for the head {kind} of {lane.target}", f'a table [{kind}."{lane.target}"]'
        yield failure("unknown-target", got, needed, lane=lane.name)
        return

    judge_part: Callable[[SweepPart], Iterator[Failure]]
    if isinstance(limits, SparseLimits):
        largest = max(row.largest for row in lane.weights)
        if not largest > SCALE:
            got = "no token of any text has a weight above 0"
            yield failure("no-weights", got, "weights that can be compared", lane=lane.name)
            return
        for row in lane.weights:
            yield from _weight_failures(row, lane, limits, largest)
        judge_part = partial(_weight_part_failures, lane, limits, largest)
    else:
        for one in lane.vectors:
            yield from _vector_failures(one, lane, limits)
        judge_part = partial(_vector_part_failures, lane, limits)

    run = report.runs.get(lane.run)
    if run is not None:
        yield from sweep_lane_failures(lane, run.reference, judge_part)


def _shared_failures(row: SparseRow | VectorsRow, lane: Lane, fail: Fail) -> Iterator[Failure]:
    """Yield the refusals of a row that are about its tokens and batches."""
    most = lane.spec.inputs.max_tokens
    if not 1 <= row.tokens <= most:
        yield fail("inconsistent", f"{row.tokens} tokens where the longest input is {most}", "facts that fit together")
    if not set(EVERY_TEXT) <= set(row.batch):
        got = f"batches {sorted(row.batch)} where every text is measured in {list(EVERY_TEXT)}"
        yield fail("inconsistent", got, "facts that fit together")
    if not row.tokens_equal:
        yield fail("token-ids", f"other token ids ({row.tokens} of them)", "the checkpoint's own")


def _weight_failures(row: SparseRow, lane: Lane, limits: SparseLimits, largest: float) -> Iterator[Failure]:
    """Yield the refusals of one text; `largest` is the largest reference weight of all texts."""
    fail = partial(failure, lane=lane.name, row=row.id, text=row.text)
    yield from _shared_failures(row, lane, fail)
    if not row.finite:
        yield fail("not-finite", "NaN or infinity among its weights", "finite values")
        return

    most = min(limits.max_error, limits.max_share * largest)
    if row.difference is None or not row.difference <= most:
        got = f"a weight is {difference_figure(row.difference)} off the checkpoint's"
        needed = f"at most {difference_figure(most)}, where the largest weight is {largest:.6g}"
        yield fail("token-weight", got, needed, figure=row.difference)

    if row.score_error is None or not row.score_error <= limits.max_score_error:
        got = f"its lexical score with the checkpoint's weights is off by {difference_figure(row.score_error)} of it"
        yield fail("lexical-score", got, f"at most {limits.max_score_error}", figure=row.score_error)

    for shape, moved in row.batch.items():
        share = None if moved is None else moved / largest
        if share is None or not share <= limits.max_batch_share:
            got = f"in batches {shape!r} a weight moves by {difference_figure(share)} of the largest weight"
            yield fail("batch-weight", got, f"at most {limits.max_batch_share}", figure=share)


def _vector_failures(row: VectorsRow, lane: Lane, limits: VectorsLimits) -> Iterator[Failure]:
    """Yield the refusals of one text."""
    fail = partial(failure, lane=lane.name, row=row.id, text=row.text)
    yield from _shared_failures(row, lane, fail)

    head = lane.spec.heads.multi_vector
    wanted = row.tokens - (head.skipped if head is not None else 0)
    if row.vectors != wanted:
        yield fail("inconsistent", f"{row.vectors} vectors of {row.tokens} tokens", f"{wanted} of them")
    if not row.finite:
        yield fail("not-finite", "NaN or infinity in a token's vector", "finite values")
        return

    if row.token_cosine is None or not row.token_cosine >= limits.min_token_cosine:
        got = f"the vector of a token has cosine {cosine_figure(row.token_cosine)}"
        yield fail("token-vector", got, f"at least {limits.min_token_cosine}", figure=row.token_cosine)
    if row.max_sim_error is None or not row.max_sim_error <= limits.max_sim_error:
        got = f"its MaxSim with the next text is {difference_figure(row.max_sim_error)} off the checkpoint's"
        yield fail("max-sim", got, f"at most {limits.max_sim_error}", figure=row.max_sim_error)

    for shape, cosine in row.batch.items():
        if cosine is None or not cosine >= limits.min_batch_cosine:
            got = f"in batches {shape!r} the vector of a token has cosine {cosine_figure(cosine)} with itself alone"
            yield fail("batch-vector", got, f"at least {limits.min_batch_cosine}", figure=cosine)

    yield from _norm_failures(row, limits, fail)


def _norm_failures(row: VectorsRow, limits: VectorsLimits, fail: Fail) -> Iterator[Failure]:
    """Yield the refusals of the lengths of one text's vectors, which no cosine sees."""
    needed = f"at most {limits.max_norm_error}"
    if set(row.batch_norm_error) != set(row.batch):
        got = f"norms in batches {sorted(row.batch_norm_error)} where cosines are of {sorted(row.batch)}"
        yield fail("inconsistent", got, "facts that fit together")

    if row.norm_error is None or not row.norm_error <= limits.max_norm_error:
        got = f"the norm of a token's vector is off by {difference_figure(row.norm_error)} of the checkpoint's"
        yield fail("vector-norm", got, needed, figure=row.norm_error)

    for shape, error in row.batch_norm_error.items():
        if error is None or not error <= limits.max_norm_error:
            got = (
                f"in batches {shape!r} the norm of a token's vector is off by {difference_figure(error)} of that alone"
            )
            yield fail("vector-norm", got, needed, figure=error)


def _weight_part_failures(lane: Lane, limits: SparseLimits, largest: float, part: SweepPart) -> Iterator[Failure]:
    """Yield the refusals of one kind of batch of the sweep."""
    what = f"in the sweep's {part.kind}"
    if not part.finite:
        yield failure("not-finite", f"NaN or infinity {what}", "finite values", lane=lane.name)
        return

    share = None if part.difference is None else part.difference / largest
    if share is None or not share <= limits.max_sweep_share:
        got = f"a weight {what} is off by {difference_figure(share)} of the largest weight"
        yield failure("sweep-weight", got, f"at most {limits.max_sweep_share}", lane=lane.name, figure=share)


def _vector_part_failures(lane: Lane, limits: VectorsLimits, part: SweepPart) -> Iterator[Failure]:
    """Yield the refusals of one kind of batch of the sweep."""
    what = f"in the sweep's {part.kind}"
    if not part.finite:
        yield failure("not-finite", f"NaN or infinity {what}", "finite values", lane=lane.name)
        return

    for figure, least, where in (
        (part.token_cosine, limits.min_sweep_cosine, f"the vector of token {part.token}"),
        (part.sequence_cosine, limits.min_sequence_cosine, f"the vectors of a sequence of {part.length}, in the mean,"),
    ):
        if figure is None or not figure >= least:
            got = f"{where} {what} has cosine {cosine_figure(figure)}"
            yield failure("token-states", got, f"at least {least}", lane=lane.name, figure=figure)

    error = part.norm_error
    if error is None or not error <= limits.max_norm_error:
        got = f"the norm of a token's vector {what} is off by {difference_figure(error)} of the checkpoint's"
        yield failure("vector-norm", got, f"at most {limits.max_norm_error}", lane=lane.name, figure=error)
