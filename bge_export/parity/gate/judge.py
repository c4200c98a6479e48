"""Judge a report: run every rule, and collect the refusals of the report as a whole and of its lanes.

Other modules hold the other rules: `rows` judges single texts, `sweep` token ids beside them, `swaps` vectors given to
the wrong texts, `norms` norms in batches and over all texts, `kinds` the kind of each text, `scores` rerankers,
`pairs` int8 weights, `operators` what a file runs, `lanes` lanes that should have been measured but were not, and
`folder` the folder on disk.

No average can hide a bad row: each row must meet the limits. A few rules also look at all rows together (norm shift,
swapped vectors, pooling). Nothing passes because it is absent: missing texts, rows, limits and numbers are refused, and
lanes that were asked for. All rules run, so that one refusal does not hide another.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from statistics import median

from bge_export.contracts import Artifact
from bge_export.parity.gate.folder import folder_failures, other_file_failures
from bge_export.parity.gate.kinds import kind_failures
from bge_export.parity.gate.lanes import CHECKPOINT, missing_outputs, request_failures, requirement_failures, unmeasured
from bge_export.parity.gate.limits import Limits
from bge_export.parity.gate.norms import judge_shift, judge_zeros
from bge_export.parity.gate.operators import operator_failures
from bge_export.parity.gate.pairs import pair_failures
from bge_export.parity.gate.policy import SCORES, Requirement, ThresholdPolicy
from bge_export.parity.gate.rows import SAME, judge_client, judge_row
from bge_export.parity.gate.scores import pair_set_failures, score_failures
from bge_export.parity.gate.swaps import swap_failures
from bge_export.parity.gate.sweep import lane_failures as sweep_lane_failures
from bge_export.parity.gate.sweep import state_failures, sweep_failures
from bge_export.parity.gate.token_heads import rows_of_its_head, token_head_failures
from bge_export.parity.gate.verdict import Failure, Verdict, failure
from bge_export.parity.report import Lane, ParityReport
from bge_export.texts.corpus import Corpus

__all__ = ["Failure", "Verdict", "judge"]


def judge(
    report: ParityReport,
    policy: ThresholdPolicy,
    corpus: Corpus,
    *,
    require: Sequence[str] = (),
    artifacts: Sequence[Artifact] | None = None,
    checkpoint_digest: str | None = None,
) -> Verdict:
    """Judge a report.

    Args:
        report: the facts.
        policy: the limits.
        corpus: the texts that the report must be about.
        require: further `runtime:device` or `target@runtime:device` that must have been measured.
        artifacts: the artifacts on disk, with digests computed from their bytes; the report must cover all of them.
        checkpoint_digest: digest of the checkpoint that the folder was made from, according to its manifest.

    Raises:
        PolicyError: an entry of `require` is not a valid requirement.
    """
    required = [*policy.require, *map(Requirement.parse, require)]

    found = [
        *_report_failures(report, corpus),
        *_lane_set_failures(report),
        *missing_outputs(report),
        *(bad for target in report.targets for bad in unmeasured(report, target)),
        *(bad for one in required for bad in requirement_failures(report, one)),
        *(bad for name in report.requested for bad in request_failures(report, name)),
        *pair_failures(report, policy),
        *operator_failures(report),
        *sweep_failures(report),
        *(kind_failures(report, corpus) if report.texts.digest == corpus.digest else ()),
        *(bad for lane in report.lanes for bad in _lane_failures(lane, report, policy, corpus)),
        *(folder_failures(report, artifacts, checkpoint_digest) if artifacts is not None else ()),
    ]

    # Several rules may refuse the same fact in the same words; each sentence counts once.
    return Verdict(tuple(dict.fromkeys(found)))


def _report_failures(report: ParityReport, corpus: Corpus) -> Iterator[Failure]:
    """Yield the refusals of the report that do not depend on any lane."""
    if report.digest != report.computed_digest:
        yield failure("edited-report", f"its digest is {report.digest[:12]!r}", f"{report.computed_digest[:12]!r}")
    if not corpus.texts or report.texts.count == 0:
        yield failure("no-texts", f"{report.texts.count} texts measured, {len(corpus.texts)} given", "at least one")

    references = dict.fromkeys(("reference vectors", run.reference.texts_digest) for run in report.runs.values())
    for what, digest in (("texts", report.texts.digest), *references):
        if digest != corpus.digest:
            got = f"its {what} are of {report.texts.name} {digest[:12]}"
            yield failure("other-texts", got, f"{corpus.name} {corpus.digest[:12]}")
    if report.texts.count != len(corpus.texts):
        yield failure("other-texts", f"{report.texts.count} texts", f"{len(corpus.texts)} of {corpus.name}")

    names = dict.fromkeys(name for run in report.runs.values() for name in run.other_files)
    yield from other_file_failures(names, report.checkpoint.source)

    texts = {text.id: text.shown for text in corpus.texts}
    for name in [name for run in report.runs.values() for name in run.other_token_ids or ()]:
        got = "transformers' AutoTokenizer makes other token ids of it"
        yield failure("token-ids", got, "the checkpoint's own", row=name, text=texts.get(name))


def _lane_set_failures(report: ParityReport) -> Iterator[Failure]:
    """Yield refusals if there are no lanes, or a lane is a duplicate, has no run record, or is of an unknown target."""
    if not report.lanes or not report.targets:
        yield failure("no-lanes", f"{len(report.lanes)} lanes, {len(report.targets)} targets", "at least one")

    keys = Counter((x.run, x.target, x.model, x.output, x.runtime, x.device, x.threads) for x in report.lanes)
    for key, count in keys.items():
        if count > 1:
            yield failure("inconsistent", f"the lane {' '.join(map(str, key)).strip()} appears {count} times", "once")

    for lane in report.lanes:
        if lane.run not in report.runs:
            yield failure("inconsistent", f"no record of the run {lane.run!r}", "one for every lane", lane=lane.name)
        if lane.target not in report.targets:
            needed = f"one of {', '.join(report.targets)}"
            yield failure("inconsistent", "a target that the folder does not have", needed, lane=lane.name)


def _lane_failures(lane: Lane, report: ParityReport, policy: ThresholdPolicy, corpus: Corpus) -> Iterator[Failure]:
    """Yield the refusals of one lane, including those of its rows."""
    if lane.target.startswith(CHECKPOINT) and lane.artifact_digest != report.checkpoint.digest:
        got = f"another checkpoint, {lane.artifact_digest[:12]}"
        yield failure("other-bytes", got, report.checkpoint.digest[:12], lane=lane.name)
    if lane.spec != report.spec:
        yield failure("inconsistent", "the artifact promises another embedding", "the checkpoint's", lane=lane.name)

    if lane.failed is not None:
        yield failure("crashed", lane.failed, "embeddings", lane=lane.name)
    if lane.unavailable is not None and lane.requested:
        yield failure("unavailable", lane.unavailable, "a measurement: it was asked for", lane=lane.name)

    silent = lane.unavailable is not None or lane.failed is not None
    if silent == bool(lane.facts_of_texts):
        got = "rows of a lane that could not run" if silent else "no rows, and no reason why"
        yield failure("inconsistent", got, "rows, or the reason why there are none", lane=lane.name)

    if lane.facts_of_texts:
        yield from _measured_failures(lane, report, policy, corpus)


def _measured_failures(lane: Lane, report: ParityReport, policy: ThresholdPolicy, corpus: Corpus) -> Iterator[Failure]:
    """Yield the refusals of the rows of a lane, of each row and of all rows together."""
    if report.texts.digest == corpus.digest:
        yield from _row_set_failures(lane, corpus)
    if not rows_of_its_head(lane):
        got = f"{len(lane.rows)} rows of texts and {len(lane.scores)} of pairs"
        yield failure("inconsistent", got, "rows of what the output's head gives alone", lane=lane.name)
        return

    if report.spec.is_reranker:
        yield from _scored_failures(lane, report, policy, corpus)
        return

    if lane.weights or lane.vectors:
        yield from token_head_failures(lane, report, policy)
        return

    limits = policy.limits_for(lane.target, lane.runtime, lane.device)
    if limits is None:
        yield failure("unknown-target", f"no limits for {lane.target}", f'a table ["{lane.target}"]', lane=lane.name)
        return

    if limits.by_kind and not any(row.kind == "everyday" for row in lane.rows):
        yield failure("no-texts", "no everyday text for this checkpoint", "at least one", lane=lane.name)

    refused = [bad for row in lane.rows for bad in judge_row(row, lane, limits)]
    yield from refused
    yield from swap_failures(lane)
    if (run := report.runs.get(lane.run)) is not None:
        yield from sweep_lane_failures(lane, run.reference, partial(state_failures, lane, limits))
    yield from judge_zeros(lane)
    yield from judge_shift(lane, limits)
    yield from _client_failures(lane, policy, limits, corpus)

    dense = report.spec.heads.dense
    pooling = "" if dense is None else dense.pooling
    if lane.pooling_seen not in (None, pooling) and _is_other_pooling(lane, limits, refused):
        yield failure("wrong-pooling", f"the vectors agree with {lane.pooling_seen} pooling", pooling, lane=lane.name)


def _scored_failures(lane: Lane, report: ParityReport, policy: ThresholdPolicy, corpus: Corpus) -> Iterator[Failure]:
    """Yield the refusals of a reranker's lane that has scores."""
    limits = policy.score_limits_for(lane.target, lane.runtime, lane.device)
    if limits is None:
        got, needed = f"no limits for scores of {lane.target}", f'a table [{SCORES}."{lane.target}"]'
        yield failure("unknown-target", got, needed, lane=lane.name)
        return

    if report.texts.digest == corpus.digest:
        yield from pair_set_failures(lane, corpus)
    run = report.runs.get(lane.run)
    yield from score_failures(lane, None if run is None else run.reference, limits)


def _is_other_pooling(lane: Lane, limits: Limits, refused: Sequence[Failure]) -> bool:
    """Return whether the agreement with another pooling than the checkpoint's is a fault.

    It is a fault if texts are refused for their cosine. The limits of rounded weights are so wide that some checkpoints
    pass them with another pooling; with such limits it is a fault as well, unless half of the texts match exactly,
    since exact vectors need no other explanation.
    """
    if any(bad.rule == "cosine" for bad in refused):
        return True

    return limits.by_kind and not median(row.cosine or 0.0 for row in lane.rows) >= 1 - SAME


def _client_failures(lane: Lane, policy: ThresholdPolicy, limits: Limits, corpus: Corpus) -> Iterator[Failure]:
    """Yield the refusals of a client's native pipeline, and of its absence if the policy has a pattern for the lane."""
    accepted = policy.accepted_differences(lane.runtime, lane.device)
    texts = {text.id: text.text for text in corpus.texts}

    for row in lane.rows:
        if row.client is not None:
            yield from judge_client(row, row.client, texts.get(row.id, ""), lane, limits, accepted or frozenset())
        elif accepted is not None:
            got = "nothing of the client's own tokenizer"
            yield failure("client-missing", got, "what it makes of the text", lane=lane.name, row=row.id, text=row.text)


def _row_set_failures(lane: Lane, corpus: Corpus) -> Iterator[Failure]:
    """Yield a refusal for each missing, extra, duplicate or mismatched row, and for rows in another order."""
    seen = Counter(row.id for row in lane.facts_of_texts)
    texts = {text.id: text.shown for text in corpus.texts}

    for name, text in texts.items():
        if seen[name] == 0:
            yield failure("missing-row", "no row", "one row a text", lane=lane.name, row=name, text=text)

    for row in lane.facts_of_texts:
        fail = partial(failure, lane=lane.name, row=row.id, text=row.text)
        if row.id not in texts:
            yield fail("extra-row", "a row of no text that was given", "one row a text")
        elif row.text != texts[row.id]:
            yield fail("other-texts", "a row with another text", texts[row.id])
        if seen[row.id] > 1:
            yield fail("duplicate-row", f"{seen[row.id]} rows of one text", "one row a text")

    if set(seen) == set(texts) and list(seen) != list(texts):
        yield failure("row-order", "rows in another order than the texts", "the order of the texts", lane=lane.name)
