"""Runs cases in processes of their own, so that a crash, a hang or a flood of memory is a finding and not the end."""

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CASE_SECONDS = 5.0
"""Time of the processor that a case may take."""
WAIT_SECONDS = 60.0
"""Time of the clock that a case may take, on a machine with other work."""
START_SECONDS = 600.0


@dataclass(frozen=True)
class Finding:
    """A case that ended in something else than a success or a project error."""

    reader: str
    seed: int
    problem: str


class Child:
    """A process that reads wrong files; `folder` is all that it may touch."""

    def __init__(self, folder: Path, readers: Sequence[str]) -> None:
        home, work = folder / "home", folder / "work"
        home.mkdir()
        work.mkdir()
        kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}
        paths = (ROOT, ROOT / "tests", ROOT / "tests/support")
        environment = kept | {
            "PYTHONPATH": os.pathsep.join(map(str, paths)), "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONHASHSEED": "0", "HOME": str(home), "TMPDIR": str(home), "HF_HOME": str(home), "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false",
        }  # fmt: skip
        command = [sys.executable, "-W", "ignore", "-m", "fuzz.child", str(work), *readers]
        self.process = subprocess.Popen(
            command, cwd=home, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.ready = self._answer(START_SECONDS)
        # Libraries may keep something there when they start; no case may.
        self.home, self.before = home, set(home.rglob("*"))

    def run(self, reader: str, seed: int) -> str:
        """Return what is wrong with a case, empty for nothing."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([reader, seed]) + "\n")
        self.process.stdin.flush()
        answer = self._answer_of_case()
        if answer is None:
            try:
                return f"the process ended with {self.process.wait(timeout=1)}"
            except subprocess.TimeoutExpired:
                return f"no end within {CASE_SECONDS:.0f} seconds of the processor"
        if left := set(self.home.rglob("*")) - self.before:
            self.before |= left
            return f"it left {sorted(map(str, left))[:3]}"
        return str(answer["problem"])

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()

    def _answer_of_case(self) -> dict[str, object] | None:
        """Return the answer to a case, None if the process ends or takes longer than it may."""
        start, end = self._processor_seconds(), time.monotonic() + WAIT_SECONDS
        while (answer := self._answer(1.0)) is None and self.process.poll() is None:
            if self._processor_seconds() - start > CASE_SECONDS or time.monotonic() > end:
                return None
        return answer

    def _processor_seconds(self) -> float:
        """Return the processor's time that the process has taken; 0 where the system does not say it."""
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _answer(self, seconds: float) -> dict[str, object] | None:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        line = self.process.stdout.readline() if ready else ""
        return json.loads(line) if line else None


def hunt(cases: Iterable[tuple[str, int]], readers: Sequence[str]) -> Iterator[tuple[str, int, str]]:
    """Yield reader, seed and problem of every case; a process that crashed or hung is replaced."""
    child = None
    with tempfile.TemporaryDirectory() as top:
        try:
            for number, (reader, seed) in enumerate(cases):
                if child is None:
                    folder = Path(top) / str(number)
                    folder.mkdir()
                    child = Child(folder, readers)
                    assert child.ready, "a valid input is not read"
                problem = child.run(reader, seed)
                yield reader, seed, problem
                if problem.startswith(("no end", "the process ended")):
                    child.close()
                    child = None
        finally:
            if child is not None:
                child.close()


def findings(cases: Iterable[tuple[str, int]], readers: Sequence[str]) -> list[Finding]:
    """Return what is wrong among the cases."""
    return [Finding(*found) for found in hunt(cases, readers) if found[2]]
