"""The tutorial's service answers over HTTP with the tiny checkpoint, and its Python runs."""

import json
import re
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

import bge_export
from bge_export.commands import Exported

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples/search"
PAGE = (ROOT / "docs/tutorials/search-service.md").read_text("utf-8")
DOCUMENTS = (EXAMPLE / "documents.txt").read_text("utf-8").splitlines()


@pytest.fixture(scope="module")
def folder(tiny_export: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `out` is the tiny export: it stands in for int8, which this noise is refused in."""
    there = tmp_path_factory.mktemp("service")
    (there / "out").symlink_to(tiny_export.folder)
    return there


def of_tiny(source: str) -> str:
    assert 'precision="int8"' in source
    return source.replace('precision="int8"', 'precision="fp16"')


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """The address of the running service."""
    program = folder / "serve.py"
    program.write_text(of_tiny((EXAMPLE / "serve.py").read_text("utf-8")), "utf-8")

    command = [sys.executable, str(program), "out", str(EXAMPLE / "documents.txt"), "0"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as running:
        said = running.stdout.readline()
        assert said.startswith("7 documents, http://127.0.0.1:"), said
        yield re.search(r"http://[0-9.:]+", said)[0]
        running.terminate()


def found(address: str, text: str, most: int) -> list[dict[str, object]]:
    asked = urllib.parse.urlencode({"q": text, "most": most})
    with urllib.request.urlopen(f"{address}/search?{asked}", timeout=60) as answer:
        return json.load(answer)["found"]


def test_the_service_finds_what_the_model_finds(address: str, folder: Path) -> None:
    with bge_export.load(folder / "out", precision="fp16") as model:
        vectors = model.encode(DOCUMENTS, prompt="document")
        scores = vectors @ model.encode("the moon", prompt="query")

    answered = found(address, "the moon", 7)
    assert [one["text"] for one in answered] == [DOCUMENTS[row] for row in (-scores).argsort(kind="stable")]
    assert [one["score"] for one in answered] == pytest.approx(sorted(scores.tolist(), reverse=True), abs=2e-4)


def test_the_service_refuses_what_is_no_query(address: str) -> None:
    for path in ("/search?q=", "/search", "/other?q=text", "/search?q=text&most=many", f"/search?q={'a' * 10_001}"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(address + path, timeout=60)
        with refused.value as answer:
            assert answer.code == 400


def test_the_python_of_the_page_runs(folder: Path) -> None:
    (source,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    source = of_tiny(source) + "\nassert vectors.shape == (2, 64) and nearest in documents"
    done = subprocess.run([sys.executable, "-c", source], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_command_of_the_page_exists() -> None:
    from bge_export.cli import run

    commands = {line.split()[1] for line in PAGE.splitlines() if line.startswith("bge-export ")}
    assert commands == {"onnx", "gate", "compare"}
    for name in commands:
        assert run([name, "--help"]) == 0
