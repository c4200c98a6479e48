import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest
from exporting import export_model

from bge_export.bundle.foreign import own_files
from bge_export.bundle.integrity import MANIFEST, REPORT, decides
from bge_export.bundle.layout import COPIED
from bge_export.bundle.manifest import read_bundle, read_manifest
from bge_export.checkpoint.tokenizer_files import TOKENIZER_FILES
from bge_export.commands import Exported, judge_report
from bge_export.errors import OutputError
from bge_export.exporters.onnx import OnnxExporter
from bge_export.parity.report import read_report, write_report
from bge_export.precision import precisions
from bge_export.texts.corpus import builtin_corpus


@pytest.fixture(scope="module")
def only_fp32(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export_model(OnnxExporter(), str(tiny), tmp_path_factory.mktemp("first") / "out")


@pytest.fixture
def out(only_fp32: Exported, tmp_path: Path) -> Path:
    return Path(shutil.copytree(only_fp32.folder, tmp_path / "out"))


def test_every_file_that_an_export_writes_is_of_a_kind_that_counts_as_its_own(only_fp32: Exported) -> None:
    listed = read_manifest(only_fp32.folder).files
    assert set(own_files(only_fp32.folder)) == set(listed)
    models = [name for precision in precisions() for name in precision.files.values()]
    assert all(decides(PurePosixPath(name)) for name in (*models, *TOKENIZER_FILES, *COPIED))


def targets(out: Path) -> list[str]:
    return sorted(str(artifact.target) for artifact in read_bundle(out)[1])


def test_a_precision_is_added_and_the_other_keeps_its_bytes_and_measurements(out: Path, tiny: Path) -> None:
    before = (out / "onnx/model.onnx").read_bytes()
    lanes = read_report(out / REPORT).lanes
    done = export_model(OnnxExporter(), str(tiny), out, precisions=["fp16"])
    assert done.folder == out
    assert targets(out) == ["onnx-fp16", "onnx-fp32"]
    assert (out / "onnx/model.onnx").read_bytes() == before
    unnamed = [lane.model_copy(update={"run": ""}) for lane in read_report(out / REPORT).lanes]
    assert all(lane in unnamed for lane in lanes)
    assert judge_report(out / REPORT).verdict.passed


def test_a_target_that_is_there_needs_overwrite_which_keeps_the_others(out: Path, tiny: Path) -> None:
    export_model(OnnxExporter(), str(tiny), out, precisions=["fp16"])
    with pytest.raises(OutputError, match=r"onnx-fp32 already.*--overwrite"):
        export_model(OnnxExporter(), str(tiny), out)
    assert export_model(OnnxExporter(), str(tiny), out, overwrite=True).proof is not None
    assert targets(out) == ["onnx-fp16", "onnx-fp32"]


@pytest.mark.parametrize("damaged", [False, True])
def test_what_others_added_stays_even_in_a_damaged_folder(out: Path, tiny: Path, damaged: bool) -> None:
    (out / "README.md").write_text("a card")
    (out / "onnx/notes").mkdir()
    (out / "images").mkdir()
    (out / "images/frontier.png").write_bytes(b"drawn")
    if damaged:
        (out / "tokenizer.json").write_text("{}")
    export_model(OnnxExporter(), str(tiny), out, overwrite=True, check=False)
    assert (out / "README.md").read_text() == "a card"
    assert (out / "onnx/notes").is_dir()
    assert (out / "images/frontier.png").read_bytes() == b"drawn"
    assert "README.md" not in (out / MANIFEST).read_text()
    read_bundle(out)


def test_another_checkpoint_needs_overwrite_and_replaces_all_that_is_not_of_others(
    out: Path, tiny: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(tiny, tmp_path / "other"))
    config = json.loads((other / "config.json").read_text("utf-8"))
    (other / "config.json").write_text(json.dumps({**config, "hidden_act": "relu"}), "utf-8")
    with pytest.raises(OutputError, match="another checkpoint"):
        export_model(OnnxExporter(), str(other), out, precisions=["fp16"], check=False)
    (out / "README.md").write_text("a card")
    export_model(OnnxExporter(), str(other), out, precisions=["fp16"], overwrite=True, check=False)
    assert targets(out) == ["onnx-fp16"]
    assert (out / "README.md").read_text() == "a card"


def test_a_damaged_folder_is_not_extended(out: Path, tiny: Path) -> None:
    (out / "tokenizer.json").write_text("{}")
    with pytest.raises(OutputError, match=r"tokenizer\.json is not the file.*--overwrite"):
        export_model(OnnxExporter(), str(tiny), out, precisions=["fp16"])


@pytest.mark.parametrize("fault", ["edited", "missing", "other texts", "other kinds", "file"])
def test_measurements_that_cannot_be_trusted_are_made_again(out: Path, tiny: Path, fault: str) -> None:
    report = read_report(out / REPORT)
    rows = tuple(row.model_copy(update={"cosine": 0.5}) for row in report.lanes[0].rows)
    lanes = (report.lanes[0].model_copy(update={"rows": rows}),)
    if fault == "edited":
        (out / REPORT).write_text(
            (out / REPORT).read_text("utf-8").replace('"cosine": 0.99', '"cosine": 0.59'), "utf-8"
        )
    elif fault == "missing":
        (out / REPORT).unlink()
    elif fault == "other kinds":
        everyday = {text.id for text in builtin_corpus().texts if text.kind == "everyday" and not text.language}
        rows = tuple(row.model_copy(update={"kind": "stress"}) if row.id in everyday else row for row in rows)
        lanes = (report.lanes[0].model_copy(update={"rows": rows}),)
        write_report(report.model_copy(update={"lanes": lanes}).sealed(), out / REPORT)
    elif fault == "file":
        run = report.runs[""]
        reference = run.reference.model_copy(update={"kind": "file"})
        runs = {"": run.model_copy(update={"reference": reference, "other_files": ("config.json",)})}
        write_report(report.model_copy(update={"runs": runs}).sealed(), out / REPORT)
    else:
        texts = report.texts.model_copy(update={"digest": "0" * 64})
        write_report(report.model_copy(update={"lanes": lanes, "texts": texts}).sealed(), out / REPORT)
    done = export_model(OnnxExporter(), str(tiny), out, precisions=["fp16"])
    assert done.proof is not None
    assert done.proof.verdict.passed
    proven = {(lane.target, lane.runtime) for lane in done.proof.report.lanes}
    assert len(proven) == len(done.proof.report.lanes) == 4
    assert len(done.proof.report.runs) == 1


def rewritten(out: Path, **changes: object) -> None:
    write_report(read_report(out / REPORT).model_copy(update=changes), out / REPORT)


def test_a_target_that_was_measured_only_in_part_is_measured_again(out: Path, tiny: Path) -> None:
    """What `parity --runtime onnxruntime` leaves does not prove the file in the other runtimes."""
    lanes = read_report(out / REPORT).lanes
    rewritten(out, lanes=tuple(lane for lane in lanes if lane.runtime == "onnxruntime"))
    done = export_model(OnnxExporter(), str(tiny), out, precisions=["fp16"])
    assert done.proof is not None
    assert done.proof.verdict.passed
    proven = [(lane.target, lane.runtime) for lane in done.proof.report.lanes if lane.measured]
    assert sorted(proven) == [
        ("onnx-fp16", "onnxruntime"), ("onnx-fp16", "openvino"), ("onnx-fp32", "onnxruntime"), ("onnx-fp32", "openvino")
    ]  # fmt: skip


def test_a_device_that_was_once_asked_for_in_vain_does_not_block_the_folder(out: Path, tiny: Path) -> None:
    report = read_report(out / REPORT)
    absent = report.lanes[0].model_copy(
        update={"device": "cuda", "requested": True, "rows": (), "unavailable": "no CUDA here", "pooling_seen": None}
    )
    asked = tuple(lane.model_copy(update={"requested": True}) for lane in report.lanes)
    rewritten(out, lanes=(*asked, absent), requested=("onnxruntime:cuda", "onnxruntime:cpu"))
    done = export_model(OnnxExporter(), str(tiny), out, precisions=["fp16"])
    assert done.proof is not None
    assert done.proof.verdict.passed, done.proof.verdict.failures
    assert {lane.device for lane in done.proof.report.lanes} == {"cpu"}


def test_a_refused_extension_leaves_the_folder_as_it_was(out: Path, tiny: Path, tmp_path: Path) -> None:
    limits = tmp_path / "limits.toml"
    table = (
        "min_cosine = 0.999999\nmax_abs = {}\nmax_norm_error = 1e-5\nmin_batch_cosine = 0.999999\n"
        "min_token_cosine = 0.5\nmin_sequence_cosine = 0.5\n"
    )
    limits.write_text(f'require = []\n["onnx-fp32"]\n{table.format(1e-5)}["onnx-fp16"]\n{table.format(1e-9)}')
    before = (out / MANIFEST).read_bytes()
    (out / "README.md").write_text("a card")
    for _ in range(2):
        done = export_model(OnnxExporter(), str(tiny), out, precisions=["fp16"], thresholds=limits)
        assert done.folder.name == "out.refused"
        assert (out / MANIFEST).read_bytes() == before
        assert targets(out) == ["onnx-fp32"]
        (done.folder / "notes").write_text("why it was refused")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["limits.toml", "out", "out.refused"]
    for path in (path for folder in (out, done.folder) for path in folder.rglob("*") if path.is_file()):
        assert path.stat().st_nlink == 1, f"editing {path} would edit another folder's file"
    assert not (done.folder / "README.md").exists()


def test_wherever_an_export_is_stopped_nothing_is_lost_or_half_written(
    only_fp32: Exported, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    moves: list[str] = []

    def stop_at(nth: int, after: bool, patch: pytest.MonkeyPatch) -> None:
        for function in (os.rename, os.replace):

            def move(*paths: Path, real: Callable[..., None] = function) -> None:
                moves.append(Path(paths[1]).name)
                if after or len(moves) != nth:
                    real(*paths)
                if len(moves) == nth:
                    raise KeyboardInterrupt

            patch.setattr(os, function.__name__, move)

    for nth in (1, 2, 3, 4):
        for after in (False, True):
            moves.clear()
            shutil.rmtree(out, ignore_errors=True)
            shutil.copytree(only_fp32.folder, out)
            (out / "README.md").write_text("a card")
            with monkeypatch.context() as patch:
                stop_at(nth, after, patch)
                with pytest.raises(KeyboardInterrupt):
                    export_model(OnnxExporter(), str(tiny), out, precisions=["fp16"])
            new = (nth, after) == (3, True) or nth == 4
            assert targets(out) == (["onnx-fp16", "onnx-fp32"] if new else ["onnx-fp32"])
            assert (out / "README.md").read_text() == "a card"
            assert judge_report(out / REPORT).verdict.passed
            assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert moves == ["parity.json", ".out.bge-export.old", "out", "README.md"]


def test_an_output_that_leads_back_is_one_folder_throughout(out: Path, tiny: Path) -> None:
    (out / "README.md").write_text("a card")
    done = export_model(OnnxExporter(), str(tiny), out / "onnx/..", precisions=["fp16"], check=False)
    assert done.folder == out
    assert targets(out) == ["onnx-fp16", "onnx-fp32"]
    assert (out / "README.md").exists()
