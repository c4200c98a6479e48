"""What follows where the gate finds a model too coarse: its most accurate variant, and a record of why."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from exporting import export_model

from bge_export.bundle.manifest import Model, read_manifest
from bge_export.cli.output import show_int8
from bge_export.commands import Exported, judge_report
from bge_export.commands.attempts import Made, made_again
from bge_export.contracts import ExportedModel
from bge_export.exporters.onnx import OnnxExporter
from bge_export.parity.gate.verdict import Failure, Verdict, failure
from bge_export.precision.int8 import quantize
from bge_export.precision.int8.search.search import Targets
from bge_export.precision.int8_options import Int8Options
from bge_export.progress import Advance, shown_by

EASY = Targets(smallest=0.5, mean=0.5, smallest_stress=0.5)


def limits(path: Path, min_cosine: float) -> Path:
    """Write limits that judge nothing but the cosine."""
    table = "max_norm_error = 0.1\nmin_batch_cosine = 0.9\nmin_token_cosine = 0.3\nmin_sequence_cosine = 0.3\n"
    path.write_text(
        f'require = []\n["onnx-fp32"]\nmin_cosine = 0.99\nmax_abs = 0.9\n{table}'
        f'["onnx-int8"]\nmin_cosine = {min_cosine}\nmin_stress_cosine = {min_cosine}\n{table}'
    )
    return path


def smallest(folder: Path) -> float:
    report = judge_report(folder / "parity.json").report
    return min(row.cosine or 0.0 for lane in report.lanes if lane.target == "onnx-int8" for row in lane.rows)


@pytest.fixture
def easily_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fastest variant seems good enough on the probes."""
    monkeypatch.setattr(quantize, "Targets", lambda: EASY)


@pytest.fixture
def fastest(tiny: Path, tmp_path: Path, easily_chosen: None) -> Exported:
    """The fastest variant, proven under limits that anything holds."""
    return export_model(
        OnnxExporter(), str(tiny), tmp_path / "fast", precisions=["int8"],
        thresholds=limits(tmp_path / "easy.toml", 0.5),
    )  # fmt: skip


def test_the_most_exact_variant_follows_and_says_what_was_refused(
    tiny: Path, tmp_path: Path, fastest: Exported, capsys: pytest.CaptureFixture[str]
) -> None:
    stages: list[tuple[str, int]] = []

    @contextmanager
    def display(name: str, total: int) -> Iterator[Advance]:
        stages.append((name, total))
        yield lambda _count: None

    needed = limits(tmp_path / "some.toml", round(smallest(fastest.folder) + 0.0005, 6))
    with shown_by(display):
        done = export_model(OnnxExporter(), str(tiny), tmp_path / "out", precisions=["fp32", "int8"], thresholds=needed)
    assert (done.folder, done.refused) == (tmp_path / "out", None)
    assert done.proof is not None
    assert len(done.proof.report.runs) == 1

    float_model, model = read_manifest(done.folder).models
    assert "refused" not in float_model.options
    (reason,) = model.options["refused"]
    assert "cosine" in reason
    assert model.options["choice"]["rank"] > 0

    measured = [total for name, total in stages if name == "measuring"]
    assert len(measured) == 2, "two full measurements at most"
    assert measured[1] * 2 == measured[0], "float32 is not measured again"
    assert sum("calibrating" in name for name, _ in stages) == 1, "what is planned serves all variants"
    show_int8(done.folder)
    assert f"onnx-int8: a faster variant was refused: {reason}" in capsys.readouterr().out


@pytest.mark.usefixtures("easily_chosen")
def test_what_no_variant_holds_is_refused_after_two_measurements(tiny: Path, tmp_path: Path) -> None:
    done = export_model(
        OnnxExporter(), str(tiny), tmp_path / "out", precisions=["int8"],
        thresholds=limits(tmp_path / "limits.toml", 0.9999999),
    )  # fmt: skip
    assert done.folder == done.refused == tmp_path / "out.refused"
    assert not (tmp_path / "out").exists()
    (model,) = read_manifest(done.folder).models
    assert len(model.options["refused"]) == 1


def test_the_most_exact_variant_is_not_made_twice(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantize, "Targets", lambda: Targets(1.0, 1.0, 1.0))
    done = export_model(
        OnnxExporter(), str(tiny), tmp_path / "out", precisions=["int8"],
        thresholds=limits(tmp_path / "limits.toml", 0.9999999),
    )  # fmt: skip
    (model,) = read_manifest(done.folder).models
    assert not model.options["choice"]["held"]
    assert "refused" not in model.options


def test_a_cosine_that_was_asked_for_is_not_lowered(tiny: Path, tmp_path: Path) -> None:
    done = export_model(
        OnnxExporter(int8=Int8Options(min_cosine=0.9)), str(tiny), tmp_path / "out", precisions=["int8"],
        thresholds=limits(tmp_path / "limits.toml", 0.5),
    )  # fmt: skip
    (model,) = read_manifest(done.folder).models
    assert model.options["choice"]["smallest"] >= 0.9


def made(target: str, *, finer: bool) -> Made:
    """Return a model with an attempt left, or without one."""
    record = Model(target=target, files=["a"], inputs=[], outputs=[], tools={}, options={})
    model = ExportedModel(target.partition("-")[2], ("a",), (), (), facts={"choice": "finer"})
    return Made(record, iter([model] if finer else []))


COARSE = failure("cosine", "0.99", "0.996", lane="onnx-int8@onnxruntime:cpu last_hidden_state", row="a")


def test_only_rounding_leads_to_another_variant() -> None:
    both = [made("onnx-fp32", finer=False), made("onnx-int8", finer=True)]
    assert made_again(both, Verdict(())) is None

    again = made_again(both, Verdict((COARSE,)))
    assert again is not None
    assert again[0] is both[0]
    assert again[1].record.options == {"choice": "finer", "refused": [COARSE.message]}

    assert made_again(again, Verdict((COARSE,))) is None, "no attempt is left"


OTHERS = [
    failure("batch-cosine", "0.9", "0.99", lane="onnx-int8@onnxruntime:cpu last_hidden_state", row="a"),
    failure("not-finite", "nan", "numbers", lane="onnx-int8@onnxruntime:cpu last_hidden_state", row="a"),
    failure("wrong-pooling", "mean", "cls", lane="onnx-int8@onnxruntime:cpu last_hidden_state"),
]


@pytest.mark.parametrize("other", OTHERS, ids=lambda one: one.rule)
def test_any_other_refusal_of_the_model_is_final(other: Failure) -> None:
    assert made_again([made("onnx-int8", finer=True)], Verdict((COARSE, other))) is None
    assert made_again([made("onnx-int8", finer=True)], Verdict((other,))) is None


def test_a_refusal_of_another_target_does_not_keep_a_coarse_one_from_its_next_variant() -> None:
    other = failure("cosine", "0.9", "0.99", lane="onnx-q4@onnxruntime:cpu last_hidden_state", row="a")
    assert made_again([made("onnx-int8", finer=True)], Verdict((COARSE, other))) is not None
