from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
from fakes import (
    HEAD,
    SPEC,
    FakeRuntime,
    FakeTokenizer,
    artifact_of,
    crashing,
    load_tokenizer,
    mean_pooled,
    reference_of,
    report_of,
    right,
    small_corpus,
    truth,
)

from bge_export.contracts import LAST_HIDDEN_STATE, SENTENCE_EMBEDDING
from bge_export.errors import ArtifactError, DeviceUnavailable, MissingLibrary, ReportError, RuntimeContractError
from bge_export.parity.measure.measurement import Measurement, RuntimeDevice
from bge_export.progress import shown_by, stage
from bge_export.texts.corpus import Corpus, Text

CORPUS = small_corpus()
ROW = np.ones((1, HEAD.dim), dtype=np.float32)


def measured(runtime, artifact=None, corpus=CORPUS):
    measurement = Measurement(corpus, reference_of(corpus), 1, load_tokenizer)
    return measurement.lanes(artifact or artifact_of(), RuntimeDevice(runtime, "cpu", True))


def test_a_right_runtime_gives_right_facts():
    (lane,) = measured(FakeRuntime())
    assert lane.measured
    assert (lane.target, lane.runtime, lane.device, lane.threads) == ("onnx-fp32", "fake", "cpu", 1)
    assert lane.facts == {"fake": "1"}
    assert lane.pooling_seen == "cls"
    assert [row.id for row in lane.rows] == [text.id for text in CORPUS.texts]
    for row, text in zip(lane.rows, CORPUS.texts, strict=True):
        assert row.cosine == pytest.approx(1, abs=1e-12)
        assert row.max_abs == 0
        assert row.finite
        assert row.tokens_equal
        assert row.tokens == len(text.text) + 2
        assert row.nearest == row.id
        assert set(row.batch_cosine) == set(row.batch_norm) == {"4", "16-sorted", "8-long"}
        assert row.norm == row.reference_norm == pytest.approx(1, abs=1e-6)


def test_every_text_is_embedded_alone_first_and_then_padded():
    runtime = FakeRuntime()
    measured(runtime)
    alone = [shape for shape in runtime.shapes if shape[0] == 1]
    assert runtime.shapes[: len(alone)] == alone
    assert [width for _, width in alone] == [len(text.text) + 2 for text in CORPUS.texts]
    assert {size for size, _ in runtime.shapes} == {1, 4, 8, 16}


def test_one_lane_for_each_output():
    artifact = artifact_of(both=True)
    lanes = measured(FakeRuntime(), artifact)
    assert [lane.output for lane in lanes] == [LAST_HIDDEN_STATE, SENTENCE_EMBEDDING]

    def one_wrong(rows, ids):
        return {LAST_HIDDEN_STATE: rows[:, None], SENTENCE_EMBEDDING: mean_pooled(rows, ids)}

    good, bad = measured(FakeRuntime(one_wrong), artifact)
    assert (good.pooling_seen, bad.pooling_seen) == ("cls", "mean")


BREACHES = {
    "no mapping": (lambda rows, ids: {}, "outputs"),
    "another output": (lambda rows, ids: {"logits": rows}, "logits"),
    "one output too many": (lambda rows, ids: {SENTENCE_EMBEDDING: rows, "logits": rows}, "logits"),
    "missing row": (lambda rows, ids: rows[:-1], r"\(0, 8\)"),
    "extra row": (lambda rows, ids: np.vstack([rows, rows[:1]]), r"\(2, 8\)"),
    "one vector": (lambda rows, ids: rows[0], r"\(8,\)"),
    "token states": (lambda rows, ids: rows[:, None], r"\(1, 1, 8\)"),
    "another width": (lambda rows, ids: rows[:, :4], r"\(1, 4\)"),
    "float64": (lambda rows, ids: rows.astype(np.float64), "float64"),
    "float16": (lambda rows, ids: rows.astype(np.float16), "float16"),
    "a list": (lambda rows, ids: {SENTENCE_EMBEDDING: rows.tolist()}, "list"),
    "missing row in a batch": (lambda rows, ids: rows[:-1] if len(rows) > 1 else None, r"\(3, 8\)"),
}


@pytest.mark.parametrize(("fault", "got"), BREACHES.values(), ids=BREACHES.keys())
def test_a_runtime_that_breaks_the_contract(fault, got):
    runtime = FakeRuntime(fault)
    with pytest.raises(RuntimeContractError, match=got) as caught:
        measured(runtime)
    assert all(word in str(caught.value) for word in ("fake returned", "model.onnx", "needed"))
    assert runtime.sessions[0].closed


STATES = {
    "an embedding": (lambda rows, ids: {LAST_HIDDEN_STATE: rows}, r"\(1, 8\)"),
    "states of fewer tokens": (lambda rows, ids: {LAST_HIDDEN_STATE: rows[:, None][:, [0, 0]]}, r"\(1, 2, 8\)"),
    "states of fewer texts": (lambda rows, ids: {LAST_HIDDEN_STATE: rows[:0, None]}, r"\(0, 1, 8\)"),
    "states of another width": (lambda rows, ids: {LAST_HIDDEN_STATE: rows[:, None, :4]}, r"\(1, 1, 4\)"),
    "float16": (lambda rows, ids: {LAST_HIDDEN_STATE: rows[:, None].astype(np.float16)}, "float16"),
}


@pytest.mark.parametrize(("fault", "got"), STATES.values(), ids=STATES.keys())
def test_states_that_are_not_those_of_the_batch(fault, got):
    with pytest.raises(RuntimeContractError, match=got):
        measured(FakeRuntime(fault), replace(artifact_of(), outputs=(LAST_HIDDEN_STATE,)))


def test_one_state_a_text_is_enough_only_for_cls():
    artifact = replace(artifact_of(), outputs=(LAST_HIDDEN_STATE,))
    first = FakeRuntime(lambda rows, ids: {LAST_HIDDEN_STATE: rows[:, None]})
    assert measured(first, artifact)[0].measured

    mean = replace(SPEC, heads={"dense": replace(HEAD, pooling="mean")})
    with pytest.raises(RuntimeContractError, match=r"\(1, 1, 8\)"):
        measured(first, replace(artifact, spec=mean))


@pytest.mark.parametrize("error", [DeviceUnavailable("no CUDA here"), MissingLibrary("ort", "onnxruntime", "running")])
def test_a_device_that_is_not_there(error):
    lanes = measured(FakeRuntime(opening=error), artifact_of(both=True))
    assert [(lane.unavailable, lane.failed, lane.rows) for lane in lanes] == [(str(error), None, ())] * 2


@pytest.mark.parametrize("error", [ArtifactError("cannot load"), OSError("cannot load"), MemoryError("cannot load")])
def test_an_artifact_that_cannot_be_opened(error):
    (lane,) = measured(FakeRuntime(opening=error))
    assert lane.unavailable is None
    assert "cannot load" in (lane.failed or "")
    assert lane.rows == ()


def test_a_tokenizer_that_cannot_be_read():
    def broken(_folder, _max_tokens):
        raise ArtifactError("tokenizer.json is missing")

    measurement = Measurement(CORPUS, reference_of(CORPUS), 1, broken)
    (lane,) = measurement.lanes(artifact_of(), RuntimeDevice(FakeRuntime(), "cpu", True))
    assert "tokenizer.json is missing" in (lane.failed or "")


def test_a_crash_is_a_fact_and_the_session_is_closed():
    runtime = FakeRuntime(crashing)
    (lane,) = measured(runtime)
    assert (lane.failed or "").startswith("failed: crashed: OSError: non-zero status")
    assert runtime.sessions[0].closed


def test_an_unavailable_device_in_the_middle_is_a_crash():
    def lost(rows, ids):
        raise DeviceUnavailable("the device was lost")

    (lane,) = measured(FakeRuntime(lost))
    assert lane.unavailable is None
    assert "lost" in (lane.failed or "")


def test_an_interrupt_is_no_fact():
    def interrupted(rows, ids):
        raise KeyboardInterrupt

    runtime = FakeRuntime(interrupted)
    with pytest.raises(KeyboardInterrupt):
        measured(runtime)
    assert runtime.sessions[0].closed


@pytest.mark.parametrize("count", [1, 5, 20, 37])
def test_progress_ends_where_it_said(count):
    corpus, steps = small_corpus(count), []
    with shown_by(lambda name, total: nullcontext(steps.append)), stage("measuring", 1):
        measured(FakeRuntime(), corpus=corpus)
    measurement = Measurement(corpus, reference_of(corpus), 1)
    assert sum(steps) == measurement.steps + measurement.row_steps
    assert min(steps) >= 0


def test_rows_that_are_not_finite_are_facts_with_no_numbers():
    def spoil(rows, ids):
        rows[:] = np.nan

    (lane,) = measured(FakeRuntime(spoil))
    for row in lane.rows:
        assert not row.finite
        assert row.cosine is row.max_abs is row.norm is row.nearest is row.nearest_cosine is None
        assert set(row.batch_cosine.values()) == set(row.batch_norm.values()) == {None}
    assert lane.pooling_seen is None


def test_the_worst_of_a_text_in_several_batches_of_one_shape_is_kept():
    """A single text is all rows of every batch; one bad position is enough."""

    def last_position(rows, ids):
        rows[-1] += np.float32(0.1 if len(rows) > 1 else 0)

    corpus = small_corpus(1)
    (lane,) = measured(FakeRuntime(last_position), corpus=corpus)
    cosines = lane.rows[0].batch_cosine
    assert max(value for value in cosines.values() if value is not None) < 0.999
    norms = lane.rows[0].batch_norm
    assert all(value is not None and abs(value - 1) > 0.001 for value in norms.values())


@pytest.mark.parametrize("spoilt", [0, 1, 2])
def test_a_lost_row_in_one_of_several_batches_leaves_no_number(spoilt):
    longest = max(CORPUS.texts, key=lambda text: len(text.text))
    seen = []

    def lose(rows, ids):
        own = [index for index, row in enumerate(ids) if len(row) == len(longest.text) + 2]
        if len(rows) == 8:
            if len(seen) == spoilt:
                rows[own] = np.nan
            seen.append(own)

    (lane,) = measured(FakeRuntime(lose))
    lost = [row for row in lane.rows if row.batch_norm["8-long"] is None]
    assert len(seen) == 3
    assert lost
    assert all(row.batch_cosine["8-long"] is None for row in lost)


def test_a_report_of_all():
    reads_nothing = FakeRuntime(name="other", formats=frozenset({"openvino"}))
    devices = [
        RuntimeDevice(FakeRuntime(), "cpu", True),
        RuntimeDevice(FakeRuntime(), "gpu", False),
        RuntimeDevice(reads_nothing, "cpu", True),
    ]
    artifacts = [artifact_of(), artifact_of("fp16", both=True)]
    reference = reference_of(CORPUS)
    report = Measurement(CORPUS, reference, 2, load_tokenizer).report(artifacts, devices)
    assert [(lane.target, lane.output, lane.device, lane.requested) for lane in report.lanes] == [
        ("onnx-fp32", SENTENCE_EMBEDDING, "cpu", True),
        ("onnx-fp32", SENTENCE_EMBEDDING, "gpu", False),
        ("onnx-fp16", LAST_HIDDEN_STATE, "cpu", True),
        ("onnx-fp16", SENTENCE_EMBEDDING, "cpu", True),
        ("onnx-fp16", LAST_HIDDEN_STATE, "gpu", False),
        ("onnx-fp16", SENTENCE_EMBEDDING, "gpu", False),
    ]
    assert report.targets == ("onnx-fp16", "onnx-fp32")
    assert report.requested == ("fake:cpu", "other:cpu")
    assert (report.texts.digest, report.texts.count) == (CORPUS.digest, 20)
    assert report.checkpoint.digest == reference.checkpoint_digest
    assert report.runs[""].environment["numpy"] == np.__version__
    assert report.digest == report.computed_digest


def test_a_report_names_no_user_no_host_and_no_folder():
    import getpass
    import platform

    text = report_of().model_dump_json()
    assert str(platform.node()) not in text or len(platform.node()) < 3
    assert "/home" not in text
    assert f"/{getpass.getuser()}/" not in text


def test_the_reference_must_be_about_the_same_texts():
    other = Corpus("other.txt", (*CORPUS.texts[:-1], Text("t19", "other", "")))
    with pytest.raises(ReportError, match=r"of other texts than other\.txt"):
        Measurement(other, reference_of(CORPUS), 1).report([artifact_of()], [])
    renamed = replace(reference_of(CORPUS), ids=tuple(f"u{n}" for n in range(20)))
    with pytest.raises(ReportError, match="other texts"):
        Measurement(CORPUS, renamed, 1).report([artifact_of()], [])


@pytest.mark.parametrize(
    "changes",
    [
        {"token_ids": ()},
        {"vectors": {}},
        {"vectors": {"cls": np.ones((19, HEAD.dim), dtype=np.float32)}},
        {"vectors": {"cls": np.full((20, HEAD.dim), np.nan, dtype=np.float32)}},
    ],
)
def test_the_reference_must_fit_together(changes):
    with pytest.raises(ReportError, match="do not fit together"):
        Measurement(CORPUS, replace(reference_of(CORPUS), **changes), 1).report([artifact_of()], [])


def test_the_reference_must_have_as_many_dimensions():
    wide = replace(artifact_of(), spec=replace(SPEC, heads={"dense": replace(HEAD, dim=9)}))
    with pytest.raises(ReportError, match="9 dimensions"):
        measured(FakeRuntime(), wide)


def test_the_fakes_are_what_they_say():
    assert right(ROW, [(1,)]) is None
    assert np.linalg.norm(truth((1, 2))) == pytest.approx(1)
    batch = FakeTokenizer(16).pad([(1, 2, 3), (1,)], 5)
    assert batch.attention_mask.tolist() == [[1, 1, 1, 0, 0], [1, 0, 0, 0, 0]]
