"""Limits that accept what rounding lost: offered only where they are read, lower what was measured, and let it pass."""

import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fakes import LIMITS, ROUNDED, artifact_of, on_text, report_of, right, truth, turned

from bge_export.parity.gate.acceptance import accepting, as_toml, rounding_alone
from bge_export.parity.gate.judge import Verdict, judge
from bge_export.parity.gate.policy import Limits, Requirement, ThresholdPolicy
from bge_export.parity.report import ParityReport
from bge_export.texts.corpus import Corpus, Text

CORPUS = Corpus("kinds", (*(Text(f"t{n}", f"{n} {'x' * n}", "") for n in range(6)), Text("mark", "!!!", "", "stress")))
INT8 = artifact_of("int8")
POLICY = ThresholdPolicy((), {"onnx-int8": ROUNDED})
ONE_LIMIT = ThresholdPolicy((), {"onnx-int8": LIMITS})


def measured(fault: Callable[..., object] = right) -> ParityReport:
    return report_of(fault, CORPUS, artifacts=[INT8])


def with_cosine(value: float | None, row: int = 3) -> ParityReport:
    report = measured()
    rows = list(report.lanes[0].rows)
    rows[row] = rows[row].model_copy(update={"cosine": value})
    return report.model_copy(update={"lanes": (report.lanes[0].model_copy(update={"rows": tuple(rows)}),)}).sealed()


def written(policy: ThresholdPolicy, report: ParityReport, path: Path) -> ThresholdPolicy:
    """Return the limits as they are read back from the file that an export leaves."""
    targets = rounding_alone(judge(report, policy, CORPUS))
    assert targets == ("onnx-int8",)
    path.write_text(as_toml(accepting(policy, report, targets), "lowered"), "utf-8")
    return ThresholdPolicy.read(path)


@pytest.mark.parametrize("policy", [POLICY, ONE_LIMIT])
@pytest.mark.parametrize("name", ["3 xxx", "!!!"])
def test_what_rounding_alone_refuses_passes_under_the_limits_that_are_written(policy, name, tmp_path):
    report = measured(on_text(name, turned(0.95)))
    assert not judge(report, policy, CORPUS).passed
    assert judge(report, written(policy, report, tmp_path / "limits.toml"), CORPUS).passed


@pytest.mark.parametrize("value", [0.9977, 0.9971, float(np.nextafter(0.9973, 0)), float(np.nextafter(0.9959, 0))])
def test_a_limit_is_never_above_what_was_measured_and_less_than_a_step_below(value, tmp_path):
    report = with_cosine(value)
    policy = written(POLICY, report, tmp_path / "limits.toml")
    assert judge(report, policy, CORPUS).passed
    assert value - 1.001e-4 < policy.tables["onnx-int8"].min_cosine <= value


@pytest.mark.parametrize(("row", "least"), [(3, 0.9), (6, 0.8)])
def test_a_cosine_that_no_rounding_explains_is_not_offered(row, least):
    for value in (float(np.nextafter(least, 0)), 0.0, -1.0, None):
        assert rounding_alone(judge(with_cosine(value, row), POLICY, CORPUS)) == ()
    assert rounding_alone(judge(with_cosine(least, row), POLICY, CORPUS)) == ("onnx-int8",)


def negated(rows, ids):
    rows *= np.float32(-1)


def random_vectors(rows, ids):
    return np.stack([truth((*own, 99)) for own in ids])


@pytest.mark.parametrize("policy", [POLICY, ONE_LIMIT])
@pytest.mark.parametrize("fault", [negated, random_vectors])
def test_vectors_that_are_wrong_altogether_are_not_offered(fault, policy):
    assert rounding_alone(judge(measured(fault), policy, CORPUS)) == ()


def test_nothing_is_offered_where_the_report_itself_is_refused():
    report = measured(on_text("3 xxx", turned(0.95)))
    other = judge(report, POLICY, CORPUS, artifacts=[INT8], checkpoint_digest="d" * 64)
    unmeasured = judge(report, POLICY, CORPUS, require=["openvino:cpu"])
    assert rounding_alone(other) == rounding_alone(unmeasured) == rounding_alone(Verdict(())) == ()


def test_a_target_whose_lanes_would_not_pass_keeps_its_limits():
    report = with_cosine(0.5)
    assert accepting(POLICY, report, ["onnx-int8"]) == POLICY


def test_only_the_table_that_a_lane_is_judged_by_is_lowered():
    strict = ROUNDED.model_copy(update={"min_cosine": 0.999})
    tables = {"onnx-int8": ROUNDED, "onnx-int8@fake:cpu": strict, "onnx-int8@fake:gpu": strict}
    report = measured(on_text("3 xxx", turned(0.95)))
    lowered = accepting(ThresholdPolicy((), tables), report, ["onnx-int8"]).tables
    changed = {name for name, limits in lowered.items() if limits != tables[name]}
    assert changed == {"onnx-int8@fake:cpu"}


@pytest.mark.parametrize("name", ["onnx-q😀", "onnx-q\x7f", 'onnx-é"', "onnx-a\\b", "onnx-q4"])
def test_any_name_of_a_target_is_written_as_toml(name, tmp_path):
    policy = ThresholdPolicy((Requirement("onnx-é", "fake", "cpu"),), {name: LIMITS}, {"a😀:*": frozenset({"marks"})})
    text = as_toml(policy, f"for {name}")
    assert Limits.model_validate(tomllib.loads(text)[name]) == LIMITS

    if name == "onnx-q4":
        path = tmp_path / "limits.toml"
        path.write_text(text, "utf-8")
        assert ThresholdPolicy.read(path) == policy
