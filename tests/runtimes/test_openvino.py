"""OpenVINO: pinned precision, its own choice beside it, devices by name, static shapes."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from exporting import export_model

from bge_export.bundle.manifest import read_bundle
from bge_export.commands import Exported, judge_report, read_policy
from bge_export.contracts import Artifact, Session, TokenBatch
from bge_export.errors import ArtifactError, DeviceUnavailable
from bge_export.exporters.openvino import OpenVinoExporter
from bge_export.heads.dense import dense_head
from bge_export.parity.gate.judge import judge
from bge_export.parity.gate.policy import ThresholdPolicy
from bge_export.parity.gate.verdict import Verdict
from bge_export.parity.measure.files import known_files
from bge_export.parity.measure.measurement import Measurement, RuntimeDevice
from bge_export.runtimes import find_runtime
from bge_export.texts.corpus import Corpus, builtin_corpus

RUNTIME = find_runtime("openvino")
DEFAULT = find_runtime("openvino_default_hint")


@pytest.fixture(scope="module")
def ir(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    out = tmp_path_factory.mktemp("ir") / "out"
    return export_model(OpenVinoExporter(sentence_embedding=True), str(tiny), out, precisions=["fp32", "fp16"])


def batch(rows: int, length: int) -> TokenBatch:
    ids = np.random.default_rng(0).integers(5, 800, (rows, length))
    return TokenBatch(ids, np.ones_like(ids), np.zeros_like(ids))


def test_precision_is_pinned_and_recorded(ir: Exported) -> None:
    artifact = read_bundle(ir.folder)[1][0]
    session = RUNTIME.open(artifact, "cpu", 1)
    assert session.facts["inference_precision"] == "f32"
    assert session.facts["execution_devices"] == "CPU"
    assert session.facts["threads"] == "1"
    session.close()


def test_the_default_hint_is_a_row_of_its_own_and_refused_by_the_limits_of_fp32_where_it_is_bf16(
    ir: Exported, tiny: Path, tmp_path: Path
) -> None:
    from bge_export.checkpoint.opening import open_checkpoint
    from bge_export.oracle.eager import embed_texts

    corpus = Corpus("some", builtin_corpus().texts[:24])
    reference = embed_texts(open_checkpoint(tiny), corpus, threads=1)
    artifacts = [item for item in read_bundle(ir.folder)[1] if item.target.precision == "fp32"]
    facts = known_files(artifacts, reference.sweep)
    report = Measurement(corpus, reference, 1).report(artifacts, [RuntimeDevice(DEFAULT, "cpu", True)], facts=facts)
    limits = tmp_path / "limits.toml"
    limits.write_text(
        'require = []\n["openvino-fp32"]\nmin_cosine = 0.999999\nmax_abs = 1e-5\nmax_norm_error = 1e-5\n'
        "min_batch_cosine = 0.999999\n"
        "min_token_cosine = 0.9\nmin_sequence_cosine = 0.9\n"
    )
    verdict = judge(report, ThresholdPolicy.read(limits), corpus, artifacts=artifacts)
    in_effect = {lane.facts["inference_precision"] for lane in report.lanes}
    assert in_effect in ({"bf16"}, {"f32"}, {"f16"})
    # However exact, it is no proof alone: only `cosine` and `batch-cosine` tell whether bfloat16 was seen.
    assert (rules_of(verdict) == {"not-measured"}) == (in_effect == {"f32"})
    both = Measurement(corpus, reference, 1).report(
        artifacts, [RuntimeDevice(DEFAULT, "cpu", True), RuntimeDevice(RUNTIME, "cpu", True)], facts=facts
    )
    assert judge(both, read_policy(None), corpus, artifacts=artifacts).passed


def rules_of(verdict: Verdict) -> set[str]:
    return {bad.rule for bad in verdict.failures}


@pytest.mark.parametrize("device", ["gpu", "npu"])
def test_a_device_that_is_not_here_says_so(ir: Exported, device: str) -> None:
    reason = RUNTIME.devices()[device]
    artifact = read_bundle(ir.folder)[1][0]
    if reason is None:
        assert device.upper() in RUNTIME.open(artifact, device, 1).facts["execution_devices"]
    else:
        with pytest.raises(DeviceUnavailable, match=f"OpenVINO finds no {device.upper()} here"):
            RUNTIME.open(artifact, device, 1)


def test_an_unknown_device_says_which_there_are(ir: Exported) -> None:
    with pytest.raises(DeviceUnavailable, match="cpu, gpu, npu"):
        RUNTIME.open(read_bundle(ir.folder)[1][0], "abacus", 1)


@pytest.mark.parametrize(
    ("used", "precision", "said"),
    [
        ("CPU", "f32", "requested GPU, but CPU is used instead"),
        ("GPU.0 CPU", "f32", "requested GPU, but GPU.0 CPU is used instead"),
        ("GPU.0", "f16", "requested f32 on GPU, but f16 is used instead"),
    ],
)
def test_what_takes_the_place_of_a_device_or_a_precision_is_refused(
    ir: Exported, monkeypatch: pytest.MonkeyPatch, used: str, precision: str, said: str
) -> None:
    from bge_export.runtimes import openvino as module

    given = SimpleNamespace(facts={"execution_devices": used, "inference_precision": precision}, close=lambda: None)
    monkeypatch.setattr(module, "OpenVinoSession", lambda *_: given)
    monkeypatch.setattr(type(RUNTIME), "devices", lambda _: {"gpu": None})
    with pytest.raises(DeviceUnavailable, match=f"{said}$"):
        RUNTIME.open(read_bundle(ir.folder)[1][0], "gpu", 1)


def rows_of(artifact: Artifact, session: Session, tokens: TokenBatch) -> Mapping[str, np.ndarray]:
    return dense_head(artifact.spec).rows(session.run(tokens), tokens.attention_mask)


def test_a_model_of_any_shape_is_not_for_an_npu(ir: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(RUNTIME), "devices", lambda _: {"npu": None})
    with pytest.raises(DeviceUnavailable, match="--static-shape 1x512"):
        RUNTIME.open(read_bundle(ir.folder)[1][0], "npu", 1)


@pytest.mark.parametrize("field", ["inputs", "outputs"])
def test_a_graph_with_other_inputs_or_outputs_than_the_manifest_says_is_named(ir: Exported, field: str) -> None:
    artifact = read_bundle(ir.folder)[1][0]
    first, *others = getattr(artifact, field)
    with pytest.raises(
        ArtifactError, match=rf"openvino_model\.xml: expected exactly the {field} {first}, found .*{others[-1]}"
    ):
        RUNTIME.open(replace(artifact, **{field: getattr(artifact, field)[:1]}), "cpu", 1)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_onnx_artifacts_are_read_too(tiny_export: Exported, precision: str) -> None:
    (artifact,) = (item for item in read_bundle(tiny_export.folder)[1] if item.target.precision == precision)
    tokens = batch(3, 40)
    sessions = [find_runtime(name).open(artifact, "cpu", 1) for name in ("onnxruntime", "openvino")]
    there, here = (rows_of(artifact, session, tokens) for session in sessions)
    assert here.keys() == there.keys() == {"last_hidden_state", "sentence_embedding"}
    for name, given in here.items():
        np.testing.assert_allclose(given, there[name], atol={"fp32": 2e-6, "fp16": 2e-3}[precision])


def test_what_was_returned_stays_when_the_session_runs_again_and_closes(ir: Exported) -> None:
    session = RUNTIME.open(read_bundle(ir.folder)[1][0], "cpu", 1)
    given = session.run(batch(2, 8))
    kept = {name: value.copy() for name, value in given.items()}
    session.run(batch(2, 9))
    session.close()
    for name, value in given.items():
        np.testing.assert_array_equal(value, kept[name])


@pytest.mark.parametrize("suffix", [".xml", ".bin"])
def test_a_damaged_file_is_named(tiny: Path, tmp_path: Path, suffix: str) -> None:
    out = export_model(OpenVinoExporter(), str(tiny), tmp_path / "out", check=False).folder
    artifact = read_bundle(out)[1][0]
    path = (out / artifact.model).with_suffix(suffix)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ArtifactError, match=r"cannot load openvino_model\.xml"):
        RUNTIME.open(artifact, "cpu", 1)


def test_a_static_shape_gives_what_any_shape_gives(tiny: Path, ir: Exported, tmp_path: Path) -> None:
    done = export_model(OpenVinoExporter(static_shape=(2, 512)), str(tiny), tmp_path / "out", check=False)
    artifact = read_bundle(done.folder)[1][0]
    fixed = RUNTIME.open(artifact, "cpu", 1)
    free = RUNTIME.open(read_bundle(ir.folder)[1][0], "cpu", 1)
    for rows, length in ((1, 3), (2, 512), (5, 60)):
        tokens = batch(rows, length)
        assert fixed.run(tokens)["last_hidden_state"].shape == (rows, length, 64)
        given, wanted = (rows_of(artifact, session, tokens)["last_hidden_state"] for session in (fixed, free))
        np.testing.assert_allclose(given, wanted, atol=2e-6)

    beyond = TokenBatch(*(np.pad(array, ((0, 0), (0, 600 - length))) for array in vars(tokens).values()))
    assert fixed.run(beyond)["last_hidden_state"].shape == (rows, 600, 64)
    np.testing.assert_array_equal(rows_of(artifact, fixed, beyond)["last_hidden_state"], given)


def test_a_text_longer_than_the_static_shape_is_not_cut(tiny: Path, tmp_path: Path) -> None:
    done = export_model(OpenVinoExporter(static_shape=(1, 512)), str(tiny), tmp_path / "out", check=False)
    session = RUNTIME.open(read_bundle(done.folder)[1][0], "cpu", 1)
    with pytest.raises(ArtifactError, match="takes 512 tokens, and a text has more"):
        session.run(batch(1, 513))


def test_a_refused_row_names_the_default_hint(ir: Exported) -> None:
    assert judge_report(ir.folder / "parity.json").verdict.passed
    refused = judge_report(ir.folder / "parity.json", require=["openvino_default_hint:cpu"]).verdict
    assert [bad.rule for bad in refused.failures] == ["required-missing"] * len(refused.failures)
    assert not refused.passed


def test_a_static_length_that_would_cut_texts_is_refused(tiny: Path, tmp_path: Path) -> None:
    from bge_export.errors import UsageError

    with pytest.raises(UsageError, match="--static-shape 1x512"):
        export_model(OpenVinoExporter(static_shape=(1, 128)), str(tiny), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
