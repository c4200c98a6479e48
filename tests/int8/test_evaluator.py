"""What probes say of a variant: everyday and stress apart, and the worst of them again under perturbation."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest
from int8_samples import Sample

from bge_export.heads.dense import dense_head
from bge_export.precision.int8.search.evaluator import DRAWS, Evaluator


@dataclass
class Graph:
    """Stands in for a graph: every text's state is what is written down for the number of the call."""

    states: list[tuple[float, float]]
    calls: int = 0

    def __call__(self, tokens: object, more: object = None) -> np.ndarray:
        self.calls += 1
        state = self.states[min(self.calls, len(self.states)) - 1]
        return np.array([[state]], np.float32)


def evaluated(
    sample: Sample, monkeypatch: pytest.MonkeyPatch, states: list[tuple[float, float]], *, again: bool
) -> tuple[Any, int]:
    run = Graph(states)
    monkeypatch.setattr("bge_export.precision.int8.search.evaluator.open_graph", lambda *_: run)
    monkeypatch.setattr("bge_export.precision.int8.search.evaluator.arrange", lambda *_, **__: onnx.ModelProto())
    monkeypatch.setattr(
        "bge_export.precision.int8.search.evaluator.perturbable", lambda _: (onnx.ModelProto(), {"perturbation.0": 2})
    )
    monkeypatch.setattr("bge_export.precision.int8.search.evaluator.TIMED_RUNS", 0)
    monkeypatch.setattr(Evaluator, "_milliseconds", lambda *_: 1.0)
    truth = np.array([[1.0, 0.0], [1.0, 0.0]])
    stress = np.array([False, True])
    evaluator = Evaluator(
        [(1,), (2,)], stress, lambda _: sample.tokens, dense_head(sample.checkpoint.spec), truth, "sequence-major"
    )
    nothing: Any = None
    return evaluator.evaluate(nothing, cls_only=False, again=lambda _: again), run.calls


def test_everyday_and_stress_probes_are_counted_apart(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation, calls = evaluated(sample, monkeypatch, [(1.0, 0.0), (0.6, 0.8)], again=False)
    assert (evaluation.figures.smallest, evaluation.figures.mean) == (1.0, 1.0)
    assert evaluation.figures.smallest_stress == pytest.approx(0.6)
    assert calls == 2


def test_the_smallest_cosine_under_any_perturbation_counts(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    states = [(1.0, 0.0)] * 5 + [(0.8, 0.6)] + [(1.0, 0.0)] * 20
    evaluation, calls = evaluated(sample, monkeypatch, states, again=True)
    assert calls == 2 + 2 * DRAWS
    assert min(evaluation.figures.smallest, evaluation.figures.smallest_stress) == pytest.approx(0.8)


def test_an_embedding_that_is_not_finite_shows(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation, _ = evaluated(sample, monkeypatch, [(np.nan, 0.0), (1.0, 0.0)], again=False)
    assert np.isnan(evaluation.figures.smallest)
    assert evaluation.figures.smallest_stress == 1.0
