"""Kills builds at random moments, lets them go on, and compares the folders with one that was built undisturbed.

    .venv/bin/python scripts/kill_build.py --times 20 [--recipe recipe.toml] [--seed 1]

Paths in a recipe must be absolute, and its folder `out`. Without one the embedded tiny checkpoint is built. Each build
is killed (SIGKILL, with all that it started) once or twice, after a random part of the time that an undisturbed one
takes, then runs to its end. Exit status 1 if a folder differs from the undisturbed one in a single byte, if anything is
left beside it, or if what stood there was not proven.
"""

import argparse
import contextlib
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TINY = f"""
targets = ["onnx:fp16", "onnx:fp32", "openvino:fp16"]

[source]
model = "{ROOT / "parity_fixtures/tiny"}"

[output]
folder = "out"

[card]
license = "mit"
"""


def digests(folder: Path) -> dict[str, str]:
    """Return name -> sha256 of every file of a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def started(folder: Path) -> subprocess.Popen[str]:
    """Start a build in a folder, as the first of a group of processes."""
    command = [sys.executable, "-m", "bge_export", "build", "recipe.toml"]
    log = (folder.parent / f"{folder.name}.log").open("a")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, cwd=folder, stdout=log, stderr=log, text=True, start_new_session=True, env=environment
    )


def finished(folder: Path) -> float:
    """Build to the end; return the seconds."""
    start = time.monotonic()
    status = started(folder).wait()
    if status:
        raise SystemExit(f"{folder.parent / folder.name}.log: the build ended with status {status}")
    return time.monotonic() - start


def killed(folder: Path, seconds: float) -> bool:
    """Start a build and kill it after some seconds; return False if it was done before."""
    process = started(folder)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
        return False
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return True


def proven(folder: Path) -> bool:
    """Return whether the gate passes what stands in a folder, or nothing stands there."""
    standing = next((one for one in (folder / "out", folder / ".out.bge-export.old") if one.exists()), None)
    if standing is None:
        return True
    command = [sys.executable, "-m", "bge_export", "gate", str(standing)]
    return subprocess.run(command, capture_output=True, cwd=ROOT, check=False).returncode == 0


def fresh(parent: Path, name: str, recipe: str) -> Path:
    """Return a new folder with the recipe."""
    folder = parent / name
    folder.mkdir()
    (folder / "recipe.toml").write_text(recipe, "utf-8")
    return folder


def main() -> None:
    """Kill, go on, compare."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--recipe", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()

    recipe = TINY if chosen.recipe is None else chosen.recipe.read_text("utf-8")
    random.seed(chosen.seed)
    wrong = 0

    with tempfile.TemporaryDirectory(prefix="bge_export-kills-") as name:
        undisturbed = fresh(Path(name), "undisturbed", recipe)
        whole = finished(undisturbed)
        expected, names = digests(undisturbed / "out"), sorted(path.name for path in undisturbed.iterdir())
        print(f"undisturbed: {whole:.1f} s, {len(expected)} files")

        for number in range(1, chosen.times + 1):
            folder = fresh(Path(name), str(number), recipe)
            moments = sorted(random.uniform(0, whole) for _ in range(random.choice((1, 1, 2))))  # noqa: S311 - no secret
            dead = [f"{seconds:.1f} s" for seconds in moments if killed(folder, seconds)]
            stood = proven(folder)
            seconds = finished(folder)

            same = digests(folder / "out") == expected and sorted(path.name for path in folder.iterdir()) == names
            wrong += not (same and stood)
            verdict = "same bytes" if same else "OTHER BYTES"
            print(f"{number}: killed after {', '.join(dead) or '-'}, went on {seconds:.1f} s: {verdict}", flush=True)
            if not stood:
                print(f"{number}: what stood there was NOT PROVEN")
            shutil.rmtree(folder)

    print(f"{chosen.times - wrong} of {chosen.times} builds ended with the bytes of the undisturbed one")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
