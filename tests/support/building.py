"""A small recipe, and a folder that was built from it in a process of its own."""

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from forked import CommandLine

TARGETS = '["onnx:fp16", "onnx:fp32"]'


def written(folder: Path, model: Path, targets: str = TARGETS, more: str = "") -> Path:
    """Write a recipe for `out` in a folder."""
    path = folder / "recipe.toml"
    path.write_text(f'targets = {targets}\n[source]\nmodel = "{model}"\n[output]\nfolder = "out"\n{more}', "utf-8")
    return path


@dataclass
class Forked:
    """Runs the command line in a folder, each time in a process of its own."""

    line: CommandLine

    def __call__(
        self, folder: Path, *arguments: str, killed_at: int | None = None, largest_file: int | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run one command; see `CommandLine.run`."""
        environment = {**os.environ, "COLUMNS": "160"}
        return self.line.run(arguments, folder, environment, killed_at=killed_at, largest_file=largest_file)


@pytest.fixture(scope="session")
def forked(command_line: CommandLine) -> Forked:
    return Forked(command_line)


@pytest.fixture(scope="session")
def cold(tiny: Path, tmp_path_factory: pytest.TempPathFactory, forked: Forked) -> Path:
    """A folder with a recipe that was built undisturbed. Read it, never write into it."""
    folder = tmp_path_factory.mktemp("cold")
    written(folder, tiny)
    done = forked(folder, "build", "recipe.toml", "--threads", "1", "--json")
    assert done.returncode == 0, done.stderr

    facts = json.loads(done.stdout)
    assert facts["passed"] is True
    assert [step["decision"] for step in facts["steps"] if step["step"].startswith("export")] == ["make", "make"]
    return folder


@pytest.fixture
def built(cold: Path, tmp_path: Path) -> Path:
    """A copy of the built folder, its recipe and its state."""
    return Path(shutil.copytree(cold, tmp_path / "copy"))
