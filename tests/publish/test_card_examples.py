"""Every example in Python of a card, run as it stands against a Hub on loopback, gives the oracle's vector."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hub_repository import Repository, WritableHub, serve_writable

from bge_export import commands
from bge_export.build.recipe import Recipe
from bge_export.bundle.manifest import read_manifest
from bge_export.commands import read_policy
from bge_export.contracts import Target
from bge_export.parity.report import read_report
from bge_export.publish.card import card_text
from bge_export.publish.facts import CardFacts

TEXT = "That is a happy person"
EXAMPLE = re.compile(r"<!-- example: (?P<name>[\w.]+) -->\n```python\n(?P<code>.*?)^```", re.DOTALL | re.MULTILINE)
FORMATS = ("onnx", "openvino", "torchscript")


@pytest.fixture(scope="module", params=[False, True], ids=["states", "embedding"])
def folder(request: pytest.FixtureRequest, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three formats, with token states alone and with the pooled embedding."""
    recipe = Recipe(
        targets=tuple(Target(name, "fp32") for name in FORMATS),
        source={"model": str(tiny)},
        output={"folder": tmp_path_factory.mktemp("card") / "out"},
        options={name: {"sentence_embedding": request.param} for name in FORMATS},
    )
    return commands.export(recipe).folder


@pytest.fixture(scope="module")
def oracle(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    folder = tmp_path_factory.mktemp("oracle")
    (folder / "texts.txt").write_text(f"{TEXT}\n", "utf-8")
    return commands.write_reference(str(tiny), folder / "r.npz", texts=folder / "texts.txt").vectors["cls"][0]


@pytest.fixture
def published(folder: Path) -> Iterator[WritableHub]:
    repository = Repository()
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    repository.add(files)
    with serve_writable(WritableHub({"somebody/tiny": repository})) as hub:
        yield hub


def test_in_python(folder: Path, oracle: np.ndarray, published: WritableHub, tmp_path: Path) -> None:
    report = read_report(folder / "parity.json")
    card = card_text(folder, read_manifest(folder), CardFacts("somebody/tiny"), report, read_policy(None))
    examples = {match["name"]: match["code"] for match in EXAMPLE.finditer(card)}
    assert list(examples) == ["onnxruntime", "openvino", "torchscript"]
    assert "\n\n\n" not in card

    clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    clean = {key: value for key, value in clean.items() if not key.lower().endswith("_proxy")}
    environment = clean | {"HF_ENDPOINT": published.endpoint, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1"}
    for name, code in examples.items():
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=tmp_path, env=environment
        )
        assert done.returncode == 0, (name, done.stderr)
        vector = np.array(json.loads(done.stdout.splitlines()[-1]))
        assert vector.shape == oracle.shape
        np.testing.assert_allclose(vector, oracle, atol=1e-5, err_msg=name)
