import json
import re

import pytest
from fakes import (
    POLICY,
    ROUNDED,
    artifact_of,
    crashing,
    mean_pooled,
    on_text,
    report_of,
    setting,
    small_corpus,
    swapped,
    turned,
)
from rich.console import Console

from bge_export.errors import DeviceUnavailable
from bge_export.parity.gate.judge import judge
from bge_export.parity.gate.policy import ThresholdPolicy
from bge_export.parity.gate.verdict import RULES, failure
from bge_export.parity.show.reasons import LINES, reason_lines
from bge_export.parity.show.render import as_json, render
from bge_export.texts.corpus import Corpus, Text

CORPUS = small_corpus()


def shown(report, corpus=CORPUS, width=220, policy=POLICY):
    return printed(render(report, judge(report, policy, corpus)), width)


def printed(what, width=220):
    console = Console(width=width, record=True, force_terminal=False, highlight=False)
    with console.capture() as capture:
        console.print(what)
    return capture.get()


def drifted(amount):
    def change(row):
        row[0] += amount

    return change


def test_a_good_report():
    text = shown(report_of(artifacts=[artifact_of(), artifact_of("fp16", both=True)]))
    for word in ("onnx-fp32", "onnx-fp16", "sentence_embedding", "fake", "cpu", "20", "within limits", "PASSED"):
        assert word in text
    assert "3 of 3 lanes" in text
    assert "REFUSED" not in text


def test_a_bad_row_is_named_with_figures_and_advice():
    text = shown(report_of(on_text(CORPUS.texts[4].text, drifted(0.01))))
    for word in ("cosine", "'t4'", "0.9999", "at least 0.999999", "a limit of", "would pass", "REFUSED"):
        assert word in text
    assert "Export again" in text
    assert "within limits" not in text


def test_a_cosine_just_below_one_is_not_shown_as_one():
    report = report_of(on_text(CORPUS.texts[4].text, drifted(0.0002)))
    row = report.lanes[0].rows[4]
    assert 0.99999 < row.cosine < 1
    assert str(row.cosine)[:9] in shown(report)


def test_of_many_refusals_the_worst_of_each_rule_is_shown_with_their_number():
    report = report_of(mean_pooled)
    text = shown(report)
    worst = min(report.lanes[0].rows, key=lambda row: row.cosine)
    (line,) = [line for line in text.splitlines() if ": cosine:" in line]
    assert f"'{worst.id}'" in line
    assert "… and 19 more there" in line
    assert "wrong-pooling" in text


def test_a_figure_that_does_not_exist_is_worse_than_any():
    figures = [0.5, -0.7, None, 0.2] * 10
    failures = [failure("cosine", "x", "y", lane="a", row=f"t{n}", figure=one) for n, one in enumerate(figures)]
    reason, _ = reason_lines(failures)
    assert "'t2'" in reason.plain
    reason, _ = reason_lines([one for one in failures if one.figure is not None])
    assert "'t1'" in reason.plain


def test_the_largest_difference_is_the_worst():
    failures = [failure("max-abs", "x", "y", lane="a", row=str(n), figure=n / 10) for n in (2, 9, 5)] * 10
    (reason, advice) = reason_lines(failures)
    assert "'9'" in reason.plain
    assert "… and 29 more there" in reason.plain
    assert advice.plain.strip() == failures[0].advice


@pytest.mark.parametrize("lanes", [1, 7, 18, 19, 20, 60])
@pytest.mark.parametrize("each", [1, 2, 9])
@pytest.mark.parametrize("kinds", [("cosine",), ("cosine", "token-ids", "batch-cosine"), tuple(RULES)])
def test_reasons_take_twenty_lines_at_most_and_none_is_lost(lanes, each, kinds):
    """Each reason is shown or counted: what the lines show and what they count adds up to all there is."""
    failures = [
        failure(rule, f"got {n}", "more", lane=f"onnx-fp32@lane-{number} out", row=f"t{n}")
        for rule in kinds
        for number in range(lanes)
        for n in range(each)
    ]
    lines = [line.plain for line in reason_lines(failures)]
    assert len(lines) <= LINES
    reasons = [line for line in lines if line.startswith("refused ")]
    counted = [int(count) for line in lines for count in re.findall(r"… and (\d+) more", line)]
    assert len(reasons) + sum(counted) == len(failures)
    assert [line.strip() for line in lines if line.strip() in {one.advice for one in failures}]
    if len(failures) + len({one.advice for one in failures}) <= LINES:
        assert len(reasons) == len(failures)


@pytest.mark.parametrize("lanes", [1, 5, 30])
@pytest.mark.parametrize("rule", ["cosine", "client-cosine"])
def test_a_stress_text_never_hides_that_everyday_texts_are_refused(rule, lanes):
    """The stress text is the farthest off, and comes first."""
    failures = [
        failure(rule, "x", "y", lane=f"onnx-int8@p{n} o", row=f"{kind}{m}", figure=figure, kind=kind)
        for n in range(lanes)
        for kind, figure in (("stress", 0.1), ("everyday", 0.9))
        for m in range(12)
    ]
    lines = [line.plain for line in reason_lines(failures)]
    reasons = [line for line in lines if line.startswith("refused ")]
    assert "'everyday0'" in reasons[0]
    assert len([line for line in reasons if "'everyday" in line]) == min(lanes, len(reasons))
    counted = [int(count) for line in lines for count in re.findall(r"… and (\d+) more", line)]
    assert len(reasons) + sum(counted) == len(failures)


def test_an_id_without_end_is_cut_in_what_people_read():
    name = "x" * 100_000
    long = Corpus("long.jsonl", (Text(name, "a text", ""), Text(f"{name}y", "another", ""), *CORPUS.texts[2:]))
    report = report_of(swapped("a text", "another"), long)
    verdict = judge(report, POLICY, long)
    assert {bad.row for bad in verdict.failures} == {name, f"{name}y"}
    assert {"swapped-rows", "cosine"} <= {bad.rule for bad in verdict.failures}
    assert max(len(bad.message) for bad in verdict.failures) < 500


def test_no_refusals_take_no_lines():
    assert reason_lines(()) == []


STRESSED = Corpus("kinds.jsonl", (*CORPUS.texts, Text("mark", "!!!", "", "stress"), Text("dot", ".", "", "stress")))
ROUNDED_POLICY = ThresholdPolicy((), {"onnx-int8": ROUNDED, "onnx-fp32": ROUNDED})


def lane_of_both(everyday, stress):
    """Return the report of a lane in which one text of each kind has a cosine."""

    def fault(rows, ids):
        on_text(CORPUS.texts[4].text, turned(everyday))(rows, ids)
        on_text("!!!", turned(stress))(rows, ids)

    return report_of(fault, STRESSED, artifacts=[artifact_of("int8")])


def test_both_kinds_of_text_have_their_smallest_cosine():
    text = shown(lane_of_both(0.9991, 0.9911), STRESSED, policy=ROUNDED_POLICY)
    heads, more, row = text.splitlines()[1:4]
    assert re.search(r"smallest +of text +of stress +of text", f"{heads} {more}") or "of stress" in heads
    assert re.search(r"onnx-int8 .*0\.999[01]\d* +t4 +0\.991\d* +mark ", row) or re.search(
        r"onnx-int8 .*0\.999\d* +t4 +0\.99\d* +mark ", row
    )
    assert "PASSED" in text


def test_texts_of_one_kind_have_one_column():
    assert "stress" not in shown(report_of())
    only = Corpus("s", (Text("a", "x", "", "stress"), Text("b", "yy", "", "stress")))
    heads, _, row = shown(report_of(corpus=only), only).splitlines()[1:4]
    assert "of stress" in heads
    assert re.search(r"cpu +1|cpu +0\.9", row)


def test_json_has_the_figures_of_both_kinds_and_of_all():
    report = lane_of_both(0.9991, 0.9911)
    (lane,) = as_json(report, judge(report, ROUNDED_POLICY, STRESSED))["lanes"]
    rows = {row.id: row.cosine for row in report.lanes[0].rows}
    everyday = [cosine for name, cosine in rows.items() if name.startswith("t")]
    assert (lane["smallest_cosine"], lane["smallest_cosine_text"]) == (rows["mark"], "mark")
    assert (lane["smallest_stress_cosine"], lane["smallest_stress_cosine_text"]) == (rows["mark"], "mark")
    assert (lane["smallest_everyday_cosine"], lane["smallest_everyday_cosine_text"]) == (rows["t4"], "t4")
    assert lane["mean_everyday_cosine"] == pytest.approx(sum(everyday) / len(everyday), abs=1e-15)
    assert (lane["texts"], lane["everyday_texts"]) == (22, 20)


def test_json_of_a_kind_that_no_text_has_and_of_a_text_without_a_cosine():
    report = report_of(on_text(CORPUS.texts[7].text, setting(0)))
    (lane,) = as_json(report, judge(report, POLICY, CORPUS))["lanes"]
    assert lane["smallest_stress_cosine"] is lane["smallest_stress_cosine_text"] is None
    assert lane["smallest_everyday_cosine"] is lane["mean_everyday_cosine"] is None
    assert lane["smallest_everyday_cosine_text"] == "t7"


def test_a_lane_that_did_not_run_says_why():
    assert "no CUDA here" in shown(report_of(opening=DeviceUnavailable("no CUDA here\nsecond line")))
    unasked = report_of(opening=DeviceUnavailable("no CUDA here"), requested=False)
    assert "not asked for: fake:cpu (why: --json)" in shown(unasked)
    assert as_json(unasked, judge(unasked, POLICY, CORPUS))["lanes"][0]["unavailable"] == "no CUDA here"
    assert "Add node" in shown(report_of(crashing))


def test_the_worst_row_is_one_without_a_cosine():
    report = report_of(on_text(CORPUS.texts[7].text, setting(0)))
    (lane,) = as_json(report, judge(report, POLICY, CORPUS))["lanes"]
    assert lane["smallest_cosine"] is None
    assert lane["smallest_cosine_text"] == "t7"
    assert lane["smallest_batch_cosine"] is None


NASTY = "[bold red]x[/] [link=http://a]\n\x1b[31m\u202e\r{0}\\[b]"


@pytest.mark.parametrize("where", ["id", "text"])
def test_texts_of_others_are_shown_and_not_obeyed(where):
    text = Text(NASTY if where == "id" else "t0", NASTY, "")
    corpus = Corpus("nasty [red].jsonl", (text, Text("t1", "plain", "")))
    output = shown(report_of(on_text(NASTY, setting(0)), corpus), corpus, width=2000)
    assert "[bold red]x[/] [link=http://a]\\n\\x1b[31m\\u202e\\r{0}\\[b]" in output
    assert "nasty [red].jsonl" in output
    assert not set(output) & {"\x1b", "\u202e", "\r"}


def test_markup_in_a_closing_tag_alone_does_not_crash():
    corpus = Corpus("a", (Text("[/red]", "[/]", ""),))
    assert "[/red]" in shown(report_of(on_text("[/]", setting(0)), corpus), corpus)


@pytest.mark.parametrize("fault", [mean_pooled, crashing, swapped(CORPUS.texts[0].text, CORPUS.texts[1].text)])
def test_json_holds_every_failure_and_is_json(fault):
    report = report_of(fault)
    verdict = judge(report, POLICY, CORPUS)
    value = json.loads(json.dumps(as_json(report, verdict), allow_nan=False))
    assert value["passed"] is False
    assert value["exit_status"] == 1
    assert len(value["failures"]) == len(verdict.failures)
    assert all(one["rule"] and one["message"] and one["advice"] for one in value["failures"])
    assert value["lanes"][0]["state"].startswith("refused")
    assert value["report_digest"] == report.digest


def test_json_of_a_good_report():
    report = report_of()
    value = as_json(report, judge(report, POLICY, CORPUS))
    assert (value["passed"], value["exit_status"], value["failures"]) == (True, 0, [])
    assert value["lanes"][0]["state"] == "within limits"


def test_a_report_without_lanes():
    assert "REFUSED" in shown(report_of(artifacts=()))


@pytest.mark.parametrize("rule", ["cosine", "max-abs"])
def test_where_rounded_weights_are_far_off_the_advice_says_how_to_get_closer(rule: str) -> None:
    def advice(lane: str, rule: str = rule) -> str:
        return failure(rule, "0.9", "0.99", lane=f"{lane}@onnxruntime:cpu last_hidden_state").advice

    assert "--min-cosine" in advice("onnx-int8")
    assert "--min-cosine" in advice("openvino-int8")
    assert "--min-cosine" not in advice("onnx-fp16")
    assert "--min-cosine" not in advice("onnx-int8", "swapped-rows")
