"""Loads one artifact in a process of its own and says what that took: `python -m bge_export.bench.fresh`.

It is told what to load on standard input, and answers on standard output, in JSON. It imports what a program that
embeds would: a runtime's library and numpy.
"""

import json
import sys
import time
from contextlib import closing
from importlib import import_module
from pathlib import Path

import numpy as np

from bge_export.capabilities import ClientRuntime, TimedSession
from bge_export.contracts import Artifact, EmbeddingSpec, Target, TokenBatch
from bge_export.errors import BgeExportError
from bge_export.runtimes import find_runtime

TOKENS = 16
MIB = 1 << 20


def main() -> None:
    """Load, embed one text, and write down the time and the peaks."""
    order = json.load(sys.stdin)
    fields = order["artifact"]
    artifact = Artifact(
        **{
            **fields, "root": Path(fields["root"]), "target": Target(**fields["target"]),
            "spec": EmbeddingSpec(**fields["spec"]),
            **{name: tuple(fields[name]) for name in ("files", "inputs", "outputs")},
        }
    )  # fmt: skip
    try:
        facts = _load(artifact, order["runtime"], order["device"], order["threads"])
    except BgeExportError as error:
        raise SystemExit(str(error)) from error
    sys.stdout.write("\n" + json.dumps(facts) + "\n")


def _load(artifact: Artifact, runtime_name: str, device: str, threads: int) -> dict[str, float | None]:
    runtime = find_runtime(runtime_name)
    client = isinstance(runtime, ClientRuntime)  # its library and its memory are not this process's
    if not client:
        import_module(runtime.library)
        runtime.devices()  # some libraries load a part of themselves when they are asked for these
    before = None if client else peak_mib()
    start = time.perf_counter()
    session = runtime.open(artifact, device, threads)
    load_seconds = time.perf_counter() - start
    ones = np.ones((1, TOKENS), dtype=np.int64)
    with closing(session):
        session.embed(TokenBatch(ones, ones, ones * 0))
        peak = _in_mib(session.peak_bytes()) if isinstance(session, TimedSession) else peak_mib()
    return {"load_seconds": load_seconds, "before_mib": before, "peak_mib": peak}


def _in_mib(size: int | None) -> float | None:
    return None if size is None else size / MIB


def peak_mib() -> float | None:
    """Return the largest share of memory that this process has had, in MiB; None where the system does not say.

    On Linux from its status: `getrusage` there counts what the process that started this one had.
    """
    try:
        status = Path("/proc/self/status").read_text("utf-8")
    except OSError:
        return _peak_by_usage()
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM:")), None)


def _peak_by_usage() -> float | None:
    try:
        resource = import_module("resource")
    except ImportError:
        return None
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / MIB  # bytes, on macOS


if __name__ == "__main__":
    main()
