"""Measures load time and memory of one artifact in a separate process: `python -m bge_export.bench.fresh`.

It reads a request from standard input and writes the figures to standard output, both as JSON. It imports only what an
embedding program would: a runtime's library and numpy.
"""

import json
import sys
import time
from contextlib import closing
from importlib import import_module
from pathlib import Path

import numpy as np

from bge_export.capabilities import ClientRuntime, TimedSession
from bge_export.contracts import Artifact, Target, TokenBatch
from bge_export.errors import BgeExportError
from bge_export.files.proc import peak_bytes
from bge_export.heads import spec_of
from bge_export.runtimes import find_runtime

TOKENS = 16
MIB = 1 << 20


def main() -> None:
    """Load the artifact, embed one text, and write load time and peak memory."""
    order = json.load(sys.stdin)

    fields = order["artifact"]  # JSON has no paths, tuples or dataclasses
    artifact = Artifact(
        **{
            **fields,
            "root": Path(fields["root"]),
            "target": Target(**fields["target"]),
            "spec": spec_of(fields["spec"]),
            **{name: tuple(fields[name]) for name in ("files", "inputs", "outputs")},
        }
    )

    try:
        facts = _load(artifact, order["runtime"], order["device"], order["threads"])
    except BgeExportError as error:
        raise SystemExit(str(error)) from error

    # The answer is the last line: a library may print before it.
    sys.stdout.write("\n" + json.dumps(facts) + "\n")


def _load(artifact: Artifact, runtime_name: str, device: str, threads: int) -> dict[str, float | None]:
    runtime = find_runtime(runtime_name)
    client = isinstance(runtime, ClientRuntime)  # its library and memory belong to another process
    if not client:
        import_module(runtime.library)
        runtime.devices()  # some libraries load parts of themselves only for this query
    before = None if client else _in_mib(peak_bytes())

    start = time.perf_counter()
    session = runtime.open(artifact, device, threads)
    load_seconds = time.perf_counter() - start

    ones = np.ones((1, TOKENS), dtype=np.int64)
    with closing(session):
        session.run(TokenBatch(ones, ones, ones * 0))
        peak = _in_mib(session.peak_bytes() if isinstance(session, TimedSession) else peak_bytes())

    return {"load_seconds": load_seconds, "before_mib": before, "peak_mib": peak}


def _in_mib(size: int | None) -> float | None:
    return None if size is None else size / MIB


if __name__ == "__main__":
    main()
