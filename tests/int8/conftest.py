"""Fixtures that the tests of the int8 recipe share: one of each architecture, and one that has no fast arrangement."""

import functools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from architectures import KINDS, Kind, build
from int8_samples import Sample, make_sample

from bge_export.calibration.observing import CalibrationSet
from bge_export.heads.dense import dense_head
from bge_export.precision.int8.plan.layers import LayerPlan, Settings, plan_layers
from bge_export.precision.int8.round.build import Builder


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Kind], Sample]:
    """Each architecture's sample, made once for all files of tests; nothing writes into it."""
    return functools.cache(lambda kind: make_sample(kind, tmp_path_factory.mktemp("int8")))


@pytest.fixture(scope="session")
def planned(samples: Callable[[Kind], Sample]) -> Callable[[Kind], list[LayerPlan]]:
    """Each architecture's plans, made once."""

    @functools.cache
    def plan(kind: Kind) -> list[LayerPlan]:
        sample = samples(kind)
        return plan_layers(
            sample.encoder, dense_head(sample.checkpoint.spec), CalibrationSet(sample.batches), Settings()
        )

    return plan


@pytest.fixture(scope="session")
def builders(
    samples: Callable[[Kind], Sample], planned: Callable[[Kind], list[LayerPlan]]
) -> Callable[[Kind], Builder]:
    """Each architecture's builder, made once: it rounds weights that tests share once too."""
    return functools.cache(lambda kind: Builder(samples(kind).encoder, planned(kind)))


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


@pytest.fixture(scope="module")
def sample(kind: Kind, samples: Callable[[Kind], Sample]) -> Sample:
    return samples(kind)


@pytest.fixture(scope="module")
def plans(kind: Kind, planned: Callable[[Kind], list[LayerPlan]]) -> list[LayerPlan]:
    return planned(kind)


@pytest.fixture(scope="module")
def builder(kind: Kind, builders: Callable[[Kind], Builder]) -> Builder:
    return builders(kind)


@pytest.fixture(scope="session")
def unusual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a BERT whose activation is GELU by tanh, which the fast arrangement does not know."""
    folder = build("bert", tmp_path_factory.mktemp("plain") / "unusual", "cls")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"hidden_act": "gelu_new"}), "utf-8")
    return folder
