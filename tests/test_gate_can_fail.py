"""The heart of the suite: each way an artifact or a report can be wrong is refused by name; a good one passes.

Faults of an artifact go in through a runtime and come out as a refusal. Faults of a report are made by changing a good
one, sealed again where the fault must not be found by the digest alone.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
from fakes import (
    FOLDER,
    HEAD,
    LANE,
    LIMITS,
    POLICY,
    ROUNDED,
    TABLE,
    FakeRuntime,
    artifact_of,
    crashing,
    drifting,
    load_chinese_tokenizer,
    load_other_tokenizer,
    load_tokenizer,
    longer,
    mean_pooled,
    on_text,
    only_in_batches,
    promising,
    reference_of,
    report_of,
    requiring,
    right,
    setting,
    small_corpus,
    swapped,
    truth,
    turned,
    unnormalised,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from model_files import elsewhere, float_product, graph_of, write_ir, write_onnx
from score_world import PAIRS as SCORED
from score_world import POLICY as SCORE_POLICY
from score_world import on_pair, score_report
from token_world import CORPUS as TOKEN_CORPUS
from token_world import POLICY as TOKEN_POLICY
from token_world import changing, token_report

from bge_export.checkpoint.opening import open_checkpoint
from bge_export.commands.extension import Kept
from bge_export.contracts import Artifact, Target
from bge_export.errors import ArtifactError, DeviceUnavailable, MissingLibrary, PolicyError
from bge_export.parity.gate.judge import Failure, Verdict, judge
from bge_export.parity.gate.origin import reference_failures
from bge_export.parity.gate.policy import ThresholdPolicy
from bge_export.parity.gate.verdict import RULES
from bge_export.parity.measure.measurement import FileFacts, Measurement, RuntimeDevice
from bge_export.parity.report import (
    ClientRow,
    Lane,
    PairsRecord,
    ParityReport,
    RowParity,
    ScoreRow,
    SparseRow,
    VectorsRow,
)
from bge_export.saturation import PairFacts
from bge_export.texts.corpus import Corpus, Text
from bge_export.texts.fixtures import fixtures_folder

CORPUS = small_corpus()
GOOD = report_of()
BOTH = (artifact_of("fp32"), artifact_of("fp16", both=True))
GOOD_BOTH = report_of(artifacts=BOTH)
PAIRS = [(number, row) for number, lane in enumerate(GOOD_BOTH.lanes) for row in range(len(lane.rows))]


def text_of(number: int) -> str:
    return CORPUS.texts[number].text


def refusal(verdict: Verdict, rule: str, row: str | None = None) -> Failure:
    """Return the refusal by that rule (of that row), which must be there and say what it is about."""
    assert not verdict.passed
    assert verdict.exit_status == 1
    found = [bad for bad in verdict.failures if bad.rule == rule and (row is None or bad.row == row)]
    assert found, [bad.message for bad in verdict.failures]
    assert rule in found[0].message
    assert row is None or f"'{row}'" in found[0].message
    return found[0]


def rules(verdict: Verdict) -> set[str]:
    return {bad.rule for bad in verdict.failures}


def rows_refused(verdict: Verdict) -> set[str | None]:
    return {bad.row for bad in verdict.failures}


def with_lane(report: ParityReport, number: int = 0, **changes: object) -> ParityReport:
    lanes = list(report.lanes)
    lanes[number] = lanes[number].model_copy(update=changes)
    return report.model_copy(update={"lanes": tuple(lanes)}).sealed()


def with_row(report: ParityReport, row: int, lane: int = 0, **changes: object) -> ParityReport:
    rows = list(report.lanes[lane].rows)
    rows[row] = rows[row].model_copy(update=changes)
    return with_lane(report, lane, rows=tuple(rows))


# A good report passes, else none of what follows would mean anything.


def test_a_good_report_passes():
    assert judge(GOOD, POLICY, CORPUS) == Verdict(())
    assert judge(GOOD, POLICY, CORPUS).exit_status == 0


def test_a_good_report_passes_with_its_folder_and_its_requirements():
    policy = requiring("fake:cpu", "onnx-fp16@fake:cpu")
    assert judge(GOOD_BOTH, policy, CORPUS, require=["onnx-fp32@fake:cpu"], artifacts=BOTH) == Verdict(())


def test_a_thousand_good_rows_pass():
    corpus = small_corpus(1000)
    assert judge(report_of(corpus=corpus), POLICY, corpus).passed


def test_a_single_text_passes():
    corpus = small_corpus(1)
    assert judge(report_of(corpus=corpus), POLICY, corpus).passed


# Wrong artifacts, through a runtime.


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("number", [0, 7, 19])
def test_one_row_that_is_not_finite(value, number):
    verdict = judge(report_of(on_text(text_of(number), setting(value))), POLICY, CORPUS)
    refusal(verdict, "not-finite", f"t{number}")
    assert rows_refused(verdict) == {f"t{number}"}
    assert rules(verdict) == {"not-finite"}


def test_one_value_that_is_not_finite():
    def spoil(row):
        row[3] = np.nan

    refusal(judge(report_of(on_text(text_of(4), spoil)), POLICY, CORPUS), "not-finite", "t4")


def test_one_row_that_is_zero():
    verdict = judge(report_of(on_text(text_of(5), setting(0))), POLICY, CORPUS)
    refusal(verdict, "zero-norm", "t5")
    assert rows_refused(verdict) == {"t5"}


ZERO = {"norm": 0.0, "reference_norm": 0.0, "max_abs": 0.0, "cosine": 1.0, "tokens": 0}
"""A text without tokens, whose vector is zero."""


def test_a_text_whose_vector_is_zero_for_the_checkpoint_too_passes():
    report = with_row(GOOD, 5, **ZERO, batch_norm=dict.fromkeys(GOOD.lanes[0].rows[5].batch_norm, 0.0))
    assert judge(report, POLICY, CORPUS).passed


@pytest.mark.parametrize(
    ("rule", "wrong"),
    [
        ("cosine", {"norm": 1e-9, "cosine": None, "max_abs": 1e-9}),
        ("norm", {"norm": 1e-9, "cosine": None, "max_abs": 1e-9}),
        ("inconsistent", {"norm": 1.0, "max_abs": 1.0}),
        ("batch-norm", {"batch_norm": {"4": 0.0, "16-sorted": 1e-9, "8-long": 0.0}}),
        ("batch-cosine", {"batch_cosine": {"4": 1.0, "16-sorted": None, "8-long": 1.0}}),
        ("not-finite", {"finite": False, "norm": None, "cosine": None, "max_abs": None}),
    ],
)
def test_anything_but_zero_where_the_checkpoint_gives_zero(rule, wrong):
    zero = ZERO | {"batch_norm": {"4": 0.0, "16-sorted": 0.0, "8-long": 0.0}} | wrong
    refusal(judge(with_row(GOOD, 5, **zero), POLICY, CORPUS), rule, "t5")


def test_a_client_that_divides_a_zero_vector_by_its_norm_may_only_give_nan():
    own = ClientRow(tokens=0, tokens_equal=True, finite=False, cosine=None, norm=None)
    zero = ZERO | {"batch_norm": dict.fromkeys(GOOD.lanes[0].rows[5].batch_norm, 0.0)}
    assert judge(with_row(GOOD, 5, **zero, client=own), POLICY, CORPUS).passed

    wrong = own.model_copy(update={"finite": True, "norm": 1.0})
    refusal(judge(with_row(GOOD, 5, **zero, client=wrong), POLICY, CORPUS), "client-cosine", "t5")
    refusal(judge(with_row(GOOD, 5, client=own.model_copy(update={"tokens": 5})), POLICY, CORPUS), "not-finite", "t5")


def test_a_checkpoint_that_gives_most_texts_the_zero_vector():
    report = GOOD
    norms = dict.fromkeys(GOOD.lanes[0].rows[0].batch_norm, 0.0)
    for number in range(len(CORPUS.texts) // 2 + 1):
        report = with_row(report, number, **ZERO, batch_norm=norms)
    assert "of the checkpoint of norm 0" in refusal(judge(report, POLICY, CORPUS), "zero-norm").message


@pytest.mark.parametrize("number", [0, 500, 999])
def test_one_bad_row_in_a_thousand(number):
    corpus = small_corpus(1000)

    def turn(row):
        row[0] += np.float32(0.01)

    verdict = judge(report_of(on_text(corpus.texts[number].text, turn), corpus), POLICY, corpus)
    refusal(verdict, "cosine", f"t{number}")
    assert rows_refused(verdict) == {f"t{number}"}


def test_swapped_rows():
    verdict = judge(report_of(swapped(text_of(2), text_of(9))), POLICY, CORPUS)
    assert "t9" in refusal(verdict, "swapped-rows", "t2").message
    assert "t2" in refusal(verdict, "swapped-rows", "t9").message
    refusal(verdict, "cosine", "t2")


def test_mean_pooling_instead_of_cls():
    verdict = judge(report_of(mean_pooled), POLICY, CORPUS)
    assert "mean" in refusal(verdict, "wrong-pooling").message
    assert {f"t{n}" for n in range(20)} <= rows_refused(verdict)


def test_another_pooling_that_agrees_as_well_is_no_fault():
    """Texts of one token pool alike: what was seen only explains rows that fail."""
    assert judge(with_lane(GOOD, pooling_seen="mean"), POLICY, CORPUS).passed


def test_vectors_that_are_not_normalised():
    verdict = judge(report_of(unnormalised), POLICY, CORPUS)
    assert rules(verdict) == {"norm", "max-abs", "batch-norm"}
    refusal(verdict, "norm", "t0")


def test_drift_only_in_batches():
    verdict = judge(report_of(only_in_batches(drifting)), POLICY, CORPUS)
    assert rules(verdict) == {"batch-cosine", "batch-norm"}
    drifted = refusal(verdict, "batch-cosine", "t3")
    assert 0.9 < float(drifted.would_pass or "nan") < LIMITS.min_batch_cosine


def test_another_length_only_in_batches():
    verdict = judge(report_of(only_in_batches(unnormalised)), POLICY, CORPUS)
    assert rules(verdict) == {"batch-norm"}
    refusal(verdict, "batch-norm", "t0")


@pytest.mark.parametrize("value", [np.nan, 0.0])
def test_one_row_that_is_lost_only_in_batches(value):
    fault = only_in_batches(on_text(text_of(6), setting(value)))
    refusal(judge(report_of(fault), POLICY, CORPUS), "batch-cosine", "t6")


def test_a_fault_of_the_longest_text_in_one_batch_of_many():
    """The longest text is in many batches; the last good one must not hide a bad one."""
    longest = max(CORPUS.texts, key=lambda text: len(text.text))
    seen = []

    def fault(rows, ids):
        own = [n for n, row in enumerate(ids) if len(row) == len(longest.text) + 2]
        if len(rows) == 8 and own and not seen:
            seen.append(own)
            rows[own] = np.nan

    refusal(judge(report_of(fault), POLICY, CORPUS), "batch-cosine")
    assert seen


def test_a_reused_buffer_does_not_compare_with_itself():
    """A runtime that returns the same memory each time, and other rows in batches, is still found."""
    buffer = np.zeros((16, HEAD.dim), dtype=np.float32)

    def fault(rows, ids):
        drift = 0.01 if len(rows) > 1 else 0.0
        buffer[: len(rows)] = rows + np.linspace(-drift, drift, HEAD.dim, dtype=np.float32)
        return buffer[: len(rows)]

    assert rules(judge(report_of(fault), POLICY, CORPUS)) == {"batch-cosine", "batch-norm"}


def test_all_rows_one_vector():
    verdict = judge(report_of(lambda rows, ids: np.stack([truth((1,))] * len(rows))), POLICY, CORPUS)
    assert {f"t{n}" for n in range(20)} <= rows_refused(verdict)
    assert "swapped-rows" not in rules(verdict)


def test_token_ids_of_another_tokenizer():
    verdict = judge(report_of(tokenizer=load_other_tokenizer), POLICY, CORPUS)
    refusal(verdict, "token-ids", "t0")


def test_token_ids_of_the_tokenizer_that_transformers_loads_from_the_folder():
    run = GOOD.runs[""].model_copy(update={"other_token_ids": ("t3",)})
    verdict = judge(GOOD.model_copy(update={"runs": {"": run}}).sealed(), POLICY, CORPUS)
    assert "AutoTokenizer" in refusal(verdict, "token-ids", "t3").message
    assert rows_refused(verdict) == {"t3"}


def test_token_ids_differ_though_the_vectors_agree():
    refusal(judge(with_row(GOOD, 8, tokens_equal=False), POLICY, CORPUS), "token-ids", "t8")


@pytest.mark.parametrize("requested", [True, False])
def test_a_runtime_that_crashes(requested):
    verdict = judge(report_of(crashing, requested=requested), POLICY, CORPUS)
    assert "Add node" in refusal(verdict, "crashed").message


@pytest.mark.parametrize("requested", [True, False])
def test_an_artifact_that_cannot_be_opened(requested):
    report = report_of(opening=ArtifactError("ONNX Runtime cannot load onnx/model.onnx"), requested=requested)
    assert "cannot load" in refusal(judge(report, POLICY, CORPUS), "crashed").message


def test_a_crash_is_refused_though_another_lane_measured_the_target():
    lane = report_of(crashing, requested=False).lanes[0].model_copy(update={"device": "cuda"})
    report = GOOD.model_copy(update={"lanes": (*GOOD.lanes, lane)}).sealed()
    assert rules(judge(report, POLICY, CORPUS)) == {"crashed"}


# Nothing measured is nothing proven.


@pytest.mark.parametrize("reason", [DeviceUnavailable("no CUDA here"), MissingLibrary("ort", "onnxruntime", "running")])
def test_a_requested_device_that_is_unavailable(reason):
    verdict = judge(report_of(opening=reason), POLICY, CORPUS)
    assert str(reason) in refusal(verdict, "unavailable").message
    refusal(verdict, "not-measured")


def test_a_device_that_was_not_requested_may_be_unavailable():
    lane = report_of(opening=DeviceUnavailable("no CUDA"), requested=False).lanes[0]
    report = GOOD.model_copy(update={"lanes": (*GOOD.lanes, lane.model_copy(update={"device": "cuda"}))}).sealed()
    assert judge(report, POLICY, CORPUS).passed


def test_a_target_whose_only_lane_is_unavailable():
    report = report_of(opening=DeviceUnavailable("no CUDA here"), requested=False)
    message = refusal(judge(report, POLICY, CORPUS), "not-measured").message
    assert "onnx-fp32" in message
    assert "no CUDA here" in message
    assert "Add node" in refusal(judge(report_of(crashing), POLICY, CORPUS), "not-measured").message
    assert "Add node" in refusal(judge(report_of(crashing), requiring("fake:cpu"), CORPUS), "required-missing").message


def test_a_runtime_that_reads_no_artifact_though_it_was_asked_for():
    report = GOOD.model_copy(update={"requested": ("fake:cpu", "openvino:cpu")}).sealed()
    assert "openvino:cpu" in refusal(judge(report, POLICY, CORPUS), "required-missing").message


def test_a_request_is_not_met_by_a_lane_that_nobody_asked_for():
    lane = (
        report_of(opening=DeviceUnavailable("no CUDA"), requested=False).lanes[0].model_copy(update={"device": "gpu"})
    )
    changes = {"lanes": (*GOOD.lanes, lane), "requested": ("fake:cpu", "fake:gpu")}
    verdict = judge(GOOD.model_copy(update=changes).sealed(), POLICY, CORPUS)
    assert "fake:gpu" in refusal(verdict, "required-missing").message


def test_an_artifact_without_outputs():
    verdict = judge(GOOD, POLICY, CORPUS, artifacts=[replace(artifact_of(), outputs=())])
    assert "any output" in refusal(verdict, "not-measured").message


@pytest.mark.parametrize("norm", [0.0, -1.0])
def test_a_reference_without_length_of_a_checkpoint_that_does_not_normalise(norm):
    spec = promising(GOOD.spec, normalize=False)
    report = with_lane(GOOD.model_copy(update={"spec": spec}), spec=spec)
    twice = dict.fromkeys(report.lanes[0].rows[1].batch_norm, 2.0)
    longer = with_row(report, 1, norm=2.0, reference_norm=2.0, batch_norm=twice)
    assert judge(longer, POLICY, CORPUS).passed
    refusal(judge(with_row(report, 1, reference_norm=norm), POLICY, CORPUS), "inconsistent", "t1")


@pytest.mark.parametrize("name", ["openvino:cpu", "fake:cuda", "onnx-fp32@openvino:cpu", "onnx-int8@fake:cpu"])
def test_a_required_runtime_that_is_absent(name):
    assert name in refusal(judge(GOOD, POLICY, CORPUS, require=[name]), "required-missing").message
    refusal(judge(GOOD, requiring(name), CORPUS), "required-missing")


def test_a_required_runtime_that_is_unavailable():
    lane = report_of(opening=DeviceUnavailable("no CUDA"), requested=False).lanes[0]
    report = GOOD.model_copy(update={"lanes": (*GOOD.lanes, lane.model_copy(update={"device": "cuda"}))}).sealed()
    assert "no CUDA" in refusal(judge(report, requiring("fake:cuda"), CORPUS), "required-missing").message


def test_one_precision_does_not_stand_in_for_another_that_is_required():
    lanes = tuple(lane for lane in GOOD_BOTH.lanes if lane.target == "onnx-fp32")
    elsewhere = tuple(lane.model_copy(update={"runtime": "other"}) for lane in GOOD_BOTH.lanes[1:])
    report = GOOD_BOTH.model_copy(update={"lanes": (*lanes, *elsewhere)}).sealed()
    assert "onnx-fp16" in refusal(judge(report, requiring("fake:cpu"), CORPUS), "required-missing").message


def ir_of() -> Artifact:
    model = "openvino_model.xml"
    write_ir(Path(FOLDER.name) / model)
    files = (model, str(Path(model).with_suffix(".bin")))
    return replace(artifact_of(), target=Target("openvino", "fp32"), model=model, files=files)


def in_runtime(report: ParityReport, **runtimes: str) -> ParityReport:
    """Return a report whose lanes of each format are of another runtime."""
    lanes = tuple(
        lane.model_copy(update={"runtime": runtimes.get(lane.target.partition("-")[0], lane.runtime)})
        for lane in report.lanes
    )
    return report.model_copy(update={"lanes": lanes, "requested": ()}).sealed()


IR_LIMITS = replace(POLICY, tables={**POLICY.tables, "openvino-fp32": LIMITS})
BOTH_FORMATS = report_of(artifacts=(artifact_of(), ir_of()), requested=False, formats=frozenset({"onnx", "openvino"}))


def test_one_format_does_not_stand_in_for_another_that_the_required_runtime_reads():
    good = in_runtime(BOTH_FORMATS, onnx="openvino", openvino="openvino")
    assert judge(good, IR_LIMITS, CORPUS, require=["openvino:cpu"]).passed
    report = in_runtime(BOTH_FORMATS, onnx="openvino")
    assert judge(report, IR_LIMITS, CORPUS).passed
    verdict = judge(report, IR_LIMITS, CORPUS, require=["openvino:cpu"])
    assert rules(verdict) == {"required-missing"}
    assert "openvino-fp32 was not measured there" in refusal(verdict, "required-missing").message


def test_a_lane_without_a_pinned_precision_does_not_prove_a_target():
    report = in_runtime(BOTH_FORMATS, openvino="openvino_default_hint")
    verdict = judge(report, IR_LIMITS, CORPUS)
    assert rules(verdict) == {"not-measured"}
    assert "openvino_default_hint alone" in refusal(verdict, "not-measured").message
    refusal(judge(report, IR_LIMITS, CORPUS, artifacts=(artifact_of(), ir_of())), "not-measured")
    pinned = in_runtime(BOTH_FORMATS, openvino="openvino")
    both = report.model_copy(update={"lanes": (*report.lanes, pinned.lanes[1])}).sealed()
    assert judge(both, IR_LIMITS, CORPUS, artifacts=(artifact_of(), ir_of())).passed


def test_a_requirement_that_is_none():
    with pytest.raises(PolicyError, match="onnxruntime"):
        judge(GOOD, POLICY, CORPUS, require=["onnxruntime"])


def test_an_empty_corpus():
    empty = Corpus("empty.txt", ())
    report = report_of(corpus=empty)
    verdict = judge(report, POLICY, empty)
    assert {"no-texts", "not-measured", "inconsistent"} <= rules(verdict)


@pytest.mark.parametrize(("count", "texts"), [(0, CORPUS), (20, Corpus("empty.txt", ()))])
def test_no_texts_on_one_side_only(count, texts):
    record = GOOD.texts.model_copy(update={"count": count})
    refusal(judge(GOOD.model_copy(update={"texts": record}).sealed(), POLICY, texts), "no-texts")


def test_another_number_of_texts_than_the_digest_is_of():
    record = GOOD.texts.model_copy(update={"count": 21})
    assert rules(judge(GOOD.model_copy(update={"texts": record}).sealed(), POLICY, CORPUS)) == {"other-texts"}


def test_a_report_of_no_targets():
    refusal(judge(GOOD.model_copy(update={"targets": ()}).sealed(), POLICY, CORPUS), "no-lanes")


def test_a_report_with_no_lanes():
    report = GOOD.model_copy(update={"lanes": (), "targets": (), "requested": ()}).sealed()
    assert rules(judge(report, POLICY, CORPUS)) == {"no-lanes"}


def test_a_folder_with_no_artifacts():
    report = report_of(artifacts=())
    assert {"no-lanes", "not-measured", "required-missing"} <= rules(judge(report, POLICY, CORPUS, artifacts=()))


def test_a_lane_without_rows():
    refusal(judge(with_lane(GOOD, rows=()), POLICY, CORPUS), "inconsistent")


def test_rows_with_no_numbers():
    rows = tuple(
        row.model_copy(update={"cosine": None, "max_abs": None, "norm": None, "nearest_cosine": None})
        for row in GOOD.lanes[0].rows
    )
    verdict = judge(with_lane(GOOD, rows=rows), POLICY, CORPUS)
    for rule in ("cosine", "max-abs", "norm", "inconsistent"):
        assert len([bad for bad in verdict.failures if bad.rule == rule]) == 20


def test_a_missing_row():
    verdict = judge(with_lane(GOOD, rows=GOOD.lanes[0].rows[:-1]), POLICY, CORPUS)
    assert refusal(verdict, "missing-row", "t19").lane == LANE


def test_an_extra_row():
    extra = GOOD.lanes[0].rows[0].model_copy(update={"id": "stranger"})
    refusal(judge(with_lane(GOOD, rows=(*GOOD.lanes[0].rows, extra)), POLICY, CORPUS), "extra-row", "stranger")


def test_a_second_row_of_a_text():
    rows = (*GOOD.lanes[0].rows, GOOD.lanes[0].rows[3])
    refusal(judge(with_lane(GOOD, rows=rows), POLICY, CORPUS), "duplicate-row", "t3")


def test_a_row_put_in_place_of_another():
    rows = (*GOOD.lanes[0].rows[:-1], GOOD.lanes[0].rows[0])
    verdict = judge(with_lane(GOOD, rows=rows), POLICY, CORPUS)
    refusal(verdict, "missing-row", "t19")
    refusal(verdict, "duplicate-row", "t0")


def test_rows_in_another_order():
    verdict = judge(with_lane(GOOD, rows=GOOD.lanes[0].rows[::-1]), POLICY, CORPUS)
    assert rules(verdict) == {"row-order"}


def test_a_row_about_another_text():
    refusal(judge(with_row(GOOD, 2, text="something else"), POLICY, CORPUS), "other-texts", "t2")


# Reports about something else.


def test_a_report_about_another_checkpoint_than_the_folders():
    verdict = judge(GOOD, POLICY, CORPUS, artifacts=[artifact_of()], checkpoint_digest="d" * 64)
    assert rules(verdict) == {"other-bytes"}
    assert "another checkpoint, fake/checkpoint" in refusal(verdict, "other-bytes").message
    assert judge(GOOD, POLICY, CORPUS, artifacts=[artifact_of()], checkpoint_digest="c" * 64).passed


def test_a_report_about_other_bytes():
    verdict = judge(GOOD, POLICY, CORPUS, artifacts=[artifact_of(digest="b" * 64)])
    assert "onnx/model.onnx" in refusal(verdict, "other-bytes").message


def test_a_report_about_another_folder():
    verdict = judge(GOOD, POLICY, CORPUS, artifacts=[artifact_of("fp16")])
    assert {"other-bytes", "not-measured"} <= rules(verdict)


def test_a_target_of_the_folder_that_was_not_measured():
    verdict = judge(GOOD, POLICY, CORPUS, artifacts=BOTH)
    assert "fp16" in refusal(verdict, "not-measured").message


def test_an_output_of_the_graph_that_was_not_measured():
    lanes = tuple(lane for lane in GOOD_BOTH.lanes if lane.output != "last_hidden_state")
    report = GOOD_BOTH.model_copy(update={"lanes": lanes}).sealed()
    verdict = judge(report, POLICY, CORPUS, artifacts=BOTH)
    assert "last_hidden_state" in refusal(verdict, "not-measured").message


def test_an_artifact_that_promises_another_embedding():
    spec = promising(GOOD.spec, pooling="mean")
    refusal(judge(with_lane(GOOD, spec=spec), POLICY, CORPUS), "inconsistent")
    report = GOOD.model_copy(update={"spec": spec}).sealed()
    refusal(judge(with_lane(report, spec=spec), POLICY, CORPUS, artifacts=[artifact_of()]), "inconsistent")


def with_other_files(*names: str) -> ParityReport:
    """Return a good report of a folder in which some files are not the checkpoint's."""
    run = GOOD.runs[""].model_copy(update={"other_files": names})
    return GOOD.model_copy(update={"runs": {"": run}}).sealed()


def test_small_files_or_weights_that_are_not_the_checkpoints():
    verdict = judge(with_other_files("tokenizer.json", "model.safetensors"), POLICY, CORPUS)
    assert rules(verdict) == {"other-settings"}
    assert "tokenizer.json" in verdict.failures[0].message
    assert "model.safetensors" in verdict.failures[1].message


def against_a_file() -> ParityReport:
    """Return a good report whose reference vectors were read from a file."""
    run = GOOD.runs[""]
    reference = run.reference.model_copy(update={"kind": "file"})
    return GOOD.model_copy(update={"runs": {"": run.model_copy(update={"reference": reference})}}).sealed()


def test_vectors_from_a_file_where_the_checkpoint_is_required():
    assert list(reference_failures(against_a_file(), None)) == []
    assert list(reference_failures(GOOD, "checkpoint")) == []
    (bad,) = reference_failures(against_a_file(), "checkpoint")
    assert LANE in bad.message


def test_an_extension_does_not_believe_lanes_that_were_measured_against_a_file():
    checkpoint = replace(open_checkpoint(fixtures_folder() / "tiny"), digest="c" * 64)
    for report, lanes in ((GOOD, 1), (against_a_file(), 0)):
        kept = Kept(Path("old"), report=report)
        assert len(kept.lanes([artifact_of()], CORPUS, checkpoint)) == lanes


def holding(precision: str) -> Artifact:
    """Return the good artifact, whose file holds another precision."""
    artifact = artifact_of()
    root = artifact.root / f"holding-{precision}"
    write_onnx(root / artifact.model, *graph_of(precision))
    return replace(artifact, root=root)


@pytest.mark.parametrize("precision", ["fp16", "int8", "int8-dynamic", "uint8", "q4", "q4f16", "bnb4"])
def test_a_file_of_another_precision_than_its_target(precision):
    verdict = judge(GOOD, POLICY, CORPUS, artifacts=[holding(precision)])
    assert rules(verdict) == {"other-content"}
    assert "at least 99% in float32" in refusal(verdict, "other-content").message
    assert judge(GOOD, POLICY, CORPUS, artifacts=[holding("fp32")]).passed


def test_a_file_that_cannot_be_read():
    verdict = judge(GOOD, POLICY, CORPUS, artifacts=[replace(artifact_of(), root=Path("nowhere"))])
    assert "onnx/model.onnx cannot be read" in refusal(verdict, "other-content").message


def with_data(location: str, *files: str) -> Artifact:
    """Return the good artifact with its weights in another file, and further files in its list."""
    artifact = artifact_of()
    (node, weight) = float_product()
    model = "outside/" + artifact.model
    write_onnx(artifact.root / model, [node], [elsewhere(weight, location)])
    return replace(artifact, root=artifact.root / "outside", files=(artifact.model, *files))


@pytest.mark.parametrize("location", ["notes.txt", "model.onnx_data", "../tokenizer.json", "/etc/weights"])
def test_weights_in_a_file_that_the_target_does_not_list(location):
    verdict = judge(GOOD, POLICY, CORPUS, artifacts=[with_data(location)])
    assert rules(verdict) == {"other-files"}
    assert location.rpartition("/")[2] in refusal(verdict, "other-files").message
    assert verdict.failures[0].target == "onnx-fp32"


def test_weights_in_a_file_that_the_target_lists_pass():
    assert judge(GOOD, POLICY, CORPUS, artifacts=[with_data("model.onnx_data", "onnx/model.onnx_data")]).passed


@pytest.mark.parametrize("name", ["onnx/model_fp16.onnx", "model.safetensors", "openvino_model.bin"])
def test_a_model_that_another_target_lists_but_does_not_read(name):
    artifact = artifact_of()
    good = replace(artifact, files=(*artifact.files, "tokenizer.json", "1_Pooling/config.json", "README.md"))
    assert judge(GOOD, POLICY, CORPUS, artifacts=[good]).passed
    verdict = judge(GOOD, POLICY, CORPUS, artifacts=[replace(good, files=(*good.files, name))])
    assert name in refusal(verdict, "other-files").message


@pytest.mark.parametrize(
    "texts",
    [
        (*CORPUS.texts[:-1], Text("t19", "other", "")),
        (*CORPUS.texts[:-1], Text("other", CORPUS.texts[-1].text, "")),
        CORPUS.texts[:-1],
        CORPUS.texts[::-1],
        (),
    ],
)
def test_a_report_about_other_texts(texts):
    refusal(judge(GOOD, POLICY, Corpus("other.txt", texts)), "other-texts")


def test_a_reference_about_other_texts():
    run = GOOD.runs[""]
    other = run.model_copy(update={"reference": run.reference.model_copy(update={"texts_digest": "f" * 64})})
    report = GOOD.model_copy(update={"runs": {"": run, "other": other}}).sealed()
    assert "its reference vectors are of" in refusal(judge(report, POLICY, CORPUS), "other-texts").got


def test_a_lane_of_a_run_that_nobody_knows():
    refusal(judge(GOOD.model_copy(update={"runs": {}}).sealed(), POLICY, CORPUS), "inconsistent")


def test_an_edited_report():
    bad = report_of(mean_pooled)
    edited = bad.model_copy(update={"lanes": GOOD.lanes})
    assert rules(judge(edited, POLICY, CORPUS)) == {"edited-report"}


def test_a_report_that_was_never_sealed():
    refusal(judge(GOOD.model_copy(update={"digest": ""}), POLICY, CORPUS), "edited-report")


def test_an_unknown_precision():
    report = report_of(artifacts=[artifact_of("int3")])
    assert "onnx-int3" in refusal(judge(report, POLICY, CORPUS), "unknown-target").message


def test_a_lane_of_a_target_the_folder_does_not_have():
    refusal(judge(with_lane(GOOD_BOTH, target="onnx-other"), POLICY, CORPUS), "inconsistent")


def test_a_good_lane_does_not_hide_a_bad_one_of_the_same_name():
    bad = report_of(mean_pooled).lanes[0]
    report = GOOD.model_copy(update={"lanes": (bad, *GOOD.lanes)}).sealed()
    verdict = judge(report, POLICY, CORPUS)
    assert "2 times" in refusal(verdict, "inconsistent").message
    refusal(verdict, "wrong-pooling")


# Facts that do not fit together.

CONTRADICTIONS = {
    "cosine above 1": {"cosine": 1.01},
    "cosine below -1": {"cosine": -1.01},
    "nearest cosine above 1": {"nearest_cosine": 1.01},
    "batch cosine above 1": {"batch_cosine": {"4": 2.0, "16-sorted": 1.0}, "batch_norm": {"4": 1.0, "16-sorted": 1.0}},
    "not finite, with a cosine": {"finite": False},
    "finite, without a norm": {"norm": None},
    "finite, without a difference": {"max_abs": None},
    "negative norm": {"norm": -1.0},
    "negative difference": {"max_abs": -1.0},
    "reference of norm zero": {"reference_norm": 0.0},
    "reference of negative norm": {"reference_norm": -1.0},
    "reference that widens the limits": {"reference_norm": 1000.0},
    "no batches": {"batch_cosine": {}, "batch_norm": {}},
    "one batch": {"batch_cosine": {"4": 1.0}, "batch_norm": {"4": 1.0}},
    "batches without norms": {"batch_norm": {}},
    "no tokens": {"tokens": 0},
    "more tokens than the model reads": {"tokens": 17},
}


@pytest.mark.parametrize("changes", CONTRADICTIONS.values(), ids=CONTRADICTIONS.keys())
def test_facts_that_no_measurement_gives(changes):
    refusal(judge(with_row(GOOD, 11, **changes), POLICY, CORPUS), "inconsistent", "t11")


@pytest.mark.parametrize("field", ["unavailable", "failed"])
def test_rows_of_a_lane_that_could_not_run(field):
    refusal(judge(with_lane(GOOD, **{field: "why not"}), POLICY, CORPUS), "inconsistent")


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_figure_that_is_no_finite_number_is_none(precision):
    """A reference so short that a division by it leaves the numbers there are."""
    report = report_of(artifacts=[artifact_of(precision)])
    spec = promising(report.spec, normalize=False)
    report = with_lane(report.model_copy(update={"spec": spec}), spec=spec)
    verdict = judge(with_row(report, 2, reference_norm=5e-324), POLICY_OF_ALL, CORPUS)
    refusal(verdict, "norm", "t2")
    assert all(bad.figure is None or np.isfinite(bad.figure) for bad in verdict.failures)


# Limits.


@pytest.mark.parametrize("field", ["min_cosine", "max_abs", "max_norm_error", "min_batch_cosine"])
def test_a_file_of_limits_that_lacks_a_field(field, tmp_path):
    kept = [f"{name} = {value}" for name, value in LIMITS.model_dump(exclude_none=True).items() if name != field]
    path = tmp_path / "thresholds.toml"
    path.write_text("\n".join(["require = []", '["onnx-fp32"]', *kept]), "utf-8")
    with pytest.raises(PolicyError, match=rf"onnx-fp32.*{field}"):
        ThresholdPolicy.read(path)


def test_the_figure_that_would_pass_does_pass():
    def turn(row):
        row[0] += np.float32(0.01)

    report = report_of(on_text(text_of(1), turn))
    verdict = judge(report, POLICY, CORPUS)
    loosened = {
        "min_cosine": float(refusal(verdict, "cosine", "t1").would_pass or "nan"),
        "max_abs": float(refusal(verdict, "max-abs", "t1").would_pass or "nan"),
        "max_norm_error": float(refusal(verdict, "norm", "t1").would_pass or "nan"),
    }
    for limits, passes in ((loosened, True), ({"min_cosine": loosened["min_cosine"]}, False)):
        policy = ThresholdPolicy((), {"onnx-fp32": LIMITS.model_copy(update=limits)})
        assert judge(report, policy, CORPUS).passed is passes


# Weights that other processors multiply to other numbers.

INT8 = artifact_of("int8")
KEPT = PairFacts(weights=2, pairs=300, saturating=0, first=None, first_saturating=0)
SATURATING = PairFacts(weights=2, pairs=300, saturating=12, first="layer.0/key.weight", first_saturating=7)
INT8_POLICY = ThresholdPolicy((), {"onnx-int8": LIMITS.model_copy(update={"max_broken_pairs": 0}), "onnx-fp32": LIMITS})


def int8_report(pairs: PairFacts | None, artifact: Artifact = INT8) -> ParityReport:
    return report_of(artifacts=[artifact], pairs={} if pairs is None else {artifact.digest: pairs})


def test_int8_weights_that_keep_the_rule_pass():
    assert judge(int8_report(KEPT), INT8_POLICY, CORPUS, artifacts=[INT8]) == Verdict(())


def test_int8_weights_that_break_the_saturation_constraint():
    verdict = judge(int8_report(SATURATING), INT8_POLICY, CORPUS)
    assert rules(verdict) == {"pair-rule"}
    found = refusal(verdict, "pair-rule")
    for part in (INT8.model, "12 of 300 pairs", "layer.0/key.weight (7)"):
        assert part in found.message
    loosened = INT8_POLICY.tables["onnx-int8"].model_copy(update={"max_broken_pairs": int(found.would_pass or "-1")})
    assert judge(int8_report(SATURATING), ThresholdPolicy((), {"onnx-int8": loosened}), CORPUS).passed


def test_int8_weights_that_nobody_looked_at():
    verdict = judge(int8_report(None), INT8_POLICY, CORPUS)
    assert "were not inspected" in refusal(verdict, "pair-rule").message
    assert INT8.model in refusal(verdict, "pair-rule").message


def test_an_int8_file_in_which_no_int8_weight_was_found():
    none = PairFacts(weights=0, pairs=0, saturating=0, first=None, first_saturating=0)
    assert rules(judge(int8_report(none), INT8_POLICY, CORPUS)) == {"pair-rule"}
    assert judge(int8_report(none, artifact_of()), INT8_POLICY, CORPUS).passed


def test_a_target_whose_limits_name_no_pairs_may_hold_int8_weights_but_not_break_the_rule():
    assert judge(int8_report(KEPT, artifact_of()), POLICY, CORPUS).passed
    assert rules(judge(int8_report(SATURATING, artifact_of()), POLICY, CORPUS)) == {"pair-rule"}


def test_limits_of_a_lane_do_not_hide_those_of_the_file():
    policy = ThresholdPolicy((), {**INT8_POLICY.tables, "onnx-int8@fake:cpu": LIMITS})
    assert rules(judge(int8_report(SATURATING), policy, CORPUS)) == {"pair-rule"}
    assert rules(judge(int8_report(None), policy, CORPUS)) == {"pair-rule"}


def test_one_lane_knows_the_weights_for_all_lanes_of_the_same_bytes_and_of_no_others():
    both = report_of(artifacts=[INT8], pairs={INT8.digest: KEPT})
    unknown = both.lanes[0].model_copy(update={"pairs": None, "threads": 2})
    assert judge(both.model_copy(update={"lanes": (*both.lanes, unknown)}).sealed(), INT8_POLICY, CORPUS).passed
    other = unknown.model_copy(update={"artifact_digest": "0" * 64})
    verdict = judge(both.model_copy(update={"lanes": (*both.lanes, other)}).sealed(), INT8_POLICY, CORPUS)
    assert rules(verdict) == {"pair-rule"}


def test_two_counts_of_the_same_bytes():
    report = int8_report(KEPT)
    other = report.lanes[0].model_copy(update={"pairs": PairsRecord.of(SATURATING), "threads": 2})
    verdict = judge(report.model_copy(update={"lanes": (*report.lanes, other)}).sealed(), INT8_POLICY, CORPUS)
    assert rules(verdict) == {"inconsistent", "pair-rule"}


@pytest.mark.parametrize(
    "changes",
    [
        {"saturating": -1},
        {"saturating": 301},
        {"saturating": 0, "first_saturating": 0},
        {"saturating": 0, "first": None},
        {"first": None},
        {"first_saturating": 13},
        {"first_saturating": 0},
        {"weights": 0},
        {"weights": -1},
    ],
)
def test_counts_of_pairs_that_no_file_gives(changes):
    refusal(judge(int8_report(replace(SATURATING, **changes)), INT8_POLICY, CORPUS), "inconsistent")


# Operators that no set of texts can prove.


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("RandomNormal", "random numbers"),
        ("RandomUniformLike", "random numbers"),
        ("Multinomial", "random numbers"),
        ("Bernoulli", "random numbers"),
        ("Dropout (training)", "random numbers"),
        ("aten::rand_like", "random numbers"),
        ("aten::bernoulli_", "random numbers"),
        ("aten::dropout (training)", "random numbers"),
        ("If", "decides by the input"),
        ("Loop", "decides by the input"),
        ("Scan", "decides by the input"),
        ("TensorIterator", "decides by the input"),
        ("prim::If", "decides by the input"),
        ("prim::Loop", "decides by the input"),
        ("ReadValue", "keeps a state"),
        ("assign", "keeps a state"),
        ("prim::SetAttr", "keeps a state"),
        ("aten::add_ (state)", "keeps a state"),
        ("RANDOMUNIFORM", "random numbers"),
        ("aten::empty", "random numbers"),
        ("unnamed::draw", "no operator of the format or of the exporter"),
        ("com.microsoft::QAttention", "no operator of the format or of the exporter"),
        ("com.example::MatMul", "no operator of the format or of the exporter"),
        ("extension::Mine", "no operator of the format or of the exporter"),
        ("function::own.Mine", "no operator of the format or of the exporter"),
        ("unreadable::it is not XML", "no operator of the format or of the exporter"),
    ],
)
def test_an_operator_that_no_text_can_prove_is_refused_by_name(name, why):
    verdict = judge(report_of(operators=("Add", name)), POLICY, CORPUS)
    assert rules(verdict) == {"operators"}
    for part in (name, why, artifact_of().model):
        assert part in refusal(verdict, "operators").message


def test_operators_of_the_exporters_pass():
    names = ("Add", "Dropout", "aten::dropout", "prim::NumToTensor", "com.microsoft::MatMulNBits")
    assert judge(report_of(operators=names), POLICY, CORPUS).passed


def test_operators_that_nobody_looked_at():
    report = report_of()
    unknown = report.lanes[0].model_copy(update={"operators": None})
    verdict = judge(report.model_copy(update={"lanes": (unknown,)}).sealed(), POLICY, CORPUS)
    assert rules(verdict) == {"operators"}
    empty = unknown.model_copy(update={"operators": ()})
    assert rules(judge(report.model_copy(update={"lanes": (empty,)}).sealed(), POLICY, CORPUS)) == {"operators"}


def test_one_lane_knows_the_operators_for_all_lanes_of_the_same_bytes_and_two_lists_are_inconsistent():
    report = report_of()
    unknown = report.lanes[0].model_copy(update={"operators": None, "threads": 2})
    assert judge(report.model_copy(update={"lanes": (*report.lanes, unknown)}).sealed(), POLICY, CORPUS).passed
    other = unknown.model_copy(update={"operators": ("Gemm",)})
    verdict = judge(report.model_copy(update={"lanes": (*report.lanes, other)}).sealed(), POLICY, CORPUS)
    assert rules(verdict) == {"inconsistent"}


# Two kinds of text: where weights are rounded, each has a limit of its own.

POLICY_OF_ALL = ThresholdPolicy((), {"onnx-int8": LIMITS, "onnx-fp32": LIMITS})
KINDS = Corpus(
    "kinds.jsonl",
    (
        *CORPUS.texts,
        Text("mark", "!!!", "character", "stress"),
        Text("word", "the the the", "repeated", "stress"),
        Text("zh", "你好", "chinese", language="zh"),
        Text("zh-weather", "今天的天气", "chinese", language="zh"),
        Text("zh-mark", "。。。", "character", "stress", "zh"),
    ),
)
PLACES = {text.id: place for place, text in enumerate(KINDS.texts)}
ROUNDED_POLICY = ThresholdPolicy((), {"onnx-int8": ROUNDED, "onnx-q4": ROUNDED, "onnx-fp32": LIMITS})


def rounded(name: str = "", change: Callable[[np.ndarray], object] | None = None, **options) -> ParityReport:
    """Measure a rounded file; `change` is what rounding did to the vector of one text."""
    fault = right if change is None else on_text(KINDS.texts[PLACES[name]].text, change)
    return report_of(fault, KINDS, **{"artifacts": [INT8], **options})


def called(report: ParityReport, kind: str, *names: str, lane: int = 0) -> ParityReport:
    """Return a report that calls texts of one lane by a kind, sealed again."""
    for name in names:
        report = with_row(report, PLACES[name], lane, kind=kind)
    return report


def test_rounded_weights_pass_on_both_kinds_of_text():
    assert judge(rounded(), ROUNDED_POLICY, KINDS) == Verdict(())


def test_an_everyday_text_of_rounded_weights_has_the_stricter_limit():
    assert judge(rounded("t3", turned(0.9985)), ROUNDED_POLICY, KINDS).passed
    verdict = judge(rounded("t3", turned(0.99)), ROUNDED_POLICY, KINDS)
    assert rules(verdict) == {"cosine"}
    assert rows_refused(verdict) == {"t3"}
    found = refusal(verdict, "cosine", "t3")
    assert found.needed == "at least 0.998"
    assert found.may_be_rounding


@pytest.mark.parametrize("name", ["mark", "word", "zh-mark"])
def test_a_stress_text_of_rounded_weights_has_the_looser_limit_and_no_looser_one(name):
    assert judge(rounded(name, turned(0.99)), ROUNDED_POLICY, KINDS).passed
    verdict = judge(rounded(name, turned(0.98)), ROUNDED_POLICY, KINDS)
    assert rules(verdict) == {"cosine"}
    assert rows_refused(verdict) == {name}
    found = refusal(verdict, "cosine", name)
    assert "needed: at least 0.985, the limit of stress texts; a limit of 0.9800 would pass" in found.message
    assert found.may_be_rounding


@pytest.mark.parametrize(("name", "least"), [("t3", 0.998), ("mark", 0.985)])
def test_the_limit_of_a_kind_is_met_exactly_or_missed(name, least):
    report = rounded()
    assert judge(with_row(report, PLACES[name], cosine=least), ROUNDED_POLICY, KINDS).passed
    below = float(np.nextafter(least, 0))
    for value in (below, 0.0, -1.0, None):
        verdict = judge(with_row(report, PLACES[name], cosine=value), ROUNDED_POLICY, KINDS)
        assert rules(verdict) == {"cosine"}
        assert rows_refused(verdict) == {name}


def test_a_text_in_a_language_is_everyday_only_where_the_tokenizer_knows_it():
    stress, everyday = (
        rounded("zh", turned(0.99), tokenizer=load) for load in (load_tokenizer, load_chinese_tokenizer)
    )
    assert judge(stress, ROUNDED_POLICY, KINDS).passed
    assert refusal(judge(everyday, ROUNDED_POLICY, KINDS), "cosine", "zh").needed == "at least 0.998"
    far = judge(rounded("zh", turned(0.98)), ROUNDED_POLICY, KINDS)
    assert "the limit of stress texts" in refusal(far, "cosine", "zh").needed


@pytest.mark.parametrize("cosine", [0.99, 1.0])
def test_an_everyday_text_that_a_report_calls_stress(cosine):
    """Sealed again: the digest is right, and the looser limit would let the text pass."""
    verdict = judge(called(rounded("t3", turned(cosine)), "stress", "t3"), ROUNDED_POLICY, KINDS)
    assert rules(verdict) == {"inconsistent"}
    assert "a text called stress; needed: everyday" in refusal(verdict, "inconsistent", "t3").message


@pytest.mark.parametrize("name", ["mark", "zh-mark"])
@pytest.mark.parametrize("kind", ["everyday", "odd", None])
def test_a_stress_text_that_a_report_calls_something_else(name, kind):
    verdict = judge(called(rounded(), kind, name), ROUNDED_POLICY, KINDS)
    assert rows_refused(verdict) == {name}
    refusal(verdict, "inconsistent", name)


@pytest.mark.parametrize("tokenizer", [load_tokenizer, load_chinese_tokenizer])
@pytest.mark.parametrize("name", ["zh", "zh-weather"])
def test_one_text_of_a_language_of_another_kind_than_the_rest(tokenizer, name):
    good = rounded(tokenizer=tokenizer)
    kind = {"everyday": "stress", "stress": "everyday"}[good.lanes[0].rows[PLACES[name]].kind]
    verdict = judge(called(good, kind, name), ROUNDED_POLICY, KINDS)
    assert rules(verdict) == {"inconsistent"}
    message = refusal(verdict, "inconsistent").message
    assert "texts of the language 'zh' are both everyday ('zh" in message
    assert "one kind for all texts of a language" in message


def test_a_language_of_one_kind_in_one_lane_and_of_another_in_the_next():
    good = rounded(artifacts=[INT8, artifact_of("q4")])
    assert judge(good, ROUNDED_POLICY, KINDS).passed
    assert rules(judge(called(good, "everyday", "zh", "zh-weather", lane=1), ROUNDED_POLICY, KINDS)) == {"inconsistent"}
    both = called(called(good, "everyday", "zh", "zh-weather", lane=1), "everyday", "zh", "zh-weather")
    assert judge(both, ROUNDED_POLICY, KINDS).passed


ALL_STRESS = Corpus("stress.txt", tuple(replace(text, kind="stress") for text in CORPUS.texts))
UNKNOWN = Corpus("chinese.txt", tuple(Text(f"zh{n}", "天气" * n, "", language="zh") for n in range(1, 5)))


@pytest.mark.parametrize("corpus", [ALL_STRESS, UNKNOWN])
def test_rounded_weights_without_any_everyday_text_are_refused(corpus):
    """Each row keeps its limit, which is the looser one: nothing is known of what people embed."""
    verdict = judge(report_of(corpus=corpus, artifacts=[INT8]), ROUNDED_POLICY, corpus)
    assert rules(verdict) == {"no-texts"}
    assert "no everyday text for this checkpoint; needed: at least one" in refusal(verdict, "no-texts").message
    assert "onnx-int8" in refusal(verdict, "no-texts").lane


@pytest.mark.parametrize("corpus", [ALL_STRESS, UNKNOWN])
def test_floats_have_one_limit_and_need_no_everyday_text(corpus):
    assert judge(report_of(corpus=corpus), POLICY, corpus).passed


def test_a_language_is_everyday_text_enough_for_a_checkpoint_that_knows_it():
    report = report_of(corpus=UNKNOWN, artifacts=[INT8], tokenizer=load_chinese_tokenizer)
    assert judge(report, ROUNDED_POLICY, UNKNOWN).passed


@pytest.mark.parametrize("chain", [(2, 9), (2, 9, 4), (1, 2, 3, 4, 5)])
def test_vectors_of_near_texts_in_a_circle_are_swapped_however_near_they_are(chain: tuple[int, ...]):
    report = rounded()
    rows = list(report.lanes[0].rows)
    for one, other in zip(chain, (*chain[1:], chain[0]), strict=True):
        rows[one] = rows[one].model_copy(
            update={"cosine": 0.9995, "nearest": rows[other].id, "nearest_cosine": 0.99999}
        )
    verdict = judge(with_lane(report, rows=tuple(rows)), ROUNDED_POLICY, KINDS)
    assert rules(verdict) == {"swapped-rows"}
    assert rows_refused(verdict) == {rows[number].id for number in chain}


def test_texts_that_rounding_moved_towards_another_are_not_swapped():
    report = rounded()
    rows = list(report.lanes[0].rows)
    for one, other in ((1, 2), (2, 3), (4, 3)):
        rows[one] = rows[one].model_copy(
            update={"cosine": 0.9995, "nearest": rows[other].id, "nearest_cosine": 0.99999}
        )
    assert judge(with_lane(report, rows=tuple(rows)), ROUNDED_POLICY, KINDS).passed


def with_norms(*factors: float):
    """Return a report of rounded weights and of a checkpoint that does not normalise, norms off by factors in turn."""
    report = rounded()
    (lane,) = report.lanes
    spec = promising(report.spec, normalize=False)
    rows = tuple(
        row.model_copy(
            update={"norm": 2 * factor, "reference_norm": 2.0, "batch_norm": dict.fromkeys(row.batch_norm, 2 * factor)}
        )
        for row, factor in zip(lane.rows, cycle(factors), strict=False)
    )
    lanes = (lane.model_copy(update={"rows": rows, "spec": spec}),)
    return report.model_copy(update={"lanes": lanes, "spec": spec}).sealed()


def test_norms_that_are_not_normalised_may_be_rounded_both_ways():
    assert judge(with_norms(1.0, 1.015, 0.985), ROUNDED_POLICY, KINDS).passed


def test_vectors_that_were_normalised_where_the_checkpoint_does_not_are_refused():
    """Half of the norms are longer and half shorter than 1: neither each text's limit nor the median sees it."""
    report = with_norms(1.0)
    (lane,) = report.lanes
    references = cycle([1.02, 0.98])
    rows = tuple(
        row.model_copy(
            update={"norm": 1.0, "reference_norm": next(references), "batch_norm": dict.fromkeys(row.batch_norm, 1.0)}
        )
        for row in lane.rows
    )
    verdict = judge(with_lane(report, rows=rows), ROUNDED_POLICY, KINDS)
    assert "norm" in rules(verdict)
    assert "not normalised" in refusal(verdict, "norm").message


@pytest.mark.parametrize("factor", [1.01, 0.99])
def test_norms_that_are_all_off_by_one_percent_one_way_are_refused(factor):
    assert rules(judge(with_norms(factor), ROUNDED_POLICY, KINDS)) == {"norm-shift"}


def with_other_norms(policy_name: str, factor: float, where: str) -> Verdict:
    """Judge norms that are right alone and off by a factor in batches of one shape, or in what a client embeds."""
    report = with_norms(1.0)
    (lane,) = report.lanes
    rows = []
    for row in lane.rows:
        client = ClientRow(tokens=row.tokens, tokens_equal=True, finite=True, cosine=1.0, norm=2.0)
        changes = {"client": client.model_copy(update={"norm": 2 * factor})} if where == "client" else {}
        if where in row.batch_norm:
            changes = {"batch_norm": {**row.batch_norm, where: 2 * factor}}
        rows.append(row.model_copy(update=changes))
    report = with_lane(report, rows=tuple(rows))
    return judge(report, ThresholdPolicy((), {"onnx-int8": NORM_LIMITS[policy_name]}), KINDS)


NORM_LIMITS = {"alike": ROUNDED, "one vector": ROUNDED.model_copy(update={"min_batch_cosine": 0.999999})}


@pytest.mark.parametrize("factor", [1.04, 0.96])
@pytest.mark.parametrize("where", ["4", "16-sorted", "8-long", "client"])
def test_norms_that_are_off_one_way_only_in_batches_or_at_a_client_are_refused(where, factor):
    verdict = with_other_norms("alike", factor, where)
    assert rules(verdict) == {"norm-shift"}
    assert ("client's own" if where == "client" else repr(where)) in refusal(verdict, "norm-shift").message
    assert with_other_norms("alike", 1.004 if factor > 1 else 0.996, where).passed


@pytest.mark.parametrize("factor", [1.001, 0.999])
@pytest.mark.parametrize("where", ["4", "16-sorted", "8-long"])
def test_a_text_that_has_one_vector_has_one_norm_in_every_batch(where, factor):
    assert rules(with_other_norms("one vector", factor, where)) == {"batch-norm"}
    assert with_other_norms("alike", factor, where).passed
    assert with_other_norms("one vector", 1.000001, where).passed


def test_a_few_rounded_texts_in_a_batch_of_their_own_are_no_shift():
    """They may be off by what rounding moves norms; in that batch they are as they are alone."""
    report = with_norms(1.0)
    (lane,) = report.lanes
    rows = []
    for number, row in enumerate(lane.rows):
        if number < 3:
            changes = {"norm": 2.08, "batch_norm": dict.fromkeys(row.batch_norm, 2.08)}
        else:
            kept = ("4", "16-sorted")
            changes = {
                "batch_norm": {shape: row.batch_norm[shape] for shape in kept},
                "batch_cosine": {shape: row.batch_cosine[shape] for shape in kept},
            }
        rows.append(row.model_copy(update=changes))
    assert "8-long" in rows[0].batch_norm
    verdict = judge(with_lane(report, rows=tuple(rows)), ROUNDED_POLICY, KINDS)
    assert verdict.passed, verdict.failures


BY_KIND = ROUNDED.model_copy(update={"max_raw_norm_error": 0.03, "max_raw_stress_norm_error": 0.05})
"""Limits under which rounding may move norms of stress texts farther than those of everyday texts."""


def with_norm_of(name: str, factor: float) -> Verdict:
    """Judge a report whose norms are right but for one text's."""
    report = with_norms(1.0)
    row = report.lanes[0].rows[PLACES[name]]
    changes = {"norm": 2 * factor, "batch_norm": dict.fromkeys(row.batch_norm, 2 * factor)}
    return judge(with_row(report, PLACES[name], **changes), ThresholdPolicy((), {"onnx-int8": BY_KIND}), KINDS)


@pytest.mark.parametrize("factor", [1.04, 0.96])
def test_one_everyday_norm_is_held_to_the_limit_of_everyday_texts(factor):
    verdict = with_norm_of("t3", factor)
    assert rules(verdict) == {"norm", "batch-norm"}
    assert rows_refused(verdict) == {"t3"}
    assert with_norm_of("mark", factor).passed
    assert rules(with_norm_of("mark", 1.06)) == {"norm", "batch-norm"}
    assert with_norm_of("t3", 1.02).passed


MANY = Corpus(
    "many.jsonl",
    tuple(
        Text(f"{kind}{n}", f"{kind} {n}", kind, kind)
        for kind, count in (("everyday", 30), ("stress", 20))
        for n in range(count)
    ),
)


@pytest.mark.parametrize(("kind", "right", "wrong"), [("everyday", 1.004, 1.006), ("stress", 1.008, 1.009)])
def test_norms_of_one_kind_of_text_that_are_off_one_way_are_refused(kind, right, wrong):
    """The stress texts are fewer than half, and half of the everyday ones are too."""
    policy = ThresholdPolicy((), {"onnx-int8": BY_KIND})

    def verdict(factor):
        report = report_of(corpus=MANY, artifacts=[INT8])
        (lane,) = report.lanes
        spec = promising(report.spec, normalize=False)
        own = [row.id for row in lane.rows if row.kind == kind][:20]
        rows = tuple(
            row.model_copy(
                update={"norm": factor, "reference_norm": 1.0, "batch_norm": dict.fromkeys(row.batch_norm, factor)}
            )
            if row.id in own
            else row.model_copy(
                update={"reference_norm": row.norm, "batch_norm": dict.fromkeys(row.batch_norm, row.norm)}
            )
            for row in lane.rows
        )
        changed = report.model_copy(
            update={"lanes": (lane.model_copy(update={"rows": rows, "spec": spec}),), "spec": spec}
        )
        return judge(changed.sealed(), policy, MANY)

    assert verdict(right).passed, verdict(right).failures
    assert rules(verdict(wrong)) == {"norm-shift"}
    assert f"in the median of the {kind} texts" in refusal(verdict(wrong), "norm-shift").message


def test_a_norm_that_is_farther_off_than_rounding_moves_it_is_refused():
    assert rules(judge(with_norms(1.0, 1.0, 1.0, 1.1), ROUNDED_POLICY, KINDS)) == {"norm", "batch-norm"}


def test_rounded_weights_of_a_checkpoint_that_normalises_have_exact_norms():
    for factor in (1.001, 0.999):
        for name in ("t3", "mark"):
            verdict = judge(rounded(name, longer(factor)), ROUNDED_POLICY, KINDS)
            assert rules(verdict) == {"norm", "batch-norm"}
            assert rows_refused(verdict) == {name}
    in_batches = report_of(only_in_batches(on_text(text_of(3), longer(1.01))), KINDS, artifacts=[INT8])
    assert rules(judge(in_batches, ROUNDED_POLICY, KINDS)) == {"batch-norm"}


def pooled_alike(cosine: float, fault: str) -> ParityReport:
    """Measure a rounded file of a checkpoint whose mean and CLS pooling are alike; `fault`: how the file pools."""
    reference = reference_of(KINDS)
    mean = reference.vectors["cls"].copy()
    for row in mean:
        turned(cosine)(row)
    reference = replace(reference, vectors={**reference.vectors, "mean": mean})

    def pool(rows: np.ndarray, ids: object) -> None:
        for row in rows if fault == "mean" else ():
            turned(cosine)(row)

    return Measurement(KINDS, reference, 1, load_tokenizer).report(
        [INT8],
        [RuntimeDevice(FakeRuntime(pool), "cpu", True)],
        facts={INT8.digest: FileFacts(operators=("MatMul",), table=TABLE)},
    )


@pytest.mark.parametrize("cosine", [0.99999, 0.9985])
def test_another_pooling_within_the_limits_of_rounded_weights_is_refused(cosine):
    assert judge(pooled_alike(cosine, "cls"), ROUNDED_POLICY, KINDS).passed
    verdict = judge(pooled_alike(cosine, "mean"), ROUNDED_POLICY, KINDS)
    assert rules(verdict) == {"wrong-pooling"}


@pytest.mark.parametrize("cosine", [1.0, 1 - 1e-9])
def test_poolings_that_agree_refuse_no_rounded_weights(cosine):
    assert judge(pooled_alike(cosine, "mean"), ROUNDED_POLICY, KINDS).passed
    assert judge(with_lane(rounded(), pooling_seen="mean"), ROUNDED_POLICY, KINDS).passed
    assert judge(rounded("t3", turned(0.9985)), ROUNDED_POLICY, KINDS).passed


@pytest.mark.parametrize("name", ["t3", "mark", "zh"])
def test_floats_have_one_limit_for_all_texts(name):
    report = rounded(name, turned(0.9999), artifacts=[artifact_of()])
    verdict = judge(report, ROUNDED_POLICY, KINDS)
    assert rules(verdict) == {"cosine", "max-abs"}
    assert refusal(verdict, "cosine", name).needed == "at least 0.999999"
    assert not refusal(verdict, "max-abs", name).may_be_rounding


def test_vectors_of_stress_texts_that_are_swapped():
    one, other = (KINDS.texts[PLACES[name]].text for name in ("mark", "word"))
    verdict = judge(report_of(swapped(one, other), KINDS, artifacts=[INT8]), ROUNDED_POLICY, KINDS)
    assert "'word'" in refusal(verdict, "swapped-rows", "mark").message
    assert "'mark'" in refusal(verdict, "swapped-rows", "word").message


@pytest.mark.parametrize(("name", "passes"), [("mark", 0.99), ("t3", 0.9985)])
def test_a_clients_own_vector_has_the_limit_of_its_text(name, passes):
    def client(cosine: float) -> Verdict:
        own = ClientRow(tokens=5, tokens_equal=True, finite=True, cosine=cosine, norm=1.0)
        return judge(with_row(rounded(), PLACES[name], client=own), ROUNDED_POLICY, KINDS)

    assert client(passes).passed
    found = refusal(client(0.98), "client-cosine", name)
    assert ("the limit of stress texts" in found.needed) is (name == "mark")
    assert rules(client(0.98)) == {"client-cosine"}


# Any row, any lane, any fault.

nowhere = st.none()
low = st.floats(-1.0, LIMITS.min_cosine, exclude_max=True) | nowhere
wide = st.floats(1.00001e-5, 1e30) | nowhere  # the limit scales with the norm of the reference, 1 within rounding
long = st.floats(1.00002, 1e30) | st.floats(0.0, 0.99998) | nowhere


SHAPES = ("4", "16-sorted", "8-long")


def batched(values: st.SearchStrategy[float | None], field: str) -> st.SearchStrategy[dict[str, object]]:
    """Return the batches of a good row with one shape of `field` spoilt."""
    good = {"batch_cosine": dict.fromkeys(SHAPES, 1.0), "batch_norm": dict.fromkeys(SHAPES, 1.0)}
    return st.builds(
        lambda shape, value: {**good, field: {**good[field], shape: value}}, st.sampled_from(SHAPES), values
    )


mutations = st.one_of(
    st.fixed_dictionaries({"cosine": low}),
    st.fixed_dictionaries({"max_abs": wide}),
    st.fixed_dictionaries({"norm": long}),
    batched(low, "batch_cosine"),
    batched(long, "batch_norm"),
    st.just({"tokens_equal": False}),
    st.just({"finite": False, "cosine": None, "max_abs": None, "norm": None}),
)


@given(place=st.sampled_from(PAIRS), changes=mutations)
@settings(max_examples=300, deadline=None)
def test_any_single_row_beyond_a_limit_is_refused_by_its_name(place, changes):
    lane, row = place
    verdict = judge(with_row(GOOD_BOTH, row, lane, **changes), POLICY, CORPUS)
    assert rows_refused(verdict) == {f"t{row}"}
    assert {bad.lane for bad in verdict.failures} == {GOOD_BOTH.lanes[lane].name}


@given(dropped=st.sets(st.sampled_from(range(20)), min_size=1))
@settings(max_examples=50, deadline=None)
def test_any_missing_rows_are_refused_by_their_names(dropped):
    rows = tuple(row for n, row in enumerate(GOOD.lanes[0].rows) if n not in dropped)
    verdict = judge(with_lane(GOOD, rows=rows), POLICY, CORPUS)
    assert not verdict.passed
    if rows:
        assert rows_refused(verdict) == {f"t{n}" for n in dropped}


# The list of rules is the list of refusals: every rule can refuse.

WAYS: dict[str, Callable[[], Verdict]] = {
    "edited-report": lambda: judge(GOOD.model_copy(update={"digest": ""}), POLICY, CORPUS),
    "inconsistent": lambda: judge(with_lane(GOOD, rows=()), POLICY, CORPUS),
    "no-texts": lambda: judge(report_of(corpus=Corpus("e", ())), POLICY, Corpus("e", ())),
    "other-texts": lambda: judge(GOOD, POLICY, small_corpus(3)),
    "no-lanes": lambda: judge(GOOD.model_copy(update={"lanes": ()}), POLICY, CORPUS),
    "not-measured": lambda: judge(GOOD, POLICY, CORPUS, artifacts=BOTH),
    "other-bytes": lambda: judge(GOOD, POLICY, CORPUS, artifacts=[artifact_of(digest="0")]),
    "other-files": lambda: judge(GOOD, POLICY, CORPUS, artifacts=[with_data("notes.txt")]),
    "other-content": lambda: judge(GOOD, POLICY, CORPUS, artifacts=[holding("fp16")]),
    "other-settings": lambda: judge(with_other_files("config.json"), POLICY, CORPUS),
    "other-reference": lambda: Verdict(()).joined(reference_failures(against_a_file(), "checkpoint")),
    "required-missing": lambda: judge(GOOD, POLICY, CORPUS, require=["a:b"]),
    "unavailable": lambda: judge(report_of(opening=DeviceUnavailable("x")), POLICY, CORPUS),
    "crashed": lambda: judge(report_of(crashing), POLICY, CORPUS),
    "unknown-target": lambda: judge(report_of(artifacts=[artifact_of("int3")]), POLICY, CORPUS),
    "missing-row": lambda: judge(with_lane(GOOD, rows=GOOD.lanes[0].rows[1:]), POLICY, CORPUS),
    "extra-row": lambda: judge(with_row(GOOD, 0, id="x"), POLICY, CORPUS),
    "duplicate-row": lambda: judge(with_row(GOOD, 0, id="t1"), POLICY, CORPUS),
    "row-order": lambda: judge(with_lane(GOOD, rows=GOOD.lanes[0].rows[::-1]), POLICY, CORPUS),
    "token-ids": lambda: judge(with_row(GOOD, 0, tokens_equal=False), POLICY, CORPUS),
    "not-finite": lambda: judge(report_of(on_text(text_of(0), setting(np.nan))), POLICY, CORPUS),
    "zero-norm": lambda: judge(report_of(on_text(text_of(0), setting(0))), POLICY, CORPUS),
    "cosine": lambda: judge(report_of(mean_pooled), POLICY, CORPUS),
    "max-abs": lambda: judge(report_of(unnormalised), POLICY, CORPUS),
    "norm": lambda: judge(report_of(unnormalised), POLICY, CORPUS),
    "norm-shift": lambda: judge(with_norms(1.01), ROUNDED_POLICY, KINDS),
    "batch-cosine": lambda: judge(report_of(only_in_batches(drifting)), POLICY, CORPUS),
    "batch-norm": lambda: judge(report_of(only_in_batches(unnormalised)), POLICY, CORPUS),
    "swapped-rows": lambda: judge(report_of(swapped(text_of(0), text_of(1))), POLICY, CORPUS),
    "wrong-pooling": lambda: judge(report_of(mean_pooled), POLICY, CORPUS),
    "operators": lambda: judge(report_of(operators=("If",)), POLICY, CORPUS),
    "coverage": lambda: judge(with_lane(GOOD, sweep=None), POLICY, CORPUS),
    "token-table": lambda: judge(report_of(table=TABLE.model_copy(update={"worst": 2.0})), POLICY, CORPUS),
    "token-states": lambda: judge(report_of(sweep_fault=mean_pooled), POLICY, CORPUS),
    "not-repeatable": lambda: judge(with_sweep(repeated=False), POLICY, CORPUS),
    "pair-rule": lambda: judge(int8_report(SATURATING), INT8_POLICY, CORPUS),
    "client-tokens": lambda: judge(with_client(tokens_equal=False), POLICY, CORPUS),
    "client-cosine": lambda: judge(with_client(cosine=0.5), POLICY, CORPUS),
    "client-norm": lambda: judge(with_client(norm=2.0), POLICY, CORPUS),
    "logit": lambda: score_verdict(on_pair("q2-3", lambda logit: logit + 1)),
    "order": lambda: score_verdict(lambda logits, _: logits.fill(1.0)),
    "top": lambda: score_verdict(lambda logits, _: np.negative(logits, out=logits)),
    "batch-logit": lambda: score_verdict(lambda logits, ids: logits.fill(1.0) if len(ids) > 1 else None),
    "sweep-logit": lambda: score_verdict(sweep_fault=lambda logits, _: logits.fill(1.0)),
    "no-order": lambda: judge(score_report(corpus=ONE_PAIR), SCORE_POLICY, ONE_PAIR),
    "token-weight": lambda: token_verdict(changing("sparse_weights", lambda rows: np.add(rows, 0.01, out=rows))),
    "lexical-score": lambda: token_verdict(changing("sparse_weights", lambda rows: np.multiply(rows, 1.1, out=rows))),
    "batch-weight": lambda: token_verdict(changing("sparse_weights", lambda rows: rows.fill(1.0), in_batches=True)),
    "sweep-weight": lambda: token_verdict(sweep_fault=changing("sparse_weights", lambda rows: rows.fill(1.0))),
    "no-weights": lambda: judge(without_weights(), TOKEN_POLICY, TOKEN_CORPUS),
    "token-vector": lambda: token_verdict(changing("colbert_vecs", lambda rows: rows.fill(1.0))),
    "max-sim": lambda: token_verdict(changing("colbert_vecs", lambda rows: np.multiply(rows, 2, out=rows))),
    "vector-norm": lambda: token_verdict(longer_beside_others),
    "batch-vector": lambda: token_verdict(changing("colbert_vecs", lambda rows: rows.fill(1.0), in_batches=True)),
    "client-missing": lambda: judge(GOOD, replace(POLICY, token_differences={"fake:*": frozenset()}), CORPUS),
}


ONE_PAIR = Corpus("one.jsonl", (Text("q", "a text", "", query="a query"),))


def score_verdict(*arguments, **faults):
    return judge(score_report(*arguments, **faults), SCORE_POLICY, SCORED)


def token_verdict(*arguments, **faults):
    return judge(token_report(*arguments, **faults), TOKEN_POLICY, TOKEN_CORPUS)


def longer_beside_others(outputs, ids):
    """Make the vectors of tokens as many times as long as the batch has texts."""
    outputs["colbert_vecs"] *= len(ids)


def test_vectors_of_tokens_that_are_longer_in_batches_are_refused_by_their_norm_alone():
    assert rules(token_verdict(longer_beside_others)) == {"vector-norm"}


def test_vectors_of_tokens_that_are_longer_in_the_sweep_are_refused_by_their_norm_alone():
    times = changing("colbert_vecs", lambda rows: np.multiply(rows, 1000, out=rows))
    assert rules(token_verdict(sweep_fault=times)) == {"vector-norm"}


def test_vectors_of_tokens_that_are_shorter_than_the_checkpoints_are_refused_by_their_norm():
    shorter = changing("colbert_vecs", lambda rows: np.multiply(rows, 0.999, out=rows))
    assert "vector-norm" in rules(token_verdict(shorter))


def without_weights():
    """Return a report in whose reference no token of any text has a weight."""
    report = token_report()
    none = [row.model_copy(update={"largest": 0.0}) for lane in report.lanes for row in lane.weights]
    lanes = [lane.model_copy(update={"weights": tuple(none)}) if lane.weights else lane for lane in report.lanes]
    return report.model_copy(update={"lanes": tuple(lanes)}).sealed()


def test_a_file_with_three_heads_that_is_right_passes():
    verdict = token_verdict()
    assert verdict.passed, [bad.message for bad in verdict.failures[:3]]


@pytest.mark.parametrize("output", ["dense_vecs", "sparse_weights", "colbert_vecs"])
def test_a_value_that_is_not_finite_in_one_head_refuses_that_head_alone(output):
    def spoilt(rows):
        rows[0].flat[0] = np.nan

    lanes = {bad.lane for bad in token_verdict(changing(output, spoilt)).failures}
    assert lanes == {f"onnx-fp32@fake:cpu {output}"}


def test_facts_of_another_head_than_the_outputs_are_refused():
    report = token_report()
    dense, weights, vectors = report.lanes
    swapped = (dense, weights.model_copy(update={"weights": (), "vectors": vectors.vectors}), vectors)
    found = judge(report.model_copy(update={"lanes": swapped}).sealed(), TOKEN_POLICY, TOKEN_CORPUS)
    assert refusal(found, "inconsistent").lane == weights.name


def with_sweep(**changes):
    return with_lane(GOOD, sweep=GOOD.lanes[0].sweep.model_copy(update=changes))


def with_client(**changes):
    """Return a report whose first text a client made something else of by itself."""
    client = ClientRow(tokens=5, tokens_equal=True, finite=True, cosine=1.0, norm=1.0)
    return with_row(GOOD, 0, client=client.model_copy(update=changes))


@pytest.mark.parametrize("rule", sorted(RULES))
def test_every_rule_can_refuse_and_says_what_to_do(rule):
    assert refusal(WAYS[rule](), rule).advice


def test_no_fact_of_a_report_is_unjudged():
    """A new field of a row or lane must be judged, or named here as description."""
    described = {"nearest", "nearest_cosine", "text", "tokens"}
    judged = {
        "id",
        "kind",
        "tokens_equal",
        "finite",
        "cosine",
        "max_abs",
        "norm",
        "reference_norm",
        "batch_cosine",
        "batch_norm",
        "client",
    }
    assert set(ClientRow.model_fields) == {"tokens"} | {"tokens_equal", "finite", "cosine", "norm"}
    assert set(RowParity.model_fields) == described | judged
    described = {"facts", "threads", "model", "pooling_seen", "output", "runtime", "device"}
    judged = {"run", "target", "artifact_digest", "spec", "requested", "unavailable", "failed", "rows"}
    judged |= {"pairs", "operators", "sweep", "table", "scores", "weights", "vectors"}
    assert set(Lane.model_fields) == described | judged
    assert set(ScoreRow.model_fields) == {
        "id", "text", "query", "kind", "tokens", "tokens_equal", "logit", "reference", "batch",
    }  # fmt: skip
    shared = {"id", "text", "kind", "tokens", "tokens_equal", "finite", "batch"}
    assert set(SparseRow.model_fields) == shared | {"difference", "largest", "score", "reference_score"}
    assert set(VectorsRow.model_fields) == shared | {
        "vectors", "token_cosine", "norm_error", "max_sim", "reference_max_sim", "batch_norm_error",
    }  # fmt: skip
    assert set(PairsRecord.model_fields) == {"weights", "pairs", "saturating", "first", "first_saturating"}
