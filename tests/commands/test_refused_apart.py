"""A refused target takes no proven one with it: what is proven stands in OUT, the rest in OUT.refused."""

import json
import re
from pathlib import Path

import pytest
from exporting import export_model

from bge_export.bundle.manifest import read_manifest
from bge_export.commands import judge_report
from bge_export.contracts import Artifact
from bge_export.exporters.onnx import OnnxExporter
from bge_export.parity.gate import acceptance
from bge_export.parity.gate.policy import ThresholdPolicy
from bge_export.parity.measure.measurement import Measurement
from bge_export.parity.report import Lane

TABLE = "max_norm_error = 0.1\nmin_batch_cosine = 0.5\nmin_token_cosine = 0.3\nmin_sequence_cosine = 0.3\n"


@pytest.fixture
def strict(tmp_path: Path) -> Path:
    """Limits that no 4-bit file meets."""
    path = tmp_path / "strict.toml"
    path.write_text(
        f'require = []\n["onnx-fp32"]\nmin_cosine = 0.999\nmax_abs = 0.9\n{TABLE}'
        f'["onnx-fp16"]\nmin_cosine = 0.999\nmax_abs = 0.9\n{TABLE}'
        f'["onnx-q4"]\nmin_cosine = 0.9999\nmin_stress_cosine = 0.9999\n{TABLE}'
    )
    return path


def targets(folder: Path) -> list[str]:
    return sorted(model.target for model in read_manifest(folder).models)


def test_proven_targets_stand_and_refused_ones_lie_beside_them(tiny: Path, tmp_path: Path, strict: Path) -> None:
    out = tmp_path / "out"
    done = export_model(OnnxExporter(), str(tiny), out, precisions=["fp32", "q4"], thresholds=strict)
    assert (done.folder, done.refused) == (out, tmp_path / "out.refused")
    assert done.proof is not None
    assert done.proof.verdict.exit_status == 1
    assert {failure.target for failure in done.proof.verdict.failures} == {"onnx-q4"}

    assert targets(out) == ["onnx-fp32"]
    assert not (out / "onnx/model_q4.onnx").exists()
    assert judge_report(out / "parity.json", thresholds=strict).verdict.passed

    assert targets(done.refused) == ["onnx-q4"]
    assert not (done.refused / "onnx/model.onnx").exists()
    refused = judge_report(done.refused / "parity.json", thresholds=strict).verdict
    assert {failure.target for failure in refused.failures} == {"onnx-q4"}
    assert not list(tmp_path.glob(".*partial*"))
    assert not list(tmp_path.glob(".*old*"))


def test_a_refused_target_leaves_the_folder_that_it_should_have_joined(
    tiny: Path, tmp_path: Path, strict: Path
) -> None:
    out = tmp_path / "out"
    export_model(OnnxExporter(), str(tiny), out, precisions=["fp32"], thresholds=strict)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    done = export_model(OnnxExporter(), str(tiny), out, precisions=["q4"], thresholds=strict)
    assert done.folder == done.refused == tmp_path / "out.refused"
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_refused_target_does_not_replace_the_proven_one_of_its_name(tiny: Path, tmp_path: Path, strict: Path) -> None:
    out = tmp_path / "out"
    easy = tmp_path / "easy.toml"
    easy.write_text(strict.read_text().replace("0.9999", "0.1"))
    export_model(OnnxExporter(), str(tiny), out, precisions=["fp32", "q4"], thresholds=easy)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    done = export_model(OnnxExporter(), str(tiny), out, precisions=["fp32", "q4"], thresholds=strict, overwrite=True)
    assert done.folder == tmp_path / "out.refused"
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_target_that_was_measured_nowhere_takes_no_other_with_it(
    tiny: Path, tmp_path: Path, strict: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That it was measured nowhere names no lane."""
    whole = Measurement.lanes

    def breaking(measurement: Measurement, artifact: Artifact, *arguments: object, **named: bool) -> list[Lane]:
        lanes = whole(measurement, artifact, *arguments, **named)  # type: ignore[arg-type]
        if str(artifact.target) != "onnx-q4":
            return lanes
        return [lane.model_copy(update={"rows": (), "failed": "failed: crashed"}) for lane in lanes]

    monkeypatch.setattr(Measurement, "lanes", breaking)
    done = export_model(OnnxExporter(), str(tiny), tmp_path / "out", precisions=["fp32", "q4"], thresholds=strict)
    assert (targets(done.folder), done.refused) == (["onnx-fp32"], tmp_path / "out.refused")


def test_a_folder_is_extended_by_what_is_proven(tiny: Path, tmp_path: Path, strict: Path) -> None:
    out = tmp_path / "out"
    export_model(OnnxExporter(), str(tiny), out, precisions=["fp32"], thresholds=strict)
    done = export_model(OnnxExporter(), str(tiny), out, precisions=["fp16", "q4"], thresholds=strict)
    assert targets(done.folder) == ["onnx-fp16", "onnx-fp32"]
    assert done.refused is not None
    assert targets(done.refused) == ["onnx-q4"]
    assert judge_report(out / "parity.json", thresholds=strict).verdict.passed


def test_the_limits_that_accept_what_was_refused_do(
    tiny: Path, tmp_path: Path, strict: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The embedded checkpoint's 4-bit file is so far off that none would be offered."""
    monkeypatch.setattr(acceptance, "LEAST_OFFERED", {"everyday": 0.1, "stress": 0.1})
    done = export_model(OnnxExporter(), str(tiny), tmp_path / "out", precisions=["fp32", "q4"], thresholds=strict)
    assert done.accepting == tmp_path / "out.refused/bge_export.limits.toml"
    loosened, given = ThresholdPolicy.read(done.accepting), ThresholdPolicy.read(strict)
    assert loosened.tables["onnx-fp32"] == given.tables["onnx-fp32"]
    assert loosened.tables["onnx-q4"].min_cosine < given.tables["onnx-q4"].min_cosine
    again = export_model(
        OnnxExporter(), str(tiny), tmp_path / "accepted", precisions=["fp32", "q4"], thresholds=done.accepting
    )
    assert (again.folder, again.refused) == (tmp_path / "accepted", None)


def test_a_refusal_that_is_not_rounding_offers_no_limits(tiny: Path, tmp_path: Path, strict: Path) -> None:
    text = strict.read_text().replace(
        f"min_cosine = 0.9999\nmin_stress_cosine = 0.9999\n{TABLE}",
        "min_cosine = 0.1\nmin_stress_cosine = 0.1\nmax_norm_error = 0.1\nmin_batch_cosine = 1.0\n"
        "min_token_cosine = 0.3\nmin_sequence_cosine = 0.3\n",
    )
    strict.write_text(text.replace("min_batch_cosine = 1.0", "min_batch_cosine = 1.0\nmax_broken_pairs = 0"))
    done = export_model(OnnxExporter(), str(tiny), tmp_path / "out", precisions=["fp32", "q4"], thresholds=strict)
    assert done.accepting is None


def test_the_last_lines_say_which_is_which(bge, tiny: Path, tmp_path: Path, strict: Path) -> None:
    done = bge("onnx", tiny, "-o", tmp_path / "out", "--quantize", "q4", "--thresholds", strict)
    assert done.returncode == 1, done.stderr
    proven, refused = done.stdout.splitlines()[-2:]
    assert re.fullmatch(
        rf"{tmp_path / 'out'}: proven: onnx-fp32 \(0\.8 MB, everyday 0\.9\d+, stress 0\.9\d+\)\.", proven
    )
    what = r"onnx-q4 \(0\.\d MB, everyday 0\.\d+, stress 0\.\d+\)"
    assert re.fullmatch(rf"{tmp_path / 'out.refused'}: refused: {what}; left here to look at\.", refused)
    assert "--thresholds" not in refused, "so far off that no limits are offered"


def test_what_was_proven_before_is_not_called_refused(bge, tiny: Path, tmp_path: Path, strict: Path) -> None:
    assert bge("onnx", tiny, "-o", tmp_path / "out").returncode == 0
    done = bge("onnx", tiny, "-o", tmp_path / "out", "--quantize", "q4", "--thresholds", strict)
    assert done.returncode == 1, done.stderr
    assert re.search(r"out\.refused: refused: onnx-q4 \(.*?\), beside onnx-fp32 \(.*?\); left here", done.stdout)


def test_machines_are_told_both_folders(bge, tiny: Path, tmp_path: Path, strict: Path) -> None:
    done = bge("onnx", tiny, "-o", tmp_path / "out", "--quantize", "q4", "--thresholds", strict, "--json")
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert found["passed"] is False
    assert found["folder"] == str(tmp_path / "out")
    assert found["refused_folder"] == str(tmp_path / "out.refused")


def test_dtypes_may_be_given_twice(bge, tiny: Path, tmp_path: Path) -> None:
    done = bge(
        "transformersjs", tiny, "-o", tmp_path / "out", "--dtypes", "fp16", "--dtypes", "fp32,fp16", "--no-check"
    )
    assert done.returncode == 0, done.stderr
    assert targets(tmp_path / "out") == ["onnx-fp16", "onnx-fp32"]
