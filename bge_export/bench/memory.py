"""Runs one fresh process per artifact to measure load time and memory, because a process's peak never falls again.

The process is cold, but the file may not be: the system may still have it in its page cache.
"""

import json
import signal
import subprocess
import sys
from dataclasses import asdict

from bge_export.bench.report import LoadFacts
from bge_export.contracts import Artifact
from bge_export.errors import ArtifactError
from bge_export.parity.measure.measurement import RuntimeDevice

COMMAND = (sys.executable, "-P", "-m", "bge_export.bench.fresh")


def load_fresh(artifact: Artifact, device: RuntimeDevice, threads: int) -> LoadFacts:
    """Load an artifact in a new process and embed one text of 16 tokens there.

    Raises:
        ArtifactError: the process ended without a result.
    """
    fields = {**asdict(artifact), "root": str(artifact.root.resolve())}
    order = {"artifact": fields, "runtime": device.runtime.name, "device": device.device, "threads": threads}

    done = subprocess.run(  # noqa: S603 - this interpreter, with no user input on the command line
        COMMAND, input=json.dumps(order), capture_output=True, text=True, check=False
    )

    if done.returncode != 0:
        raise ArtifactError(
            f"{artifact.model} cannot be loaded in {device.runtime.name}:{device.device}, in a process of its own: "
            f"{_reason(done)}"
        )
    return LoadFacts.model_validate_json(done.stdout.splitlines()[-1])


def _reason(done: "subprocess.CompletedProcess[str]") -> str:
    """Return why the process failed: the signal that ended it, or its last line of standard error."""
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        return f"the process was ended by {name}" + (", often for want of memory" if name == "SIGKILL" else "")

    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return lines[-1] if lines else f"the process ended with status {done.returncode}"
