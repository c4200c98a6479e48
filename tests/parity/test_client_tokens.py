"""What a client makes of the texts by itself: token differences apart from numeric ones, and a policy for both."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from fakes import (
    POLICY,
    SPEC,
    TABLE,
    FakeRuntime,
    FakeSession,
    FakeTokenizer,
    artifact_of,
    load_tokenizer,
    reference_of,
    truth,
)

from bge_export.errors import PolicyError
from bge_export.parity.gate.judge import judge
from bge_export.parity.gate.policy import ThresholdPolicy
from bge_export.parity.measure.client_tokens import kinds_of
from bge_export.parity.measure.measurement import FileFacts, Measurement, RuntimeDevice
from bge_export.parity.report import ParityReport
from bge_export.parity.show.render import as_json
from bge_export.texts.corpus import Corpus, Text

CORPUS = Corpus("some.txt", tuple(Text(text, text, "") for text in ("plain", "ΟΔΟΣ", "a plain text", "x" * 40)))


@dataclass
class ClientSession(FakeSession):
    ids: Callable[[tuple[int, ...]], tuple[int, ...]] = tuple
    row: Callable[[np.ndarray], np.ndarray] = np.asarray

    def tokenize(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        return [self.ids(ids) for ids in FakeTokenizer(SPEC.inputs.max_tokens).encode(texts)]

    def embed_text(self, text: str) -> np.ndarray:
        return self.row(truth(self.tokenize([text])[0]))


@dataclass
class ClientRuntime(FakeRuntime):
    own: dict[str, Callable] | None = None

    def open(self, artifact, device, threads):
        return ClientSession(self, artifact, **(self.own or {}))


def report_of(**own: Callable) -> ParityReport:
    device = RuntimeDevice(ClientRuntime(name="client", own=own), "node@4", True)
    return measured(device)


def measured(device: RuntimeDevice) -> ParityReport:
    facts = {artifact_of().digest: FileFacts(operators=("MatMul",), table=TABLE)}
    measurement = Measurement(CORPUS, reference_of(CORPUS), 1, load_tokenizer)
    return measurement.report([artifact_of()], [device], facts=facts)


def accepting(*kinds: str) -> ThresholdPolicy:
    return ThresholdPolicy((), POLICY.tables, {"client:*@4": frozenset(kinds)})


def rules(report: ParityReport, policy: ThresholdPolicy) -> set[tuple[str, str | None]]:
    return {(bad.rule, bad.row) for bad in judge(report, policy, CORPUS).failures}


def sigma(ids: tuple[int, ...]) -> tuple[int, ...]:
    """Make what JavaScript makes of a capital sigma at a word's end."""
    return tuple(one + 1 if one == ord("Σ") + 10 else one for one in ids)


def test_a_client_that_does_as_the_checkpoint_passes() -> None:
    report = report_of()
    assert all(row.client.tokens_equal and row.client.cosine > 0.999999 for row in report.lanes[0].rows)
    assert judge(report, accepting(), CORPUS).passed


def test_other_tokens_are_refused_unless_the_policy_accepts_that_kind_of_text() -> None:
    report = report_of(ids=sigma)
    assert rules(report, accepting()) == {("client-tokens", "ΟΔΟΣ")}
    assert rules(report, accepting("over-long", "marks")) == {("client-tokens", "ΟΔΟΣ")}
    assert rules(report, accepting("final-sigma")) == set()
    assert rules(report, POLICY) == {("client-tokens", "ΟΔΟΣ")}


def test_a_difference_that_no_kind_explains_is_refused_whatever_is_accepted() -> None:
    shifted = report_of(ids=lambda ids: ids if len(ids) < SPEC.inputs.max_tokens else (*ids[:-1], 9))
    assert rules(shifted, accepting("final-sigma")) == {("client-tokens", CORPUS.texts[3].id)}
    assert rules(shifted, accepting("over-long")) == set()
    every = report_of(ids=lambda ids: (*ids, 9))
    assert ("client-tokens", "plain") in rules(every, accepting("over-long", "final-sigma", "marks", "controls"))


def test_the_vector_of_other_tokens_is_no_numeric_difference() -> None:
    (row,) = (row for row in report_of(ids=sigma).lanes[0].rows if row.id == "ΟΔΟΣ")
    assert row.tokens_equal
    assert row.cosine > 0.999999
    assert not row.client.tokens_equal
    assert row.client.cosine < 0.9


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda row: np.roll(row, 1), "client-cosine"),
        (lambda row: row * np.float32(2), "client-norm"),
        (lambda row: row * np.float32(np.nan), "not-finite"),
        (lambda row: row * np.float32(0), "client-cosine"),
    ],
)
def test_a_client_that_pools_otherwise_is_refused(change: Callable, rule: str) -> None:
    refused = rules(report_of(row=change), accepting("over-long", "final-sigma"))
    assert {(rule, text.id) for text in CORPUS.texts} <= refused


def test_what_the_artifact_loses_itself_is_not_blamed_on_the_client() -> None:
    """Rounded weights are as far off through the client's own tokens: one reason, and the row is refused for it."""
    report = report_of()
    (lane,) = report.lanes
    row = lane.rows[0]

    def refused(cosine: float) -> set[str]:
        client = row.client.model_copy(update={"cosine": cosine})
        rows = (row.model_copy(update={"cosine": 0.97, "client": client}), *lane.rows[1:])
        changed = report.model_copy(update={"lanes": (lane.model_copy(update={"rows": rows}),)}).sealed()
        return {rule for rule, text in rules(changed, accepting("over-long", "final-sigma")) if text == row.id}

    assert refused(0.97) == refused(0.9700000001) == {"cosine"}
    assert refused(0.9) == {"cosine", "client-cosine"}


def test_a_lane_of_the_policy_whose_own_tokens_were_not_looked_at_is_refused() -> None:
    device = RuntimeDevice(FakeRuntime(name="client"), "node@4", True)
    report = measured(device)
    assert judge(report, POLICY, CORPUS).passed
    assert ("client-missing", "plain") in rules(report, accepting())


def test_the_report_names_the_texts_apart_from_the_figures() -> None:
    report = report_of(ids=sigma)
    (lane,) = as_json(report, judge(report, accepting("final-sigma"), CORPUS))["lanes"]
    assert lane["client_token_differences"] == ["ΟΔΟΣ"]
    assert lane["smallest_cosine"] > 0.999999


@pytest.mark.parametrize(
    ("text", "tokens", "kinds"),
    [
        ("plain", 5, set()),
        ("café naïve", 5, set()),
        ("line\nbreak\ttab", 5, set()),
        ("anything", 512, {"over-long"}),
        ("ΟΔΟΣ", 5, {"final-sigma"}),
        ("𠀀 a", 5, {"astral-cjk"}),
        ("नमस्ते", 5, {"marks"}),
        ("カフェ ガ", 5, {"marks"}),
        ("a\u200bb", 5, {"controls"}),
        ("a\ufffdb", 5, {"controls"}),
        ("x" * 101, 5, {"long-word"}),
    ],
)
def test_kinds_of_text(text: str, tokens: int, kinds: set[str]) -> None:
    assert set(kinds_of(text, tokens, 512)) == kinds


def test_an_unknown_kind_in_the_file_of_limits_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "limits.toml"
    limits = (
        '["onnx-fp32"]\nmin_cosine = 0.9\nmax_abs = 0.1\nmax_norm_error = 0.1\nmin_batch_cosine = 0.9\n'
        "min_token_cosine = 0.5\nmin_sequence_cosine = 0.5\n"
    )
    path.write_text(f'require = []\n{limits}[token-differences]\n"transformersjs:*" = ["everything"]\n', "utf-8")
    with pytest.raises(PolicyError, match=r"'everything' is not a known kind of text: over-long, final-sigma"):
        ThresholdPolicy.read(path)
    path.write_text(f'require = []\n{limits}[token-differences]\n"transformersjs:*@2.5" = ["marks"]\n', "utf-8")
    policy = ThresholdPolicy.read(path)
    assert policy.accepted_differences("transformersjs", "node@2.5") == {"marks"}
    assert policy.accepted_differences("transformersjs", "node@3") is None
