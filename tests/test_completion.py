"""Completion in shells: it prints candidates and nothing else, and ends as a command that worked."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BGE = str(Path(sys.executable).with_name("bge-export"))


def bge(home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "HOME": str(home), **environment}
    return subprocess.run([BGE, *arguments], env=variables, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("words", "count", "found"), [("bge-export op", "1", "openvino"), ("bge-export ", "1", "onnx")]
)
def test_a_tab_prints_candidates_and_nothing_else(tmp_path: Path, words: str, count: str, found: str) -> None:
    done = bge(tmp_path, _BGE_EXPORT_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=count)
    assert (done.returncode, done.stderr) == (0, "")
    assert found in done.stdout.split()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_installed_and_shown(tmp_path: Path, shell: str) -> None:
    quiet = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}  # the shell is named, so that none has to be there
    done = bge(tmp_path, "--install-completion", shell, **quiet)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{shell} completion installed" in done.stdout
    done = bge(tmp_path, "--show-completion", shell, **quiet)
    assert (done.returncode, done.stderr) == (0, "")
    assert "_BGE_EXPORT_COMPLETE" in done.stdout


@pytest.mark.parametrize("instruction", ["nonsense", "complete_martian"])
def test_what_cannot_be_completed_is_no_refusal(tmp_path: Path, instruction: str) -> None:
    done = bge(tmp_path, _BGE_EXPORT_COMPLETE=instruction, COMP_WORDS="bge-export ", COMP_CWORD="1")
    assert done.returncode == 3
    assert "interrupted" not in done.stderr


@pytest.mark.parametrize("code", ["0", "1", "None", "'enough'"])
def test_a_library_that_ends_python_gives_no_verdict(code: str) -> None:
    script = (
        "import sys\nimport bge_export.inspection.doctor\nfrom bge_export.cli import run\n"
        f"bge_export.inspection.doctor.examine_machine = lambda: sys.exit({code})\nprint('status', run(['doctor']))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "status 3"
    assert "unexpected SystemExit" in done.stderr
