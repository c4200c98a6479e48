"""The how-to page on formats and precisions: its files are added to a copy of the package, used, and removed again."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import bge_export
from bge_export.texts.fixtures import FOLDER, fixtures_folder

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/how-to/add-a-format.md").read_text("utf-8")
FILE = re.compile(r"<!-- file: (?P<name>\S+) -->\n```\w+\n(?P<text>.*?)^```", re.DOTALL | re.MULTILINE)
LIMITS = f"{FOLDER}/thresholds.toml"


def section(title: str) -> str:
    """Return the part of the page under a heading."""
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def commands(text: str) -> list[list[str]]:
    lines = [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder with a copy of the package and of the fixtures, where `python -m bge_export` runs the copy."""
    root = tmp_path / "copy"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(bge_export.__file__).parent, root / "bge_export", ignore=ignored)
    shutil.copytree(fixtures_folder(), root / FOLDER, ignore=ignored)

    # Every tenth text tells as much here as all of them.
    texts = root / FOLDER / "texts.jsonl"
    texts.write_text("".join(texts.read_text("utf-8").splitlines(keepends=True)[::10]), "utf-8")
    return root


SESSION = """
import sys
from bge_export.cli import run

statuses = []
for words in {commands!r}:
    statuses.append(run(words) if isinstance(words, list) else exec(words) or 0)
    for stream in (sys.stdout, sys.stderr):
        print({mark!r}, file=stream, flush=True)
print(*statuses)
"""
MARK = "---- next command ----"


def bge(root: Path, *lines: list[str] | str) -> list[tuple[int, str, str]]:
    """Run commands or Python code in the copy, in one process; return the exit status and the outputs of each."""
    code = SESSION.format(commands=list(lines), mark=MARK)
    environment = {**os.environ, "COLUMNS": "200", "PYTHONPATH": str(root)}  # for the processes of `bench`, too
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *printed, statuses = done.stdout.split(f"{MARK}\n")
    errors = done.stderr.split(f"{MARK}\n")
    return list(zip(map(int, statuses.split()), printed, errors, strict=False))


def add(root: Path, text: str) -> tuple[list[Path], list[str]]:
    """Write the files of a part of the page; return the new files, and the names of the changed ones."""
    new, changed = [], []
    for match in FILE.finditer(text):
        path = root / match["name"]
        if path.exists():
            changed.append(match["name"])
        else:
            new.append(path)
        with path.open("a", encoding="utf-8") as file:
            file.write(("\n" if match["name"] in changed else "") + match["text"])
    return new, changed


def shown_by(root: Path, *lines: list[str] | str) -> list[str]:
    """Return what each command prints; all of them must succeed."""
    done = bge(root, *lines)
    for words, (status, out, err) in zip(lines, done, strict=True):
        assert status == 0, (words, out, err)
    return [out for _, out, _ in done]


def test_a_format_is_three_new_files_and_a_table_of_limits(copy: Path) -> None:
    text = section("A format")
    limits = (copy / LIMITS).read_text("utf-8")
    export = ["export", f"{FOLDER}/tiny", "--to", "zipped:fp32", "-o", "again"]
    ((status, _, error),) = bge(copy, export)
    assert status == 2
    assert "zipped" in error

    new, changed = add(copy, text)
    assert ([path.parent.name for path in new], {path.name for path in new}, changed) == (
        ["exporters", "formats", "runtimes"],
        {"zipped.py"},
        [LIMITS],
    )

    (example,) = re.findall(r"```python\n(from bge_export import Recipe.*?)```", text, re.DOTALL)
    in_python = example.replace('{"folder": "out"}', '{"folder": "api"}, "proof": {"check": False}')
    assert in_python != example

    exported, judged, shown, timed, _ = shown_by(copy, *commands(text), in_python)
    assert re.search("zipped-fp32 +zipped +cpu", exported)
    assert "passed" in judged.lower()
    assert "zipped-fp32" in shown
    assert "model.onnx.gz" in timed

    model = "zipped/model.onnx.gz"
    assert (copy / "api" / model).read_bytes() == (copy / "out" / model).read_bytes()

    # A file that the manifest does not list would be published unproven, in the new format as in any.
    shutil.copyfile(copy / "out" / model, copy / "out/zipped/other.gz")
    gate = ["gate", "out/parity.json"]
    ((status, _, error),) = bge(copy, gate)
    assert status == 3
    assert "other.gz" in error
    (copy / "out/zipped/other.gz").unlink()

    # Without limits of its own nothing passes; without its files there is no such format.
    (copy / LIMITS).write_text(limits, "utf-8")
    for path in new:
        path.unlink()
    (status, out, _), (again, _, _) = bge(copy, gate, export)
    assert (status, again) == (1, 2)
    assert "unknown-target" in out


def test_a_precision_is_one_new_file_and_a_table_of_limits(copy: Path) -> None:
    text = section("A precision")
    export = ["onnx", f"{FOLDER}/tiny", "-o", "again", "--precision", "bf16w"]
    assert bge(copy, export)[0][0] == 2

    new, changed = add(copy, text)
    assert ([path.relative_to(copy).parent.as_posix() for path in new], changed) == (
        ["bge_export/precision"],
        [LIMITS],
    )

    exported, judged = shown_by(copy, *commands(text))
    assert re.search("onnx-bf16w +onnxruntime +cpu", exported)
    assert "passed" in judged.lower()
    assert (copy / "out/onnx/model_bf16w.onnx").is_file()
    assert all("bf16w" in out for _, out, _ in bge(copy, ["onnx", "--help"], ["transformersjs", "--help"]))

    new[0].unlink()
    assert bge(copy, export)[0][0] == 2
