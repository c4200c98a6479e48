"""Refusals about int8 weights: saturating pairs (`vpmaddubsw`) change the vectors on processors without VNNI."""

from collections.abc import Iterator

from bge_export.parity.gate.policy import ThresholdPolicy
from bge_export.parity.gate.verdict import Failure, failure
from bge_export.parity.report import PairsRecord, ParityReport


def pair_failures(report: ParityReport, policy: ThresholdPolicy) -> Iterator[Failure]:
    """Yield the refusals of artifacts whose weights violate the saturation constraint or were not inspected.

    The count belongs to the file, not to the runtime: one lane with the same bytes may supply it for all.
    """
    files = dict.fromkeys((lane.target, lane.model, lane.artifact_digest) for lane in report.lanes)

    for target, model, digest in files:
        lanes = [x for x in report.lanes if (x.target, x.model, x.artifact_digest) == (target, model, digest)]
        found = list(dict.fromkeys(lane.pairs for lane in lanes if lane.pairs is not None))
        limits = policy.file_tables(report.spec.heads.kinds).get(target)
        limit = None if limits is None else limits.max_broken_pairs

        if limit is not None and not found:
            yield failure("pair-rule", f"the int8 weights of {model} were not inspected", "a count of their pairs")
        if len(found) > 1:
            yield failure("inconsistent", f"{len(found)} counts of the pairs of {model}", "one for the same bytes")
        for pairs in found:
            yield from _judged(pairs, f"{target} {model}", limit)


def _judged(pairs: PairsRecord, file: str, limit: int | None) -> Iterator[Failure]:
    """Yield the refusals of one file. A file without a limit may contain int8 weights, but no saturating pairs."""
    if not _fits(pairs):
        yield failure(
            "inconsistent", f"{pairs.saturating} of {pairs.pairs} pairs of {file}", "counts that fit together"
        )

    if limit is not None and pairs.weights == 0:
        got = f"{file} has no int8 weights that are multiplied with 8-bit activations"
        yield failure("pair-rule", got, "at least one, or no max_broken_pairs")

    if pairs.saturating > (limit or 0):
        got = f"{file}: {pairs.saturating} of {pairs.pairs} pairs, first in {pairs.first} ({pairs.first_saturating})"
        yield failure("pair-rule", got, f"at most {limit or 0}", would_pass=str(pairs.saturating))


def _fits(pairs: PairsRecord) -> bool:
    counts = 0 <= pairs.first_saturating <= pairs.saturating <= pairs.pairs and pairs.weights >= 0
    named = (pairs.first is not None) == (pairs.first_saturating > 0) == (pairs.saturating > 0)
    return counts and named and (pairs.weights > 0 or pairs.pairs == 0)
