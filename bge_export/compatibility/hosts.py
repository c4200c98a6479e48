"""Measures the cost of a file on a host with limits: in a fresh process with one thread, as the host runs it."""

import time

from bge_export.compatibility.findings import Finding, Measured
from bge_export.compatibility.targets import TargetFacts
from bge_export.contracts import Artifact
from bge_export.runtimes.transformersjs import TransformersJs

TEXT = "That is a happy person"


def measure(artifact: Artifact, device: str) -> Measured:
    """Return peak memory and times of a first and a second embedding.

    Raises:
        ClientError: the client failed.
        DeviceUnavailable: Deno or the clients are not installed.
    """
    start = time.monotonic()
    session = TransformersJs().open(artifact, device, 1)

    try:
        session.embed_text(TEXT)
        cold = time.monotonic() - start
        cold_cpu, _ = session.usage()

        again = time.monotonic()
        session.embed_text(TEXT)
        warm = time.monotonic() - again

        return Measured(session.usage()[1], cold, cold_cpu, warm)
    finally:
        session.close()


def over_limits(measured: Measured, facts: TargetFacts) -> list[Finding]:
    """Return the host's limits that a file exceeds; a missing or NaN figure counts as exceeding its limit."""
    findings = []

    limit = facts.memory_bytes
    if limit is not None and (measured.peak_bytes is None or measured.peak_bytes > limit):
        got = "an unknown peak" if measured.peak_bytes is None else f"a peak of {measured.peak_bytes / 2**20:.0f} MiB"
        findings.append(Finding("memory", got, f"at most {limit / 2**20:.0f} MiB"))

    if facts.cpu_seconds is not None and not measured.cold_cpu_seconds <= facts.cpu_seconds:
        got = f"{measured.cold_cpu_seconds:.2f} s of CPU up to the first embedding"
        findings.append(Finding("cpu", got, f"at most {facts.cpu_seconds:g} s"))
    return findings
