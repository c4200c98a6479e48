"""The how-to page on formats and precisions: its files are added to a copy of the package, used, and removed again."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
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
    return root


def python(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=root, capture_output=True, text=True, timeout=600)


def bge(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return python(root, "-m", "bge_export", *arguments)


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


def run_all(root: Path, text: str) -> Iterator[str]:
    """Run the commands of a part of the page; yield what each prints."""
    assert len(commands(text)) >= 2
    for words in commands(text):
        done = bge(root, *words)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        yield done.stdout


def test_a_format_is_three_new_files_and_a_table_of_limits(copy: Path) -> None:
    text = section("A format")
    limits = (copy / LIMITS).read_text("utf-8")
    before = bge(copy, "zipped", f"{FOLDER}/tiny", "-o", "out")
    assert before.returncode == 2
    assert "zipped" in before.stderr

    new, changed = add(copy, text)
    assert ([path.parent.name for path in new], {path.name for path in new}, changed) == (
        ["exporters", "formats", "runtimes"],
        {"zipped.py"},
        [LIMITS],
    )

    exported, measured, judged, shown, timed = run_all(copy, text)
    assert "zipped-fp32" in exported
    assert "zipped:cpu" in measured
    assert "passed" in judged.lower()
    assert "zipped-fp32" in shown
    assert "model.onnx.gz" in timed

    (example,) = re.findall(r"`(export_model\(.*\))`", text)
    script = (
        "from pathlib import Path\nfrom bge_export import export_model, find_exporter\n"
        f"{example.replace('out', 'api')[:-1]}, check=False)"
    )
    done = python(copy, "-c", script)
    assert done.returncode == 0, done.stderr
    model = "zipped/model.onnx.gz"
    assert (copy / "api" / model).read_bytes() == (copy / "out" / model).read_bytes()

    # A file that the manifest does not list would be published unproven, in the new format as in any.
    shutil.copyfile(copy / "out/zipped/model.onnx.gz", copy / "out/zipped/other.gz")
    refused = bge(copy, "gate", "out/parity.json")
    assert refused.returncode == 3
    assert "other.gz" in refused.stderr
    (copy / "out/zipped/other.gz").unlink()

    # Without limits of its own nothing passes.
    (copy / LIMITS).write_text(limits, "utf-8")
    assert bge(copy, "gate", "out/parity.json").returncode == 1

    for path in new:
        path.unlink()
    assert bge(copy, "zipped", f"{FOLDER}/tiny", "-o", "again").returncode == 2
    left = bge(copy, "gate", "out/parity.json")
    assert left.returncode == 1
    assert "unknown-target" in left.stdout


def test_a_precision_is_one_new_file_and_a_table_of_limits(copy: Path) -> None:
    text = section("A precision")
    refused = bge(copy, "onnx", f"{FOLDER}/tiny", "-o", "out", "--precision", "bf16w")
    assert refused.returncode == 2

    new, changed = add(copy, text)
    assert ([path.relative_to(copy).parent.as_posix() for path in new], changed) == (
        ["bge_export/precision"],
        [LIMITS],
    )

    exported, judged = run_all(copy, text)
    assert "onnx-bf16w" in exported
    assert "passed" in judged.lower()
    assert (copy / "out/onnx/model_bf16w.onnx").is_file()
    assert "bf16w" in bge(copy, "onnx", "--help").stdout
    assert "bf16w" in bge(copy, "transformersjs", "--help").stdout

    new[0].unlink()
    assert bge(copy, "onnx", f"{FOLDER}/tiny", "-o", "again", "--precision", "bf16w").returncode == 2
