"""Shared checkpoints and exports. What is missing fails in CI and is left out, with its reason, elsewhere."""

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from exporting import export_model
from hub_machine import hub, machine  # noqa: F401 - fixtures

from bge_export import commands
from bge_export.exporters.onnx import OnnxExporter
from bge_export.texts.fixtures import fixtures_folder

IN_CI = os.environ.get("CI") == "true"


@pytest.fixture(scope="session")
def tiny() -> Path:
    """The embedded checkpoint."""
    return fixtures_folder() / "tiny"


@pytest.fixture(scope="session")
def tiny_export(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> commands.Exported:
    """The embedded checkpoint in both precisions with both outputs, proven. Read it, never write into it."""
    out = tmp_path_factory.mktemp("export") / "tiny"
    return export_model(OnnxExporter(sentence_embedding=True), str(tiny), out, precisions=["fp32", "fp16"])


@pytest.fixture
def bundle(tiny_export: commands.Exported, tmp_path: Path) -> Path:
    """A copy of the proven export to damage."""
    return Path(shutil.copytree(tiny_export.folder, tmp_path / "bundle"))


@pytest.fixture(scope="session")
def bge() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line as a user does, in a process of its own."""

    def run(*arguments: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "bge_export", *map(str, arguments)],
            cwd=cwd, env={**os.environ, "COLUMNS": "160", **environment}, capture_output=True, text=True, timeout=300,
        )  # fmt: skip

    return run


def outside(variable: str, name: str) -> Path:
    """Return a folder that lies outside the repository; its absence fails in CI and is left out elsewhere."""
    path = Path(os.environ.get(variable, "")) / name
    if os.environ.get(variable) and path.exists():
        return path
    reason = f"left out: {variable} names no folder with {name}"
    if IN_CI:
        pytest.fail(reason)
    pytest.skip(reason)


def needs_client(device: str) -> None:
    """Go on only where a JavaScript client can run; its absence fails in CI and is left out elsewhere."""
    from bge_export.runtimes.transformersjs import RUNTIME

    why = RUNTIME.devices()[device]
    if why is not None and IN_CI:
        pytest.fail(f"{device}: {why}")
    if why is not None:
        pytest.skip(f"left out: {device}: {why}")


@pytest.fixture(scope="session", params=["bge-small-en", "bge-small-zh"])
def real_checkpoint(request: pytest.FixtureRequest) -> Path:
    """Each real checkpoint."""
    return outside("BGE_EXPORT_MODELS", request.param)


@pytest.fixture(scope="session")
def real_exports(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], commands.Exported]:
    """Each real checkpoint by name, exported once in both precisions and proven."""

    @functools.cache
    def export(name: str) -> commands.Exported:
        out = tmp_path_factory.mktemp("real") / name
        checkpoint = str(outside("BGE_EXPORT_MODELS", name))
        return export_model(OnnxExporter(), checkpoint, out, precisions=["fp32", "fp16"], threads=2)

    return export


@pytest.fixture
def real_export(real_checkpoint: Path, real_exports: Callable[[str], commands.Exported]) -> commands.Exported:
    """Each real checkpoint, exported."""
    return real_exports(real_checkpoint.name)
