"""The workflow of `examples/github` is one that GitHub takes, and so are its command lines for this program."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import typer
import yaml
from conftest import IN_CI

from bge_export.cli import app

WORKFLOW = Path(__file__).parent.parent / "examples/github/artifacts.yml"
COMMANDS = typer.main.get_group(app).commands


def runs() -> list[list[str]]:
    """Return the words of each call of bge-export in the workflow."""
    steps = [step for job in yaml.safe_load(WORKFLOW.read_text("utf-8"))["jobs"].values() for step in job["steps"]]
    lines = [line for step in steps for line in step.get("run", "").replace("\\\n", " ").splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("bge-export ")]


def test_the_workflow_exports_measures_merges_gates_signs_and_verifies() -> None:
    called = [words[0] for words in runs()]
    assert called[:2] == ["export", "reference"]
    assert called[-4:] == ["merge", "gate", "publish", "verify"]
    assert called.count("parity") == 3


@pytest.mark.parametrize("words", runs(), ids=lambda words: " ".join(words[:3]))
def test_each_command_line_is_one_that_the_program_takes(words: list[str]) -> None:
    options = {name for one in COMMANDS[words[0]].params for name in one.opts}
    given = {word.partition("=")[0] for word in words if re.match("--?[a-z]", word)}
    assert given <= options, given - options


def test_actionlint_finds_nothing_in_the_workflow() -> None:
    """It is made by: go install github.com/rhysd/actionlint/cmd/actionlint@v1.7.12"""
    tool = shutil.which("actionlint", path=f"{os.environ.get('PATH', '')}:{Path.home() / 'go/bin'}")
    if tool is None and IN_CI:
        pytest.fail("actionlint is missing")
    if tool is None:
        pytest.skip("actionlint is not installed")

    done = subprocess.run([tool, "-shellcheck=", "-pyflakes=", WORKFLOW], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
