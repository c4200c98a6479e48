"""The choice of a form in which no text tips over, and the trembling it is looked at in."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest
from int8_samples import Sample

from bge_export.int8.arrange import Arrangement, arrange
from bge_export.int8.build import Builder
from bge_export.int8.form import Form
from bge_export.int8.frontier import Judge
from bge_export.int8.running import open_graph
from bge_export.int8.steady import DRAWS, ENOUGH, WIDENINGS, Steadiness, steadiest
from bge_export.int8.tremor import TREMOR, trembling, tremors


@dataclass
class Cosines:
    """Builds forms, and judges each by the smallest cosine written down for its widening."""

    given: dict[float, float]
    rows = (1, 2, 3)

    def build(self, form: Form) -> float:
        return form.widening

    def smallest_shaken(self, widening: float, *, cls_only: bool, draws: int, floor: float) -> float:
        assert (cls_only, draws) == (False, DRAWS)
        before = [self.given[each] for each in WIDENINGS[: WIDENINGS.index(widening)]]
        assert floor == max([-1.0, *(cosine for cosine in before if cosine == cosine)])
        return self.given[widening]


def chosen(given: dict[float, float]) -> tuple[float, Steadiness, int]:
    cases: Any = Cosines(given)
    tried: list[int] = []
    form, steadiness = steadiest(cases, Form(), cases, cls_only=False, advance=tried.append)
    return form.widening, steadiness, sum(tried)


def test_the_first_in_which_no_text_tips_over_is_taken() -> None:
    found = chosen({WIDENINGS[0]: 0.997, WIDENINGS[1]: ENOUGH})
    assert found == (WIDENINGS[1], Steadiness(3, DRAWS, ENOUGH), 2)


def test_where_one_always_does_the_least_bad_is_taken() -> None:
    given = {widening: 0.99 + place / 1e4 for place, widening in enumerate(WIDENINGS)}
    given[WIDENINGS[2]] = 0.9984
    assert chosen(given) == (WIDENINGS[2], Steadiness(3, DRAWS, 0.9984), len(WIDENINGS))


def test_a_form_that_gives_no_numbers_is_not_taken() -> None:
    given = dict.fromkeys(WIDENINGS, 0.99) | {WIDENINGS[0]: float("nan")}
    assert chosen(given)[0] == WIDENINGS[1]


ARRANGEMENTS: tuple[Arrangement, ...] = ("sequence-major", "batch-major")


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
@pytest.mark.parametrize("cls_only", [False, True])
def test_a_graph_trembles_at_every_state(
    sample: Sample, builder: Builder, arrangement: Arrangement, cls_only: bool
) -> None:  # fmt: skip
    model = arrange(builder.build(Form()), arrangement, cls_only=cls_only)
    shaken, widths = trembling(model)
    onnx.checker.check_model(shaken)
    norms = sum(node.op_type == "LayerNormalization" for node in model.graph.node)
    assert norms - 1 <= len(widths) <= norms
    plain, run = open_graph(model, arrangement), open_graph(shaken, arrangement)
    still, *moved = tremors(widths, 2)
    expected = plain(sample.tokens)
    np.testing.assert_allclose(run(sample.tokens, still), expected, atol=1e-5 if arrangement == "batch-major" else 0)
    assert all(abs(array - 1).max() < 6 * TREMOR for tremor in moved for array in tremor.values())
    large = {
        name: array + np.float32(0.1) * (np.arange(len(array)) % 2).astype(np.float32) for name, array in still.items()
    }
    for name in widths:
        only = {**still, name: large[name]}
        assert abs(run(sample.tokens, only) - expected).max() > 1e-3, name


def test_tremors_are_always_the_same() -> None:
    some, others = (list(tremors({"a": 4, "b": 2}, 3)) for _ in range(2))
    assert len(some) == 4
    assert all(np.array_equal(one[name], other[name]) for one, other in zip(some, others, strict=True) for name in one)
    assert not np.array_equal(some[1]["a"], some[2]["a"])


@dataclass
class Trembling:
    """Stands in for a graph: a text is elsewhere at the third tremor."""

    there: tuple[float, float]
    calls: int = 0

    def __call__(self, tokens: object, more: object = None) -> np.ndarray:
        self.calls += 1
        return np.array([[(1.0, 0.0) if self.calls != 3 else self.there]], np.float32)


@pytest.mark.parametrize(
    ("there", "expected", "floor", "calls"),
    [((0.6, 0.8), 0.6, -1.0, 6), ((0.6, 0.8), 0.6, 0.7, 3), ((np.nan, 0.8), np.nan, -1.0, 3)],
)
def test_the_smallest_cosine_is_of_any_tremor(
    sample: Sample, monkeypatch: pytest.MonkeyPatch, there: tuple[float, float], expected: float, floor: float,
    calls: int,
) -> None:  # fmt: skip
    run = Trembling(there)
    monkeypatch.setattr("bge_export.int8.frontier.open_graph", lambda *_: run)
    monkeypatch.setattr("bge_export.int8.frontier.arrange", lambda *_, **__: onnx.ModelProto())
    monkeypatch.setattr("bge_export.int8.frontier.trembling", lambda _: (onnx.ModelProto(), {"tremor.0": 2}))
    spec = sample.checkpoint.spec
    judge = Judge([(1,)], lambda _: sample.tokens, spec, np.array([False]), np.array([[1.0, 0.0]]), "sequence-major")
    nothing: Any = None
    smallest = judge.smallest_shaken(nothing, cls_only=False, draws=5, floor=floor)
    assert smallest == pytest.approx(expected, nan_ok=True)
    assert run.calls == calls
