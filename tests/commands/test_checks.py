"""What `parity`, `gate` and `merge` refuse about the reference, the folder and the path of the report."""

import json
import shutil
from pathlib import Path

import pytest
from bundles import seal
from exporting import export_model
from tiny_checkpoint import change_json

from bge_export.bundle.integrity import CARD, GENERATED_CARD, MANIFEST, REPORT
from bge_export.bundle.manifest import read_manifest
from bge_export.checkpoint.opening import open_checkpoint
from bge_export.cli import run
from bge_export.commands import Exported, check_parity, folder_verdict, judge_report, merge_reports, write_reference
from bge_export.errors import ArtifactError, UsageError
from bge_export.exporters.onnx import OnnxExporter
from bge_export.parity.report import PairsRecord, read_report, write_report
from bge_export.saturation import PairFacts

HERE = ["onnxruntime:cpu"]


@pytest.fixture
def twin(tiny: Path, tmp_path: Path) -> Path:
    """Another checkpoint that gives the same embeddings."""
    folder = Path(shutil.copytree(tiny, tmp_path / "twin"))
    change_json(folder / "config.json", twin=True)
    assert open_checkpoint(folder).digest != open_checkpoint(tiny).digest
    return folder


def forbid_the_oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    def oracle(*_: object, **__: object) -> None:
        raise AssertionError("the oracle ran")

    monkeypatch.setattr("bge_export.commands.measuring.embed_texts", oracle)


def test_an_export_looks_at_the_weights(tiny_export: Exported) -> None:
    """The files hold no int8 weights, and the report knows it of every lane."""
    report = tiny_export.proof.report if tiny_export.proof else None
    assert report is not None
    assert {lane.pairs for lane in report.lanes} == {PairsRecord.of(PairFacts(0, 0, 0, None, 0))}


def test_a_reference_that_is_another_checkpoint_is_refused_before_anything_is_measured(
    bundle: Path, twin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_the_oracle(monkeypatch)
    with pytest.raises(UsageError, match="the folder was made of tiny"):
        check_parity(bundle, str(twin), lanes=HERE)


def test_vectors_of_another_checkpoint_are_refused(bundle: Path, twin: Path, tmp_path: Path) -> None:
    write_reference(str(twin), tmp_path / "twin.npz")
    with pytest.raises(UsageError, match="the folder was made of tiny"):
        check_parity(bundle, str(tmp_path / "twin.npz"), lanes=HERE)


def test_a_report_against_another_checkpoint_is_refused_beside_the_folder(bundle: Path) -> None:
    report = read_report(bundle / REPORT)
    other = report.checkpoint.model_copy(update={"digest": "d" * 64})
    write_report(report.model_copy(update={"checkpoint": other}), bundle / REPORT)
    verdict = judge_report(bundle / REPORT).verdict
    assert [bad.rule for bad in verdict.failures] == ["other-bytes"]


def test_a_reference_that_declares_no_pooling_takes_the_folders(tiny: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "checkpoint"))
    (folder / "modules.json").unlink()
    shutil.rmtree(folder / "1_Pooling")
    export_model(OnnxExporter(), str(folder), tmp_path / "out", pooling="mean", check=False)
    assert check_parity(tmp_path / "out", str(folder), lanes=HERE).verdict.passed


def test_own_texts_do_not_replace_the_proof_of_the_export(bundle: Path, tiny: Path, tmp_path: Path) -> None:
    texts = tmp_path / "own.txt"
    texts.write_text("hello world\n")
    before = (bundle / REPORT).read_bytes()
    with pytest.raises(UsageError, match=r"--report own\.json"):
        check_parity(bundle, str(tiny), texts=texts, lanes=HERE)
    assert (bundle / REPORT).read_bytes() == before
    assert check_parity(bundle, str(tiny), texts=texts, lanes=HERE, report_path=tmp_path / "own.json").verdict.passed
    assert (bundle / REPORT).read_bytes() == before


def test_a_run_that_measures_nothing_does_not_replace_the_proof(
    bundle: Path, tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = (bundle / REPORT).read_bytes()
    refused = check_parity(bundle, str(tiny), lanes=["onnxruntime:nowhere"])
    assert not refused.verdict.passed
    assert not refused.written
    assert (bundle / REPORT).read_bytes() == before
    assert run(["parity", str(bundle), "--reference", str(tiny), "--runtime", "onnxruntime:nowhere"]) == 1
    assert "parity.json is still the report that stood there" in capfd.readouterr().err
    check_parity(bundle, str(tiny), lanes=["onnxruntime:nowhere"], report_path=tmp_path / "own.json")
    assert not judge_report(tmp_path / "own.json").verdict.passed
    (bundle / REPORT).unlink()
    check_parity(bundle, str(tiny), lanes=["onnxruntime:nowhere"])
    assert not judge_report(bundle / REPORT).verdict.passed


def test_a_folder_says_what_the_gate_says_of_it(bundle: Path) -> None:
    assert folder_verdict(bundle) == "passed"
    report = read_report(bundle / REPORT)
    write_report(report.model_copy(update={"lanes": ()}).sealed(), bundle / REPORT)
    assert folder_verdict(bundle).startswith("REFUSED for ")
    assert folder_verdict(bundle).endswith(f"reasons; see: bge-export gate {bundle / REPORT}")
    (bundle / REPORT).write_text("{}")
    assert folder_verdict(bundle).startswith("none: ")
    (bundle / REPORT).unlink()
    assert folder_verdict(bundle) == "none: the folder holds no report"


def test_merged_reports_are_held_to_the_folders_that_they_lie_in(
    tiny_export: Exported, bundle: Path, tmp_path: Path
) -> None:
    elsewhere = Path(shutil.copyfile(tiny_export.folder / REPORT, tmp_path / "elsewhere.json"))
    paths = [bundle / REPORT, elsewhere]
    assert merge_reports(paths, tmp_path / "all.json").verdict.passed
    model = bundle / "onnx/model.onnx"
    model.write_bytes(model.read_bytes() + b"\0")
    with pytest.raises(ArtifactError, match=r"model\.onnx is not the file"):
        merge_reports(paths, tmp_path / "all.json")
    with pytest.raises(ArtifactError, match=r"model\.onnx is not the file"):
        merge_reports(paths[::-1], tmp_path / "all.json")


def test_own_texts_do_not_replace_a_proof_that_is_named_either(bundle: Path, tiny: Path, tmp_path: Path) -> None:
    texts = tmp_path / "own.txt"
    texts.write_text("hello world\n")
    before = (bundle / REPORT).read_bytes()
    with pytest.raises(UsageError, match=r"is the proof on the package's own texts.*--report own\.json"):
        check_parity(bundle, str(tiny), texts=texts, lanes=HERE, report_path=bundle / "onnx/.." / REPORT)
    assert (bundle / REPORT).read_bytes() == before


def test_gate_says_where_the_card_has_other_figures_than_the_report(
    bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (bundle / CARD).write_text(f"| `onnx/model.onnx` | 1 |\n{GENERATED_CARD}\n", "utf-8")
    assert run(["gate", str(bundle / REPORT)]) == 0
    assert "README.md has other figures of onnx/model.onnx" in capfd.readouterr().err


def test_merge_does_not_replace_what_it_reads(tiny_export: Exported, tmp_path: Path) -> None:
    paths = [Path(shutil.copyfile(tiny_export.folder / REPORT, tmp_path / name)) for name in ("a.json", "b.json")]
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    for out in (paths[0], tmp_path / "link/b.json"):
        with pytest.raises(UsageError, match=r"is one of the reports to merge, and would be lost"):
            merge_reports(paths, out)
    assert merge_reports(paths, tmp_path / "all.json").verdict.passed
    assert merge_reports(paths, tmp_path / "all.json").verdict.passed, "an earlier result may be replaced"


def test_merged_reports_about_other_bytes_than_their_folders_are_refused(bundle: Path, tmp_path: Path) -> None:
    report = read_report(bundle / REPORT)
    lanes = tuple(lane.model_copy(update={"artifact_digest": "0" * 64}) for lane in report.lanes)
    write_report(report.model_copy(update={"lanes": lanes}), bundle / REPORT)
    proof = merge_reports([bundle / REPORT, bundle / REPORT], tmp_path / "all.json")
    assert "other-bytes" in {bad.rule for bad in proof.verdict.failures}


def test_a_manifest_that_names_another_checkpoint_than_its_report_is_refused(bundle: Path, tmp_path: Path) -> None:
    manifest = json.loads((bundle / MANIFEST).read_text("utf-8"))
    seal(bundle, source=manifest["source"] | {"digest": "d" * 64})
    proof = merge_reports([bundle / REPORT], tmp_path / "all.json")
    assert [bad.rule for bad in proof.verdict.failures] == ["other-bytes"]


def test_a_manifest_that_names_another_checkpoint_of_the_hub_is_refused(bundle: Path) -> None:
    report = read_report(bundle / REPORT)
    source = read_manifest(bundle).source.model_dump()
    known = report.checkpoint.model_copy(update={"source": "BAAI/bge-small-en", "revision": "a" * 40})
    write_report(report.model_copy(update={"checkpoint": known}).sealed(), bundle / REPORT)

    seal(bundle, source=source | {"id": known.source, "revision": known.revision})
    assert judge_report(bundle / REPORT).verdict.passed

    seal(bundle, source=source | {"id": "BAAI/bge-large-en", "revision": known.revision})
    (bad,) = judge_report(bundle / REPORT).verdict.failures
    assert "BAAI/bge-small-en at " in bad.message


def test_a_revision_that_the_manifest_alone_knows_is_said(bundle: Path) -> None:
    source = read_manifest(bundle).source.model_dump()
    seal(bundle, source=source | {"id": "BAAI/bge-large-en", "revision": "f" * 40})
    proof = judge_report(bundle / REPORT)
    assert proof.verdict.passed
    assert any("the manifest's word alone" in note for note in proof.notes)
