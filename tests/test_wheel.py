"""The built wheel in empty environments outside the checkout: with torch it exports, without it still checks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
UV = Path(sys.executable).with_name("uv")


def call(*command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    done = call(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return path


def environment(wheel: Path, extras: str, folder: Path) -> Path:
    """Install the wheel alone into a new environment; return its folder of commands."""
    assert call(UV, "venv", "--quiet", "--python", sys.executable, folder / "env", cwd=folder).returncode == 0
    python = folder / "env/bin/python"
    constraints = ROOT / "constraints.txt"
    install = call(
        UV, "pip", "install", "--quiet", "--python", python, "-c", constraints, f"{wheel}[{extras}]", cwd=folder
    )
    assert install.returncode == 0, install.stderr
    where = call(python, "-c", "import bge_export; print(bge_export.__file__)", cwd=folder).stdout
    assert where.startswith(str(folder)), where
    return folder / "env/bin"


def test_the_wheel_exports_measures_and_judges_alone(wheel: Path, tmp_path: Path) -> None:
    commands = environment(wheel, "export,onnxruntime", tmp_path)
    site = next((tmp_path / "env/lib").glob("python*/site-packages/bge_export"))
    tiny = site / "parity_fixtures/tiny"
    done = call(commands / "bge-export", "onnx", tiny, "-o", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert call(commands / "bge-export", "parity", "out", "--reference", tiny, cwd=tmp_path).returncode == 0
    assert call(commands / "bge-export", "gate", "out/parity.json", cwd=tmp_path).returncode == 0


def test_checking_and_gating_need_no_torch(wheel: Path, tiny_export, tiny: Path, tmp_path: Path, bge) -> None:
    vectors = tmp_path / "reference.npz"
    assert bge("reference", tiny, "-o", vectors).returncode == 0
    commands = environment(wheel, "onnxruntime", tmp_path)
    done = call(commands / "python", "-c", "import torch", cwd=tmp_path)
    assert "No module named 'torch'" in done.stderr
    arguments = ["--reference", vectors, "--runtime", "onnxruntime", "--report", "p.json"]
    done = call(commands / "bge-export", "parity", tiny_export.folder, *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert call(commands / "bge-export", "gate", "p.json", cwd=tmp_path).returncode == 0
    done = call(commands / "bge-export", "onnx", tiny, "-o", "out", cwd=tmp_path)
    assert done.returncode == 3
    assert "pip install 'bge-export[export]'" in done.stderr
    done = call(commands / "bge-export", "doctor", cwd=tmp_path)
    assert done.returncode == 0
    assert "bge-export[export]" in done.stdout
