"""Refusals about missing measurements: targets, and runtimes and devices that the policy or the user asked for."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from bge_export.heads.dense import required_outputs
from bge_export.parity.gate.policy import Requirement
from bge_export.parity.gate.verdict import Failure, failure
from bge_export.parity.report import Lane, ParityReport
from bge_export.runtimes import formats_of

CHECKPOINT = "checkpoint-"
"""Prefix of targets that are the checkpoint itself, run in torch on another device: no folder contains them."""

UNPINNED = frozenset({"openvino_default_hint"})
"""Runtimes that choose their own precision. Their limits are so wide that they show what users get but prove nothing:
a wrong artifact could pass them if the runtime with pinned precision was not measured."""


def proves(lane: Lane) -> bool:
    """Return whether a lane, if its rows pass, proves that the artifact matches the checkpoint."""
    return lane.measured and lane.runtime not in UNPINNED


def missing_outputs(report: ParityReport) -> Iterator[Failure]:
    """Yield a refusal for each promised output that a file does not give in a runtime, whatever its manifest lists."""
    required = required_outputs(report.spec.to_spec())
    given: dict[tuple[str, str, str, str, str], set[str]] = defaultdict(set)
    for lane in report.lanes:
        if not lane.target.startswith(CHECKPOINT):
            given[lane.run, lane.target, lane.model, lane.runtime, lane.device].add(lane.output)

    for (_, target, model, runtime, device), outputs in given.items():
        for name in required:
            if name not in outputs:
                got = f"{model} gives no {name} in {target}@{runtime}:{device}"
                yield failure("not-measured", got, f"the promised outputs {', '.join(required)}")


def unmeasured(report: ParityReport, target: str) -> Iterator[Failure]:
    """Yield the refusal of a target of the folder if no lane with pinned precision measured it."""
    lanes = [lane for lane in report.lanes if lane.target == target]
    if any(proves(lane) for lane in lanes):
        return

    needed = "at least one lane with rows"
    if seen := sorted({lane.runtime for lane in lanes if lane.measured}):
        got = f"{target} was measured in {', '.join(seen)} alone"
        yield failure("not-measured", got, f"{needed} in a runtime whose precision is pinned")
    else:
        yield failure("not-measured", f"{target} was measured nowhere{_reason(lanes)}", needed)


def requirement_failures(report: ParityReport, required: Requirement) -> Iterator[Failure]:
    """Yield a failure for each target that was not measured in the required runtime and device.

    A requirement without a target applies to every target whose format the runtime reads, so that no other precision
    or format can replace one that was left out.
    """
    lanes = [lane for lane in report.lanes if lane.runtime == required.runtime]
    formats = formats_of(required.runtime) | {lane.target.partition("-")[0] for lane in lanes}
    targets = [required.target] if required.target else [t for t in report.targets if t.partition("-")[0] in formats]
    if not targets:
        yield failure("required-missing", f"nothing was measured in {required.runtime}", str(required))

    for target in targets:
        there = [lane for lane in lanes if lane.target == target and lane.device == required.device]
        if not any(lane.measured for lane in there):
            yield failure("required-missing", f"{target} was not measured there{_reason(there)}", str(required))


def request_failures(report: ParityReport, name: str) -> Iterator[Failure]:
    """Yield the refusal of a requested `runtime:device` that has no lane, because it reads no artifact's format.

    An artifact that could not run there has lanes, and each of them is refused separately.
    """
    if not any(f"{lane.runtime}:{lane.device}" == name and lane.requested for lane in report.lanes):
        yield failure("required-missing", f"nothing was measured at {name}", f"{name}: it was asked for")


def _reason(lanes: Sequence[Lane]) -> str:
    """Return the first reason that the report gives for lanes without rows, in parentheses, or an empty text."""
    reasons = [reason for lane in lanes for reason in (lane.unavailable, lane.failed) if reason is not None]
    return f" ({reasons[0]})" if reasons else ""
