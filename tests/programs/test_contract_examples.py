"""The examples in each language give the folder's embeddings, and are refused with another pooling or prompt."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import IN_CI

from bge_export.bundle.contract import CONTRACT
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


@pytest.fixture
def misled(tiny_export, tmp_path: Path) -> Path:
    """A copy of the folder whose contract says mean pooling: a program that follows it is wrong."""
    folder = Path(shutil.copytree(tiny_export.folder, tmp_path / "misled"))
    said = (folder / CONTRACT).read_text("utf-8")
    assert '"pooling": "cls"' in said
    (folder / CONTRACT).write_text(said.replace('"pooling": "cls"', '"pooling": "mean"'), "utf-8")
    return folder


def tool(name: str) -> str:
    path = shutil.which(name)
    needs(None if path else f"{name} is not on the PATH")
    return str(path)


def given_token_ids(right: Path, wrong: Path, *command: str) -> None:
    """A program reads its contract in the folder that follows its name."""
    program, *rest = command
    start = shlex.split(program)
    assert check(right, shlex.join([*start, str(right), *rest]), "--token-ids") == 0
    assert check(right, shlex.join([*start, str(wrong), *rest]), "--token-ids") == 1


def test_java(tiny_export, misled: Path) -> None:
    java = tool("java")
    artifact = "com.microsoft.onnxruntime:onnxruntime:1.20.0"
    jars = sorted(Path.home().glob(".m2/repository/com/microsoft/onnxruntime/onnxruntime/*/onnxruntime-*.jar"))
    needs(None if jars else f"no onnxruntime.jar; mvn dependency:get -Dartifact={artifact}")
    given_token_ids(tiny_export.folder, misled, shlex.join([java, "-cp", str(jars[-1]), str(EXAMPLES / "Embed.java")]))


def test_go(tiny_export, misled: Path, tmp_path: Path) -> None:
    program = tmp_path / "embed"
    done = subprocess.run(
        [tool("go"), "build", "-o", program, "."],
        cwd=EXAMPLES / "go",
        env={**os.environ, "GOPROXY": "off", "GOFLAGS": "-mod=readonly"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode and "GOPROXY=off" in done.stderr:
        needs("the module onnxruntime_go is not in Go's cache; go mod download in examples/contract/go")
    assert done.returncode == 0, done.stderr

    given_token_ids(tiny_export.folder, misled, str(program), runtime_library())


def runtime_library() -> str:
    """Return the shared library of ONNX Runtime that its Python package brings."""
    import onnxruntime

    found = sorted((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime*.so.*"))
    needs(None if found else "the package onnxruntime brings no libonnxruntime.so here")
    return str(found[0])
