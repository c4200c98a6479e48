import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from architectures import KINDS, build

from bge_export.checkpoint.opening import as_artifacts, open_checkpoint
from bge_export.contracts import Artifact
from bge_export.errors import ArtifactError, DeviceUnavailable, MissingLibrary
from bge_export.heads.dense import dense_head
from bge_export.oracle.eager import embed_texts
from bge_export.oracle.vectors import ReferenceVectors
from bge_export.parity.measure.measurement import Measurement, RuntimeDevice
from bge_export.runtimes import find_runtime, runtime_names
from bge_export.texts.corpus import builtin_corpus

SMALLEST_COSINE = {"fp32": 0.999999, "fp16": 0.999, "bf16": 0.99}
runtime = find_runtime("torch")


@pytest.fixture(scope="module")
def artifacts(tiny: Path) -> tuple[Artifact, ...]:
    return as_artifacts(open_checkpoint(tiny))


@pytest.fixture(scope="module")
def reference(tiny: Path) -> ReferenceVectors:
    return embed_texts(open_checkpoint(tiny), builtin_corpus(), threads=1)


def measure(artifacts, reference: ReferenceVectors, device: str = "cpu"):
    devices = [RuntimeDevice(runtime, device, requested=True)]
    return Measurement(builtin_corpus(), reference, 1).report(artifacts, devices).lanes


@pytest.fixture(scope="module")
def lanes(artifacts, reference: ReferenceVectors):
    """The checkpoint in every precision on the processor."""
    return measure(artifacts, reference)


def test_a_module_named_torch_does_not_hide_the_library() -> None:
    assert "torch" in runtime_names()
    assert sys.modules["bge_export.runtimes.torch"] is not sys.modules["torch"]
    assert torch.__version__


def test_the_checkpoint_is_measured_in_every_precision(lanes) -> None:
    assert [lane.target for lane in lanes] == ["checkpoint-fp32", "checkpoint-fp16", "checkpoint-bf16"]
    for lane, (precision, limit) in zip(lanes, SMALLEST_COSINE.items(), strict=True):
        assert lane.failed is None
        assert lane.output == "last_hidden_state"
        assert lane.facts["dtype"] == {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}[precision]
        assert lane.facts["torch"] == torch.__version__
        assert lane.facts["tf32"] == "off"
        assert lane.facts["threads"] == "1"
        assert len(lane.rows) == len(builtin_corpus().texts)
        for row in lane.rows:
            assert row.cosine is not None, row.id
            assert row.cosine >= limit, (precision, row.id)
            assert row.norm == pytest.approx(1.0, abs=1e-5)


def test_half_precision_really_computes_in_half(lanes) -> None:
    worst = [max(row.max_abs for row in lane.rows) for lane in lanes]
    assert worst[0] < 1e-5 < worst[1] < worst[2]


@pytest.mark.parametrize("kind", KINDS)
def test_every_architecture_runs_as_the_oracle_does(kind: str, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(build(kind, tmp_path / kind, "mean"))
    reference = embed_texts(checkpoint, builtin_corpus(), threads=1)
    lane, *_ = measure(as_artifacts(checkpoint, ("fp32",)), reference)
    assert lane.failed is None
    assert min(row.cosine for row in lane.rows) >= 0.999999
    assert lane.pooling_seen == "mean"


def test_a_gpu_is_used_when_asked_for_or_refused_with_the_reason(artifacts, reference: ReferenceVectors) -> None:
    reason = runtime.devices()["cuda"]
    assert (reason is None) == torch.cuda.is_available()
    lanes = measure(artifacts, reference, "cuda")
    if reason is None:
        assert {lane.facts["device"] for lane in lanes} == {torch.cuda.get_device_name()}
        assert {lane.facts["tf32"] for lane in lanes} == {"off"}
        assert min(row.cosine for row in lanes[0].rows) >= 0.99999
    else:
        assert {lane.unavailable for lane in lanes} == {f"torch cannot run on 'cuda': {reason}"}
        with pytest.raises(DeviceUnavailable, match="CUDA"):
            runtime.open(artifacts[0], "cuda", 1)


def test_a_checkpoint_that_declares_no_pooling_is_opened_with_the_one_it_was_given(tmp_path: Path) -> None:
    root = build("bert", tmp_path / "bert", "mean")
    (root / "modules.json").unlink()
    shutil.rmtree(root / "1_Pooling")
    artifact = as_artifacts(open_checkpoint(root, pooling="last"), ("fp32",))[0]
    session = runtime.open(artifact, "cpu", 1)
    session.close()
    assert dense_head(artifact.spec).pooling == "last"


def test_a_checkpoint_that_changed_meanwhile_is_refused(artifacts) -> None:
    with pytest.raises(ArtifactError, match="has changed since it was opened"):
        runtime.open(replace(artifacts[0], digest="0" * 64), "cpu", 1)


def test_without_torch_every_device_says_how_to_install_it(artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert all("pip install 'bge-export[export]'" in str(reason) for reason in runtime.devices().values())
    with pytest.raises(MissingLibrary, match="torch"):
        runtime.open(artifacts[0], "cpu", 1)


def test_embeddings_are_float32_whatever_the_model_computes_in(artifacts) -> None:
    from bge_export.texts.tokens import TextTokenizer

    tokenizer = TextTokenizer.load(artifacts[0].root, artifacts[0].spec.inputs.max_tokens)
    for artifact in artifacts:
        session = runtime.open(artifact, "cpu", 1)
        rows = session.run(tokenizer.pad(tokenizer.encode(["hello", "the last ferry"])))["last_hidden_state"]
        session.close()
        assert rows.dtype == np.float32
        assert np.isfinite(rows).all()
