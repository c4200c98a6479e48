"""A reranker is refused for one wrong logit or one changed order, by the rule's own name."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from score_world import LANE, LIMITS, PAIRS, POLICY, on_pair, reference_of, score_report

from bge_export.errors import PolicyError, ReportError, TextsError
from bge_export.oracle.vectors import ReferenceVectors
from bge_export.parity.gate.acceptance import as_toml
from bge_export.parity.gate.judge import judge
from bge_export.parity.gate.policy import ThresholdPolicy
from bge_export.parity.gate.verdict import Failure
from bge_export.parity.orders import orders, spread, worst_scores
from bge_export.parity.report import ParityReport, read_report, write_report
from bge_export.parity.show.html import render_html
from bge_export.parity.show.render import as_json
from bge_export.texts.corpus import Corpus, Text, builtin_corpus, load_corpus


def refusals(report: ParityReport, policy: ThresholdPolicy = POLICY, corpus: Corpus = PAIRS) -> list[Failure]:
    return list(judge(report, policy, corpus).failures)


def rules(report: ParityReport, policy: ThresholdPolicy = POLICY) -> set[str]:
    return {failure.rule for failure in refusals(report, policy)}


def with_lane(report: ParityReport, **changes: object) -> ParityReport:
    return report.model_copy(update={"lanes": (report.lanes[0].model_copy(update=changes),)}).sealed()


def with_row(report: ParityReport, **changes: object) -> ParityReport:
    first, *others = report.lanes[0].scores
    return with_lane(report, scores=(first.model_copy(update=changes), *others))


@pytest.fixture(scope="module")
def right() -> ParityReport:
    return score_report()


def test_the_checkpoints_own_logits_pass(right: ParityReport) -> None:
    assert refusals(right) == []
    assert {order.tau for order in orders(right.lanes[0].scores)} == {1.0}
    assert len(orders(right.lanes[0].scores)) == 3


def test_one_wrong_logit_is_refused_with_its_pair() -> None:
    (bad,) = refusals(score_report(on_pair("q2-3", lambda logit: logit + 0.01)))
    assert (bad.rule, bad.row, bad.lane) == ("logit", "q2-3", LANE)
    assert "off the checkpoint's" in bad.got


def test_a_difference_within_the_absolute_limit_is_refused_if_it_is_much_of_the_spread() -> None:
    report = score_report(on_pair("q2-3", lambda logit: logit + 0.01))
    wide = replace(POLICY, scores={"onnx-fp32": LIMITS.model_copy(update={"max_error": 1.0})})
    assert 8 < spread(report.lanes[0].scores) < 16
    (bad,) = refusals(report, wide)
    assert (bad.rule, bad.row) == ("logit", "q2-3")
    assert "0.0001 of the spread of all logits" in bad.needed


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_logit_that_is_not_finite_is_refused(value: float) -> None:
    found = refusals(score_report(on_pair("q2-3", lambda _: value)))
    assert {bad.rule for bad in found} == {"not-finite", "order", "top"}
    assert all(bad.figure is None for bad in found)


def test_another_order_is_refused_although_every_logit_is_within_its_limit() -> None:
    report = score_report(lambda logits, _: np.negative(logits, out=logits))
    loose = LIMITS.model_copy(update={"max_error": 100.0, "max_share": 0.999999, "max_sweep_share": 10.0})
    found = refusals(report, replace(POLICY, scores={"onnx-fp32": loose}))
    assert {"order", "top"} <= {bad.rule for bad in found}
    assert {bad.row for bad in found if bad.rule == "order"} == {"q1-1", "q2-1", "q3-1"}


def test_equal_logits_are_no_order() -> None:
    report = score_report(lambda logits, _: logits.fill(1.0))
    assert {order.tau for order in orders(report.lanes[0].scores)} == {0.0}
    assert "order" in rules(report)


def test_a_logit_that_its_batch_changes_is_refused_as_such() -> None:
    change = on_pair("q2-3", lambda logit: logit + 0.01)
    report = score_report(lambda logits, ids: change(logits, ids) if len(ids) > 1 else None)
    assert {bad.rule for bad in refusals(report)} == {"batch-logit"}
    assert {bad.row for bad in refusals(report)} == {"q2-3"}


def test_a_wrong_logit_of_token_ids_that_no_pair_has_is_refused() -> None:
    report = score_report(sweep_fault=lambda logits, _: np.add(logits, 0.01, out=logits))
    assert {bad.rule for bad in refusals(report)} == {"sweep-logit"}


def test_a_sweep_that_is_not_finite_is_refused() -> None:
    assert "not-finite" in rules(score_report(sweep_fault=lambda logits, _: logits.fill(np.nan)))


def test_a_checkpoint_that_orders_nothing_proves_nothing() -> None:
    alone = Corpus("alone.jsonl", tuple(replace(one, query=one.id) for one in PAIRS.texts))
    found = refusals(score_report(corpus=alone), corpus=alone)
    assert [bad.rule for bad in found] == ["no-order"]


def test_a_row_that_is_missing_or_moved_to_another_query_is_refused(right: ParityReport) -> None:
    scores = right.lanes[0].scores
    assert "missing-row" in rules(with_lane(right, scores=scores[1:]))
    assert "inconsistent" in rules(with_row(right, query="q3-1"))
    assert "token-ids" in rules(with_row(right, tokens_equal=False))
    assert "inconsistent" in rules(with_row(right, batch={}))
    assert "inconsistent" in rules(with_lane(right, scores=()))


def test_other_token_types_are_other_tokens() -> None:
    reference = reference_of()
    types = tuple(tuple(0 for _ in row) for row in reference.token_types or ())
    assert types != reference.token_types

    from score_world import SPEC, PairTokenizer

    from bge_export.parity.measure.scoring import score_rows

    rows = PairTokenizer(SPEC.inputs.max_tokens).encode_pairs([(one.query or "", one.text) for one in PAIRS.texts])
    scores = (reference.truth[:, 0], [{} for _ in rows])
    kinds = ["everyday"] * len(rows)
    equal = score_rows(PAIRS, kinds, rows, scores, reference)
    other = score_rows(PAIRS, kinds, rows, scores, replace(reference, token_types=types))
    assert {row.tokens_equal for row in equal} == {True}
    assert {row.tokens_equal for row in other} == {False}


def test_a_file_of_limits_without_scores_accepts_no_reranker(right: ParityReport) -> None:
    (bad,) = refusals(right, ThresholdPolicy((), {}))
    assert bad.rule == "unknown-target"
    assert bad.needed == 'a table [score."onnx-fp32"]'


def test_limits_of_scores_are_read_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "limits.toml"
    path.write_text(as_toml(POLICY, "what was measured"), "utf-8")
    assert ThresholdPolicy.read(path).scores == POLICY.scores


@pytest.mark.parametrize("line", ["min_tau = 0.0", "max_share = 2.0", "min_cosine = 0.9"])
def test_a_limit_that_limits_nothing_or_is_of_embeddings_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "limits.toml"
    text = as_toml(POLICY, "x")
    name = line.partition(" ")[0]
    kept = [one for one in text.splitlines() if not one.startswith(f"{name} ")]
    path.write_text("\n".join([*kept[:3], line, *kept[3:]]), "utf-8")
    with pytest.raises(PolicyError, match="onnx-fp32"):
        ThresholdPolicy.read(path)


def test_a_report_is_read_as_it_is_written(right: ParityReport, tmp_path: Path) -> None:
    write_report(right, tmp_path / "parity.json")
    again = read_report(tmp_path / "parity.json")
    assert again == right
    assert again.digest == again.computed_digest


def test_reference_logits_are_read_as_they_are_written(tmp_path: Path) -> None:
    reference = reference_of()
    reference.write(tmp_path / "reference.npz")
    again = ReferenceVectors.read(tmp_path / "reference.npz")
    assert again.spec == reference.spec
    assert again.token_types == reference.token_types
    assert again.truth.tolist() == reference.truth.tolist()


def test_scores_are_not_compared_with_vectors() -> None:
    from fakes import reference_of as vectors_of
    from score_world import load_pairs

    from bge_export.parity.measure.measurement import Measurement

    with pytest.raises(ReportError, match="other texts"):
        Measurement(PAIRS, replace(vectors_of(PAIRS), ids=()), 1, load_tokenizer=load_pairs)


def test_the_machine_readable_result_and_the_page_hold_the_worst_figures() -> None:
    report = score_report(on_pair("q2-3", lambda logit: logit + 0.25))
    verdict = judge(report, POLICY, PAIRS)
    (lane,) = as_json(report, verdict)["lanes"]
    worst = worst_scores(report.lanes[0].scores)
    assert worst is not None
    assert lane["largest_difference_pair"] == worst.row.id == "q2-3"
    assert lane["largest_difference"] == pytest.approx(0.25, abs=1e-5)
    assert lane["queries"] == 3

    page = render_html(report, verdict, POLICY)
    assert "q2-3" in page
    assert "smallest tau" in page
    json.dumps(as_json(report, verdict), allow_nan=False)


def test_the_packages_own_pairs_have_candidates_that_reach_every_case() -> None:
    pairs = builtin_corpus(pairs=True).texts
    queries = {one.query for one in pairs}
    tags = {one.tag for one in pairs}
    assert 120 <= len(pairs) <= 140
    assert {"short", "long", "over-long", "empty", "swapped-sides", "chinese", "arabic"} <= tags
    assert all(one.query is not None for one in pairs)
    assert "" in queries
    several = [query for query in queries if 4 <= sum(one.query == query for one in pairs) <= 8]
    assert len(several) >= 15


def test_a_file_of_pairs_needs_a_query_in_each_line(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"text": "alone"}\n', "utf-8")
    with pytest.raises(TextsError, match='line 1: no pair, "query" is not a string'):
        load_corpus(path, pairs=True)

    path = tmp_path / "texts.txt"
    path.write_text("alone\n", "utf-8")
    with pytest.raises(TextsError, match=r"only \.jsonl files hold"):
        load_corpus(path, pairs=True)


def test_a_query_beside_a_text_alone_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "alone", "query": "a key of their own"}\n', "utf-8")
    assert load_corpus(path) == Corpus("texts.jsonl", (Text("1", "alone", ""),))


def test_candidates_that_the_checkpoint_hardly_separates_may_change_places(right: ParityReport) -> None:
    """The limit says how far apart they must be; of those, a change of order is refused."""
    scores = right.lanes[0].scores
    one, other = sorted((row for row in scores if row.query == "q1-1"), key=lambda row: row.reference)[:2]
    swapped = {one.id: other.reference, other.id: one.reference}
    changed = with_lane(
        right, scores=tuple(row.model_copy(update={"logit": swapped.get(row.id, row.logit)}) for row in scores)
    )

    apart = (other.reference - one.reference) / spread(scores)
    assert {order.query: order.tau for order in orders(changed.lanes[0].scores, apart * 0.9)}["q1-1"] == 0.8
    assert {order.query: order.tau for order in orders(changed.lanes[0].scores, apart * 1.1)}["q1-1"] == 1.0
