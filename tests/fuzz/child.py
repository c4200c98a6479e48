"""Reads wrong files, one case a line of standard input: `python -m fuzz.child FOLDER`.

It answers each case with a line of JSON. What it cannot say of itself (a crash, no end) its parent sees.
"""

import json
import os
import random
import resource
import sys
import traceback
from pathlib import Path

MOST_GROWTH_KIB = 600 * 1024
SPARE_BYTES = 6 << 30
"""What a case may map beyond what the libraries have mapped already."""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.symlink", "os.link", "os.truncate", "os.chmod",
           "shutil.rmtree", "subprocess.Popen", "os.system", "socket.connect", "os.exec", "os.posix_spawn")  # fmt: skip


class Watch:
    """Notes what Python code writes, removes, starts or connects to while a case runs."""

    def __init__(self) -> None:
        self.on = False
        self.seen: list[str] = []
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self.on:
            return
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING
        if (writes and arguments[0] != os.devnull) or event in CHANGES:
            self.seen.append(f"{event} {arguments[0]!r}")


def run(reader: str, seed: int, folder: Path, watch: Watch) -> dict[str, object]:
    """Read one wrong version of a reader's input; return what came of it."""
    from fuzz.mutations import MUTATE
    from fuzz.readers import READERS

    from bge_export.errors import BgeExportError

    rng = random.Random(f"{reader} {seed}")
    name, kind = rng.choice(sorted(READERS[reader].files.items()))
    path = folder / name
    whole = path.read_bytes()
    path.write_bytes(MUTATE[kind](whole, rng))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcome, problem = "read", ""
    watch.seen, watch.on = [], True
    try:
        READERS[reader].read(folder)
    except BgeExportError as error:
        outcome, chain = "refused", error
        while chain is not None and not isinstance(chain, MemoryError):
            chain = chain.__cause__
        if chain is not None or not str(error).strip():
            problem = f"refused with {chain!r} behind it: {error}"
    except BaseException:  # noqa: BLE001 - what a reader lets pass is what is looked for
        problem = traceback.format_exc()
    finally:
        watch.on = False
    path.write_bytes(whole)
    growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    if growth > MOST_GROWTH_KIB:
        problem = problem or f"it took {growth // 1024} MiB more memory"
    if watch.seen:
        problem = problem or f"it did more than read: {watch.seen[:3]}"
    return {"outcome": outcome, "problem": problem, "file": name}


def limit() -> None:
    """Limit memory and files of this process, and leave no core where it crashes."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + SPARE_BYTES,) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 20,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    from fuzz.readers import READERS

    base, watch = Path(sys.argv[1]), Watch()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    for name in sys.argv[2:]:
        (base / name).mkdir()
        READERS[name].write(base / name)
        READERS[name].read(base / name)
    limit()
    os.dup2(1, 2)  # libraries written in Rust and C++ tell their panics there
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        reader, seed = json.loads(line)
        print(json.dumps(run(reader, seed, base / reader, watch)), file=answers, flush=True)


if __name__ == "__main__":
    main()
