"""What follows where the gate finds a model too coarse: the next form, and a record of why."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from bge_export.cli.output import show_int8
from bge_export.commands import export_model, judge_report
from bge_export.commands.made import Made, only_too_coarse
from bge_export.contracts import ExportedModel
from bge_export.exporters.onnx import OnnxExporter
from bge_export.int8 import quantize
from bge_export.int8.quantize import FORMS, Int8Options
from bge_export.manifest import Model, read_manifest
from bge_export.parity.verdict import Verdict, failure


def limits(place: Path, min_cosine: float) -> Path:
    """Write limits that judge nothing but the cosine."""
    table = f"min_cosine = {min_cosine}\nmax_abs = 0.9\nmax_norm_error = 0.1\nmin_batch_cosine = 0.9\n"
    place.write_text(f'require = []\n["onnx-fp32"]\n{table}["onnx-int8"]\n{table}')
    return place


def smallest(folder: Path) -> float:
    report = judge_report(folder / "parity.json").report
    return min(row.cosine or 0.0 for lane in report.lanes if lane.target == "onnx-int8" for row in lane.rows)


def test_the_next_form_that_passes_is_published_and_says_which_were_refused(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stages: list[str] = []

    @contextmanager
    def track(name: str, _total: int) -> Iterator[object]:
        stages.append(name)
        yield lambda _count: None

    monkeypatch.setattr(quantize, "FORMS", (0,))
    first = export_model(
        OnnxExporter(), str(tiny), tmp_path / "fast", precisions=["int8"],
        thresholds=limits(tmp_path / "all.toml", 0.999),
    )  # fmt: skip
    assert first.place.name == "fast.refused"
    monkeypatch.undo()
    needed = limits(tmp_path / "some.toml", round(smallest(first.place) + 0.001, 6))
    done = export_model(
        OnnxExporter(), str(tiny), tmp_path / "out", precisions=["fp32", "int8"], thresholds=needed,
        track=track,  # type: ignore[arg-type]
    )  # fmt: skip
    assert done.place == tmp_path / "out"
    assert done.proof is not None
    assert len(done.proof.report.runs) == 1
    float_model, model = read_manifest(done.place).models
    assert "refused" not in float_model.options
    assert model.options["form"] == FORMS[len(model.options["refused"])] > 0
    assert all("cosine" in reason for reason in model.options["refused"])
    assert sum("refused, so a finer form follows: onnx-int8@" in stage for stage in stages) == len(
        model.options["refused"]
    )
    assert sum(stage == "onnx-fp32" for stage in stages) == 1
    assert sum("calibrating" in stage for stage in stages) == 1, "what is planned serves all forms"
    show_int8(done.place)
    assert capsys.readouterr().out.count("onnx-int8: a coarser, faster form was refused: onnx-int8@") == len(
        model.options["refused"]
    )


def test_what_no_form_holds_is_refused_with_all_reasons(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantize, "FORMS", (0, 1))
    done = export_model(
        OnnxExporter(), str(tiny), tmp_path / "out", precisions=["int8"],
        thresholds=limits(tmp_path / "limits.toml", 0.999999),
    )  # fmt: skip
    assert done.place == tmp_path / "out.refused"
    assert not (tmp_path / "out").exists()
    (model,) = read_manifest(done.place).models
    assert (model.options["form"], len(model.options["refused"])) == (1, 1)


def test_a_search_has_chosen_its_form(tiny: Path, tmp_path: Path) -> None:
    done = export_model(
        OnnxExporter(int8=Int8Options(min_cosine=0.9)), str(tiny), tmp_path / "out", precisions=["int8"],
        thresholds=limits(tmp_path / "limits.toml", 0.999999),
    )  # fmt: skip
    assert done.place == tmp_path / "out.refused"
    (model,) = read_manifest(done.place).models
    assert not {"form", "refused"} & set(model.options)


def test_a_finer_form_is_the_same_file_as_if_it_were_the_first(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = []
    for places in ((0, 4), (4,)):
        monkeypatch.setattr(quantize, "FORMS", places)
        done = export_model(
            OnnxExporter(), str(tiny), tmp_path / str(len(places)), precisions=["int8"],
            thresholds=limits(tmp_path / "limits.toml", 0.999999),
        )  # fmt: skip
        files.append((done.place / "onnx/model_quantized.onnx").read_bytes())
    assert files[0] == files[1]


def test_a_form_beyond_the_most_exact_is_the_most_exact(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of an encoder with so few sites that it has fewer forms than `FORMS` reaches."""
    files = []
    for place in (100, 101):
        monkeypatch.setattr(quantize, "FORMS", (place,))
        out = tmp_path / str(place)
        export_model(OnnxExporter(), str(tiny), out, precisions=["int8"], check=False)
        files.append((out / "onnx/model_quantized.onnx").read_bytes())
    assert files[0] == files[1]


def made(target: str, *, finer: bool) -> Made:
    precision = target.partition("-")[2]
    record = Model(target=target, files=["a"], inputs=[], outputs=[], tools={}, options={})
    model = ExportedModel(precision, ("a",), (), ())
    return Made(replace(model, finer=(lambda _: model) if finer else None), record)


COARSE = failure("cosine", "0.99", "0.996", lane="onnx-int8@onnxruntime:cpu last_hidden_state", row="a")
OFF = failure("max-abs", "0.2", "0.1", lane="onnx-int8@openvino:cpu last_hidden_state", row="b")


def test_only_rounding_of_one_model_leads_to_another_form() -> None:
    both = [made("onnx-fp32", finer=False), made("onnx-int8", finer=True)]
    found = only_too_coarse(both, Verdict((COARSE, OFF)))
    assert found is not None
    assert (found.made, found.reason) == (both[1], COARSE.message)
    assert only_too_coarse(both, Verdict(())) is None
    assert only_too_coarse([made("onnx-int8", finer=False)], Verdict((COARSE,))) is None


@pytest.mark.parametrize(
    "other",
    [
        failure("batch-cosine", "0.9", "0.99", lane="onnx-int8@onnxruntime:cpu last_hidden_state", row="a"),
        failure("not-finite", "nan", "numbers", lane="onnx-int8@onnxruntime:cpu last_hidden_state", row="a"),
        failure("wrong-pooling", "mean", "cls", lane="onnx-int8@onnxruntime:cpu last_hidden_state"),
        failure("cosine", "0.9", "0.99", lane="onnx-fp32@onnxruntime:cpu last_hidden_state", row="a"),
        failure("cosine", "0.9", "0.99", lane="onnx-q4@onnxruntime:cpu last_hidden_state", row="a"),
        failure("edited-report", "x", "y"),
    ],
)
def test_any_other_refusal_is_final(other: object) -> None:
    assert only_too_coarse([made("onnx-int8", finer=True)], Verdict((COARSE, other))) is None  # type: ignore[arg-type]
    assert only_too_coarse([made("onnx-int8", finer=True)], Verdict((other,))) is None  # type: ignore[arg-type]
