"""Faults that no text shows: each is in the sweep of token ids alone, and each must be refused by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pytest
from fakes import (
    LANE,
    POLICY,
    ROUNDED,
    SPEC,
    SWEEP,
    TABLE,
    TOKENS,
    FakeRuntime,
    FakeSession,
    artifact_of,
    load_tokenizer,
    reference_of,
    report_of,
    small_corpus,
    sweep_of,
)
from hypothesis import given
from hypothesis import strategies as st

from bge_export.contracts import LAST_HIDDEN_STATE, Artifact, Session, TokenBatch
from bge_export.parity.gate.judge import judge
from bge_export.parity.gate.policy import ThresholdPolicy
from bge_export.parity.measure.measurement import FileFacts, Measurement, RuntimeDevice
from bge_export.parity.report import ParityReport
from bge_export.parity.show.coverage import coverage, coverage_line
from bge_export.sweep.plan import (
    FEWEST_LENGTHS,
    LEFT,
    MASKED_IDS,
    MOST_ROWS,
    POSITIONS,
    SIZES,
    TOKEN_TYPES,
    TokenFacts,
    plan_positions,
    plan_rows,
    plan_sample,
)
from bge_export.texts.fixtures import fixtures_folder

CORPUS = small_corpus()
States = Mapping[str, np.ndarray]
Spoil = Callable[[TokenBatch, np.ndarray], None]
VOCABULARY = TokenFacts(rows=2000, token_types=2, prefix=(101,), suffix=(102,), pad=0, max_tokens=512)


@dataclass
class SpoilingSession(FakeSession):
    spoil: Spoil = lambda batch, states: None

    def run(self, batch: TokenBatch) -> States:
        given = dict(super().run(batch))
        for states in given.values():
            self.spoil(batch, states)
        return given


@dataclass
class Spoiling(FakeRuntime):
    """A runtime whose states are spoilt in some batches."""

    spoil: Spoil = lambda batch, states: None

    def open(self, artifact: Artifact, device: str, threads: int) -> Session:
        return SpoilingSession(self, artifact, spoil=self.spoil)


def report_with(spoil: Spoil) -> ParityReport:
    artifact = replace(artifact_of(), outputs=(LAST_HIDDEN_STATE,))
    device = RuntimeDevice(Spoiling(spoil=spoil), "cpu", True)
    measurement = Measurement(CORPUS, reference_of(CORPUS), 1, load_tokenizer)
    return measurement.report([artifact], [device], facts={artifact.digest: FileFacts(None, ("MatMul",), TABLE)})


def large_batches(batch: TokenBatch, states: np.ndarray) -> None:
    if len(states) > 16:
        states[:] = np.nan


def a_length_no_text_has(batch: TokenBatch, states: np.ndarray) -> None:
    states[batch.attention_mask.sum(axis=1) == 16] *= -1


def left_padding(batch: TokenBatch, states: np.ndarray) -> None:
    states[batch.attention_mask[:, 0] == 0] += 1


def masked_ids(batch: TokenBatch, states: np.ndarray) -> None:
    states[((batch.attention_mask == 0) & (batch.input_ids != 0)).any(axis=1)] += 1


def nan_at_masked_tokens(batch: TokenBatch, states: np.ndarray) -> None:
    states[(batch.attention_mask == 0) & (batch.input_ids != 0)] = np.nan


def every_token_but_the_first(batch: TokenBatch, states: np.ndarray) -> None:
    states[:, 1:] += 1


def one_id(batch: TokenBatch, states: np.ndarray) -> None:
    states[batch.input_ids == 7] = 0


def a_longer_state(batch: TokenBatch, states: np.ndarray) -> None:
    states[batch.input_ids == 7] *= 1.5


def a_longer_state_in_the_largest_batch(batch: TokenBatch, states: np.ndarray) -> None:
    if len(states) == SIZES[-1]:
        states *= 1.01


COUNT = iter(range(10**6))


def never_the_same(batch: TokenBatch, states: np.ndarray) -> None:
    states *= np.float32(1 + next(COUNT) % 2 * 1e-6)


FAULTS = {
    large_batches: "not-finite",
    a_length_no_text_has: "token-states",
    left_padding: "token-states",
    masked_ids: "token-states",
    nan_at_masked_tokens: "not-finite",
    every_token_but_the_first: "token-states",
    one_id: "token-states",
    a_longer_state: "vector-norm",
    a_longer_state_in_the_largest_batch: "vector-norm",
    never_the_same: "not-repeatable",
}


def test_a_right_file_passes_and_says_what_it_covered() -> None:
    report = report_with(lambda batch, states: None)
    assert judge(report, POLICY, CORPUS).passed
    found = coverage(report)
    assert found is not None
    assert (found["rows_run"], found["token_rows"], found["longest"]) == (12, 12, 16)
    assert found["sizes"] == [1, 2, 3, 17, 32, 64]
    assert coverage_line(report) == (
        "besides texts: 12 of 12 token rows run, inputs up to 16 tokens, 16 positions, batches of 1, 2, 3, 17, 32, 64, "
        "padding and masks: right, left, holes, masked-ids; 12 rows read, off by at most 0.600 of what rounding makes"
    )


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_what_no_text_shows_is_refused(fault: Spoil) -> None:
    verdict = judge(report_with(fault), POLICY, CORPUS)
    assert {bad.rule for bad in verdict.failures if bad.row is None} == {FAULTS[fault]}


def test_the_texts_alone_show_none_of_it() -> None:
    for fault in FAULTS:
        if fault is not never_the_same:
            rows = [bad for bad in judge(report_with(fault), POLICY, CORPUS).failures if bad.row is not None]
            assert rows == [], fault.__name__


def test_a_wrong_token_type_is_refused() -> None:
    def second_type(batch: TokenBatch, states: np.ndarray) -> None:
        states[batch.token_type_ids == 1] += 1

    facts = replace(TOKENS, token_types=2)
    reference = reference_of(CORPUS)
    sample = plan_sample(facts)
    assert TOKEN_TYPES in {batch.kind for batch in sample}
    swept = sweep_of(facts=facts)
    artifact = replace(artifact_of(), outputs=(LAST_HIDDEN_STATE,))
    device = RuntimeDevice(Spoiling(spoil=second_type), "cpu", True)
    report = Measurement(CORPUS, replace(reference, sweep=swept), 1, load_tokenizer).report(
        [artifact], [device], facts={artifact.digest: FileFacts(None, ("MatMul",), TABLE)}
    )
    assert {bad.rule for bad in judge(report, POLICY, CORPUS).failures} == {"token-states"}


CHANGES = {
    "no sweep": {"sweep": None},
    "a kind is missing": {"parts": lambda parts: tuple(part for part in parts if part.kind != LEFT)},
    "a shorter input": {"longest": 15},
    "fewer positions": {"positions": 15},
    "a batch size is missing": {"sizes": (1, 2, 3, 17, 32)},
    "fewer ids": {"ids": 11, "table": None},
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_not_covered_is_refused(change: str) -> None:
    report = report_with(lambda batch, states: None)
    (lane,) = report.lanes
    fields = dict(CHANGES[change])
    lane = lane.model_copy(update={"table": fields.pop("table", lane.table)})
    if fields.get("sweep", lane.sweep) is None:
        changed = lane.model_copy(update={"sweep": None})
    else:
        made = {key: value(getattr(lane.sweep, key)) if callable(value) else value for key, value in fields.items()}
        changed = lane.model_copy(update={"sweep": lane.sweep.model_copy(update=made)})
    verdict = judge(report.model_copy(update={"lanes": (changed,)}).sealed(), POLICY, CORPUS)
    assert {bad.rule for bad in verdict.failures} == {"coverage"}


@pytest.mark.parametrize("error", [None, 0.01])
def test_norms_of_states_are_judged_and_may_not_be_missing(error: float | None) -> None:
    report = report_with(lambda batch, states: None)
    (lane,) = report.lanes
    parts = tuple(part.model_copy(update={"norm_error": error}) for part in lane.sweep.parts[:1])
    changed = lane.model_copy(
        update={"sweep": lane.sweep.model_copy(update={"parts": (*parts, *lane.sweep.parts[1:])})}
    )
    verdict = judge(report.model_copy(update={"lanes": (changed,)}).sealed(), POLICY, CORPUS)
    assert {bad.rule for bad in verdict.failures} == {"vector-norm"}


@pytest.mark.parametrize(("error", "refused"), [(0.451, False), (0.89, False), (0.9, True), (None, True)])
def test_states_of_rounded_files_have_a_wider_limit_of_length_and_keep_it(error: float | None, refused: bool) -> None:
    """0.451 is that of a right int8 file of all-MiniLM-L6-v2."""
    report = report_with(lambda batch, states: None)
    (lane,) = report.lanes
    parts = tuple(part.model_copy(update={"norm_error": error}) for part in lane.sweep.parts[:1])
    sweep = lane.sweep.model_copy(update={"parts": (*parts, *lane.sweep.parts[1:])})
    rounded = lane.model_copy(update={"target": "onnx-int8", "sweep": sweep})
    changed = report.model_copy(update={"lanes": (rounded,), "targets": ("onnx-int8",)}).sealed()
    shipped = ThresholdPolicy.read(fixtures_folder() / "thresholds.toml")
    rules = {bad.rule for bad in judge(changed, shipped, CORPUS).failures}
    assert ("vector-norm" in rules) == refused


def test_a_vector_that_is_not_divided_by_its_norm_in_the_sweep_alone_is_refused() -> None:
    def longer(rows: np.ndarray, kept: object) -> None:
        rows *= 1.001

    assert {bad.rule for bad in judge(report_of(sweep_fault=longer), POLICY, CORPUS).failures} == {"vector-norm"}


def with_place(place: int) -> ParityReport:
    """Measure a file without states whose row of positions is spoilt at one place, in a world of inputs up to 512."""

    def spoil(batch: TokenBatch, vectors: np.ndarray) -> None:
        if batch.attention_mask.shape[1] > place:
            share = batch.attention_mask[:, place] / batch.attention_mask.sum(axis=1)
            vectors[:, 0] += 0.2 * share.astype(np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

    spec = replace(SPEC, inputs=replace(SPEC.inputs, max_tokens=512))
    reference = replace(reference_of(CORPUS), spec=spec, sweep=sweep_of(facts=replace(TOKENS, max_tokens=512)))
    artifact, device = replace(artifact_of(), spec=spec), RuntimeDevice(Spoiling(spoil=spoil), "cpu", True)
    measurement = Measurement(CORPUS, reference, 1, load_tokenizer)
    return measurement.report([artifact], [device], facts={artifact.digest: FileFacts(None, ("MatMul",), TABLE)})


@pytest.mark.parametrize("place", [70, 300, 511])
def test_a_spoilt_position_of_a_file_without_states_is_refused(place: int) -> None:
    report = with_place(place)
    found = [bad for bad in judge(report, POLICY, CORPUS).failures if bad.rule in ("token-states", "vector-norm")]
    assert found
    assert all("in the sweep's positions" in bad.message for bad in found)


def test_a_file_without_states_is_swept_position_by_position() -> None:
    report = with_place(600)
    assert judge(report, POLICY, CORPUS).passed
    assert [lane.sweep.positions for lane in report.lanes] == [512]
    assert POSITIONS in {part.kind for part in report.lanes[0].sweep.parts}


@pytest.mark.parametrize("longest", [8, 16, 300, 512, 8192])
def test_positions_are_all_shown_in_few_sequences(longest: int) -> None:
    batches = plan_positions(replace(VOCABULARY, max_tokens=longest))
    shown = np.concatenate([np.flatnonzero(batch.tokens.attention_mask[0]) for batch in batches])
    assert set(shown.tolist()) == set(range(longest))
    assert sum(batch.tokens.input_ids.size for batch in batches) <= max(2**14, 9 * longest)
    assert all((batch.tokens.input_ids != VOCABULARY.pad).all() for batch in batches)


def test_a_row_of_the_table_that_rounding_does_not_explain_is_refused() -> None:
    for worst in (1.01, None):
        report = report_of(table=TABLE.model_copy(update={"worst": worst, "token": 9}))
        (bad,) = judge(report, POLICY, CORPUS).failures
        assert bad.rule == "token-table"
        assert bad.lane == LANE
        assert "token 9" in bad.message


@pytest.mark.parametrize("table", [None, TABLE.model_copy(update={"rows": 0, "unread": "packed", "worst": None})])
def test_a_rounded_file_whose_table_nobody_read_is_refused(table: object) -> None:
    policy = ThresholdPolicy((), {"onnx-q4": ROUNDED})
    report = report_of(artifacts=[artifact_of("q4")], table=table)
    assert {bad.rule for bad in judge(report, policy, CORPUS).failures} == {"coverage"}
    report = report_of(artifacts=[artifact_of("q4")])
    assert judge(report, policy, CORPUS).passed


def test_without_the_checkpoint_the_sample_is_asked_for_alone() -> None:
    reference = replace(reference_of(CORPUS), kind="file", sweep=sweep_of(rows=False))
    artifact = artifact_of()
    device = RuntimeDevice(FakeRuntime(), "cpu", True)
    report = Measurement(CORPUS, reference, 1, load_tokenizer).report(
        [artifact], [device], facts={artifact.digest: FileFacts(operators=("MatMul",))}
    )
    assert judge(report, POLICY, CORPUS).passed
    assert "rows" not in {part.kind for part in report.lanes[0].sweep.parts}


def test_every_id_is_run_once_for_each_file_and_the_sample_in_every_lane() -> None:
    artifact, devices = artifact_of(), [RuntimeDevice(FakeRuntime(name=name), "cpu", True) for name in ("a", "b")]
    reference = replace(reference_of(CORPUS), sweep=SWEEP)
    report = Measurement(CORPUS, reference, 1, load_tokenizer).report([artifact], devices)
    assert [any(part.kind == "rows" for part in lane.sweep.parts) for lane in report.lanes] == [True, False]


def test_a_plan_covers_every_id_length_and_position() -> None:
    batches = plan_rows(VOCABULARY)
    ids = np.concatenate([batch.tokens.input_ids[batch.judged] for batch in batches])
    assert set(ids.tolist()) == set(range(VOCABULARY.rows))
    lengths = {int(n) for batch in batches for n in batch.tokens.attention_mask.sum(axis=1)}
    assert lengths >= set(range(3, FEWEST_LENGTHS + 3))
    sample = plan_sample(VOCABULARY)
    assert {len(batch.judged) for batch in sample} >= set(SIZES)
    assert max(batch.tokens.input_ids.shape[1] for batch in sample) == VOCABULARY.max_tokens


def test_every_token_type_is_in_the_sample() -> None:
    batch = next(one for one in plan_sample(replace(VOCABULARY, token_types=16)) if one.kind == TOKEN_TYPES)
    assert set(batch.tokens.token_type_ids[batch.judged].tolist()) == set(range(16))


def test_a_vocabulary_that_is_too_large_is_swept_in_part() -> None:
    facts = replace(VOCABULARY, rows=MOST_ROWS * 4)
    ids = np.unique(np.concatenate([batch.tokens.input_ids[batch.judged] for batch in plan_rows(facts)]))
    assert MOST_ROWS // 2 <= len(ids) <= MOST_ROWS // 2 + 2
    assert ids[0] == 0
    assert ids[-1] == facts.rows - 1


@given(
    rows=st.integers(1, 3000),
    types=st.integers(0, 4),
    longest=st.integers(1, 600),
    special=st.sampled_from([((), ()), ((1,), (2,)), ((), (2,)), ((1,), (2, 2))]),
)
def test_any_plan_fits_its_model(rows: int, types: int, longest: int, special: tuple) -> None:
    facts = TokenFacts(rows, types, *special, 0, longest)
    for batch in (*plan_sample(facts), *plan_rows(replace(facts, rows=min(rows, 200)))):
        tokens = batch.tokens
        assert tokens.input_ids.shape == tokens.attention_mask.shape == tokens.token_type_ids.shape
        assert tokens.input_ids.shape[1] <= longest
        assert tokens.attention_mask.any(axis=1).all()
        assert (tokens.attention_mask[batch.judged] == 1).all()
        assert tokens.token_type_ids.max() < max(types, 1)
        if batch.kind != MASKED_IDS:
            assert tokens.input_ids.max() < max(rows, 3)
