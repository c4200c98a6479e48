import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from forked import CommandLine
from noise_limits import noise_limits

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

from make_readme import PAGES, first_difference  # noqa: E402

README = (ROOT / "README.md").read_text("utf-8")
NAMED = '"BAAI/bge-small-en"'


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_pages_show_what_the_commands_print(command_line: CommandLine) -> None:
    def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
        program, *arguments = shlex.split(command)
        assert program == "bge-export"
        return command_line.run(arguments, folder, {**os.environ, "COLUMNS": "120"})

    assert [found for page in PAGES if (found := first_difference(page, run))] == []


def test_the_readme_is_short() -> None:
    lines = README.splitlines()
    assert len(lines) <= 120
    prose = re.sub(r"```.*?```", "", README, flags=re.DOTALL).splitlines()
    assert [line for line in prose if len(line) > 120 and not line.startswith("|")] == []


def test_every_command_of_the_readme_runs_and_its_python_loads_the_result(
    command_line: CommandLine, tiny: Path, tmp_path: Path
) -> None:
    """On the tiny checkpoint, whose weights are noise: rounded files get the limits of noise."""
    limits = noise_limits(tmp_path)
    lines = [line for block in blocks(README, "sh") for line in block.splitlines()]
    commands = [shlex.split(line, comments=True) for line in lines if line.startswith("bge-export")]
    assert len(commands) == 5
    for words in commands:
        words = [str(tiny) if word == "BAAI/bge-small-en" else word for word in words]
        if words[1] == "publish":
            words += ["--dry-run"]  # there is no Hub here; what it does there is tested in tests/publish
        if "--quantize" in words or words[1] in ("gate", "publish"):
            words += ["--thresholds", str(limits)]
        if words[1] == "onnx" and "--quantize" in words:
            words += ["--overwrite"]  # the fp32 file of the command before, whose report has other limits
        done = command_line.run(words[1:], tmp_path, dict(os.environ))
        assert done.returncode == 0, (words, done.stdout, done.stderr)

    (example,) = blocks(README, "python")
    source = f"{example}\nassert abs((embedding**2).sum() - 1) < 1e-5 and embedding.shape == (64,)"
    done = subprocess.run([sys.executable, "-c", source], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_javascript_of_the_readme_is_an_example_that_is_run_in_node() -> None:
    (shown,) = blocks(README, "js")
    (run, *_) = blocks((ROOT / "docs/how-to/javascript.md").read_text("utf-8"), "js")
    assert shown.split() == run.split()


def test_the_python_example_of_the_reference_runs(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = blocks((ROOT / "docs/reference/python.md").read_text("utf-8"), "python")
    assert NAMED in example
    monkeypatch.chdir(tmp_path)
    exec(compile(example.replace(NAMED, repr(str(tiny))), "python.md", "exec"), {})
    assert (tmp_path / "out/onnx/model_fp16.onnx").is_file()


@pytest.mark.parametrize(
    "page", ["README.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))]
)
def test_every_file_that_a_page_names_exists(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    for path in re.findall(r"`((?:scripts|docs|parity_fixtures)/[\w./-]+)`", text):
        assert (ROOT / path).exists(), path
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (ROOT / page).parent.joinpath(link).exists(), link
