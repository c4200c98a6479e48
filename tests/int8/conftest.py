"""Fixtures that the tests of the int8 recipe share: one of each architecture, and one that has no fast arrangement."""

import json
from pathlib import Path

import pytest
from architectures import KINDS, build
from int8_samples import Sample, make_sample

from bge_export.calibration.observing import CalibrationSet
from bge_export.precision.int8.plan.layers import LayerPlan, Settings, plan_layers
from bge_export.precision.int8.round.build import Builder


@pytest.fixture(scope="module", params=KINDS)
def sample(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return make_sample(request.param, tmp_path_factory.mktemp("int8"))


@pytest.fixture(scope="module")
def plans(sample: Sample) -> list[LayerPlan]:
    return plan_layers(sample.encoder, sample.checkpoint.spec, CalibrationSet(sample.batches), Settings())


@pytest.fixture(scope="module")
def builder(sample: Sample, plans: list[LayerPlan]) -> Builder:
    return Builder(sample.encoder, plans)


@pytest.fixture(scope="session")
def unusual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a BERT whose activation is GELU by tanh, which the fast arrangement does not know."""
    folder = build("bert", tmp_path_factory.mktemp("plain") / "unusual", "cls")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"hidden_act": "gelu_new"}), "utf-8")
    return folder
