"""Shared checkpoints and exports. What is missing fails in CI and is left out, with its reason, elsewhere."""

import functools
import gc
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from forked import CommandLine
from hub_machine import hub, machine  # noqa: F401 - fixtures

from bge_export.texts.fixtures import fixtures_folder

if TYPE_CHECKING:  # torch takes seconds, and the process that only hands out tests to others needs none
    from bge_export import commands

IN_CI = os.environ.get("CI") == "true"


def pytest_configure() -> None:
    """Give each process of pytest-xdist a core of its own: two with two threads each would wait for each other."""
    number = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
    if number and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(number) % len(cores)]})


def pytest_unconfigure() -> None:
    """Let Python free at its end what was kept out of garbage collections; libraries count what is left."""
    gc.unfreeze()


LONGEST = (
    "test_real.py", "test_every_pair.py", "exporters/test_onnx.py", "test_extension.py", "test_transformersjs.py",
    "test_refused_apart.py", "test_readme.py", "test_more_exact_variants.py", "test_cli.py", "test_torchscript.py",
    "test_streams.py", "test_int8_bench.py", "test_adding.py", "test_wheel.py",
)  # fmt: skip
"""Files of a minute and more, longest first: begun last, one would be run alone while the other core has nothing."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files; with `--no-loadscope-reorder`, pytest-xdist hands files out in this order."""

    def rank(item: pytest.Item) -> int:
        path = item.path.as_posix()
        return next((number for number, end in enumerate(LONGEST) if path.endswith(f"/{end}")), len(LONGEST))

    items.sort(key=rank)


@pytest.fixture(scope="module", autouse=True)
def _little_to_search_for_garbage() -> None:
    """Leave what is imported by now out of garbage collections: a third of the time of a small export."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _what_the_oracle_said_is_remembered() -> Iterator[None]:
    """Ask the oracle once a process what many tests ask."""
    from remembered import remembering

    from bge_export.commands import measuring

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "embed_texts", remembering(measuring.embed_texts))
        patch.setattr(measuring, "score_pairs", remembering(measuring.score_pairs))
        yield


@pytest.fixture(scope="session")
def tiny() -> Path:
    """The embedded checkpoint."""
    return fixtures_folder() / "tiny"


@pytest.fixture(scope="session")
def tiny_export(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> "commands.Exported":
    """The embedded checkpoint in both precisions with both outputs, proven. Read it, never write into it."""
    from exporting import export_model

    from bge_export.exporters.onnx import OnnxExporter

    out = tmp_path_factory.mktemp("export") / "tiny"
    return export_model(OnnxExporter(sentence_embedding=True), str(tiny), out, precisions=["fp32", "fp16"])


@pytest.fixture
def bundle(tiny_export: "commands.Exported", tmp_path: Path) -> Path:
    """A copy of the proven export to damage."""
    return Path(shutil.copytree(tiny_export.folder, tmp_path / "bundle"))


@pytest.fixture(scope="session")
def command_line() -> Iterator[CommandLine]:
    """A process that forks for each command."""
    running = CommandLine()
    yield running
    running.close()


@pytest.fixture(scope="session")
def bge(command_line: CommandLine) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line as a user does, in a process of its own."""

    def run(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return command_line.run([*map(str, arguments)], cwd, {**os.environ, "COLUMNS": "160"})

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
def real_exports(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], "commands.Exported"]:
    """Each real checkpoint by name, exported once in both precisions and proven."""
    from exporting import export_model

    from bge_export.exporters.onnx import OnnxExporter

    @functools.cache
    def export(name: str) -> "commands.Exported":
        out = tmp_path_factory.mktemp("real") / name
        checkpoint = str(outside("BGE_EXPORT_MODELS", name))
        return export_model(OnnxExporter(), checkpoint, out, precisions=["fp32", "fp16"])

    return export


@pytest.fixture
def real_export(real_checkpoint: Path, real_exports: Callable[[str], "commands.Exported"]) -> "commands.Exported":
    """Each real checkpoint, exported."""
    return real_exports(real_checkpoint.name)
