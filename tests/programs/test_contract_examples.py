"""The examples in each language give the folder's embeddings, and are refused with another pooling or prompt."""

import shlex
import sys
from pathlib import Path

import pytest
from conftest import IN_CI

from bge_export.cli import run
from bge_export.errors import DeviceUnavailable
from bge_export.javascript.packages import find_node, packages_folder

EXAMPLES = Path(__file__).parents[2] / "examples/contract"


def needs(problem: str | None) -> None:
    """Go on only without a problem, which fails in CI and is left out elsewhere."""
    if problem is not None and IN_CI:
        pytest.fail(problem)
    if problem is not None:
        pytest.skip(f"left out: {problem}")


def check(folder: Path, command: str, *options: str) -> int:
    return run(["check-contract", str(folder), "--command", command, *options])


@pytest.fixture
def in_node(tmp_path: Path):
    """Return the command that runs an example in Node, with a part of it replaced."""
    try:
        node, packages = find_node(), packages_folder()
    except DeviceUnavailable as error:
        needs(str(error))
    (tmp_path / "node_modules").symlink_to(packages)

    def command(folder: Path, *replaced: tuple[str, str]) -> str:
        code = (EXAMPLES / "embed.mjs").read_text("utf-8")
        for right, wrong in replaced:
            assert right in code
            code = code.replace(right, wrong)
        (tmp_path / "embed.mjs").write_text(code, "utf-8")
        return shlex.join([str(node), str(tmp_path / "embed.mjs"), str(folder), "{use}"])

    return command


def test_python(tiny_export) -> None:
    command = shlex.join([sys.executable, str(EXAMPLES / "embed.py"), str(tiny_export.folder), "{use}"])
    assert check(tiny_export.folder, command) == 0


def test_node(tiny_export, in_node) -> None:
    assert check(tiny_export.folder, in_node(tiny_export.folder)) == 0


@pytest.mark.parametrize(
    "replaced",
    [("[embedding.pooling]", ".mean"), ("use ? text.prompts[use] : ''", "''"), ("cut(tokenizer", "(tokenizer")],
    ids=["mean pooling", "no prompt", "not cut"],
)
def test_node_with_a_fault(tiny_export, in_node, replaced: tuple[str, str]) -> None:
    assert check(tiny_export.folder, in_node(tiny_export.folder, replaced)) != 0
