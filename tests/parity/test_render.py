import json

import pytest
from fakes import (
    POLICY,
    artifact_of,
    crashing,
    mean_pooled,
    on_text,
    report_of,
    setting,
    small_corpus,
    swapped,
)
from rich.console import Console

from bge_export.corpus import Corpus, Text
from bge_export.errors import DeviceUnavailable
from bge_export.parity.gate import judge
from bge_export.parity.render import as_json, render
from bge_export.parity.verdict import failure

CORPUS = small_corpus()


def shown(report, corpus=CORPUS, width=220):
    console = Console(width=width, record=True, force_terminal=False, highlight=False)
    with console.capture() as capture:
        console.print(render(report, judge(report, POLICY, corpus)))
    return capture.get()


def drifted(amount):
    def change(row):
        row[0] += amount

    return change


def test_a_good_report():
    text = shown(report_of(artifacts=[artifact_of(), artifact_of("fp16", pooled=True)]))
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


def test_at_most_ten_refusals_of_a_rule_are_shown():
    text = shown(report_of(mean_pooled))
    assert text.count(": cosine:") == 10
    assert "… and 10 more" in text
    assert "wrong-pooling" in text


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
