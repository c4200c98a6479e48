"""Runs the command line in processes of its own, forked from one process that has imported its libraries already.

torch and what it brings along take seconds to import, more than most commands take. What is about imports, about the
environment that they read, or about a stream or a signal, needs a new interpreter instead.
"""

import atexit
import gc
import importlib
import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

LIBRARIES = (
    "bge_export.cli",
    "bge_export.commands",
    "bge_export.graph.trace",
    "bge_export.precision.int8.quantize",
    "scipy.optimize",
    "sympy",
    "transformers.modeling_layers",
    "transformers.models.bert.modeling_bert",
)
"""What takes long to import, most of it not before an export needs it. ONNX Runtime and OpenVINO are left to the forks:
they start threads when they are imported, and a fork has none of its parent's."""

SECONDS = 300


class CommandLine:
    """A process with all imports done, which forks once for each command and runs one at a time."""

    def __init__(self) -> None:
        """Start the process; it is ready when its imports are done, so the first command waits for them."""
        # Else torch and the tokenizer start threads, which no fork would have.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def run(
        self,
        arguments: Sequence[str],
        cwd: Path | None,
        environment: dict[str, str],
        *,
        killed_at: int | None = None,
        largest_file: int | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run one command in a fork; return what `subprocess.run` would.

        Args:
            arguments: the command line without the program's name.
            cwd: the folder it runs in.
            environment: its environment.
            killed_at: the number of the renaming below `cwd` at which it is killed, before anything is renamed; counted
                from 1.
            largest_file: the bytes that a file may have; a disk that is full.
        """
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder, "out"), Path(folder, "err")
            request = {"arguments": arguments, "cwd": str(cwd or Path.cwd()), "environment": environment}
            request |= {"killed_at": killed_at, "largest_file": largest_file}
            self._process.stdin.write(json.dumps({**request, "out": str(out), "err": str(err)}) + "\n")
            self._process.stdin.flush()

            answer = self._process.stdout.readline()
            assert answer, "the process with the imports has ended"
            return subprocess.CompletedProcess(
                ["bge-export", *arguments], int(answer), out.read_text("utf-8"), err.read_text("utf-8")
            )

    def close(self) -> None:
        """End the process, and close its pipes."""
        with self._process:
            self._process.stdin.close()


def serve() -> None:
    """Import the libraries, and fork for each line of standard input."""
    for name in LIBRARIES:
        importlib.import_module(name)
    remember_tiny()
    gc.collect()
    gc.freeze()  # what was imported is not searched for garbage in every fork
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "a thread has been started, which no fork would have"

    for line in sys.stdin:
        if os.fork() == 0:
            request = json.loads(line)
            start_over(request)
            os._exit(status_of(request["arguments"]))
        _, status = os.wait()
        print(os.waitstatus_to_exitcode(status), flush=True)
    gc.unfreeze()  # libraries count what is left at the end


def remember_tiny() -> None:
    """Ask the oracle what every export of the embedded checkpoint asks it, for all forks."""
    from remembered import remembering

    from bge_export.checkpoint.opening import open_checkpoint
    from bge_export.commands import measuring
    from bge_export.texts.corpus import builtin_corpus
    from bge_export.texts.fixtures import fixtures_folder

    measuring.embed_texts = remembering(measuring.embed_texts)
    measuring.embed_texts(open_checkpoint(fixtures_folder() / "tiny"), builtin_corpus(), threads=1)


def start_over(request: dict) -> None:
    """Take the folder, the environment and the streams of a request, as a process that a shell has started."""
    signal.alarm(SECONDS)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])

    writing = os.O_WRONLY | os.O_CREAT
    for number, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, request["out"], writing),
        (2, request["err"], writing),
    ):
        descriptor = os.open(path, flags)
        os.dup2(descriptor, number)
        os.close(descriptor)

    if request["largest_file"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["largest_file"],) * 2)
    if request["killed_at"] is not None:
        kill_at(request["killed_at"], str(Path.cwd()))


def kill_at(number: int, below: str) -> None:
    """Kill this process at a renaming below a folder, before anything is renamed; they are counted from 1."""
    renamings = itertools.count(1)

    def hear(event: str, arguments: tuple) -> None:
        there = event == "os.rename" and os.path.abspath(os.fsdecode(arguments[1])).startswith(below)
        if there and next(renamings) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hear)


def status_of(arguments: list[str]) -> int:
    """Run the command line to its end; return its exit status."""
    from bge_export.cli import main

    sys.argv = ["bge-export", *arguments]
    try:
        main()
    except SystemExit as ended:
        status = ended.code
    except BaseException:  # noqa: BLE001 - a fork that let any out would go on as its parent
        traceback.print_exc()
        status = 1

    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return status


if __name__ == "__main__":
    serve()
