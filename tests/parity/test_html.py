import json
import re

import numpy as np
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
    turned,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from pages import Page, dumped

from bge_export.errors import DeviceUnavailable
from bge_export.parity.figures import cosine_figure, difference_figure
from bge_export.parity.gate.judge import judge
from bge_export.parity.gate.policy import ThresholdPolicy
from bge_export.parity.merge import merge
from bge_export.parity.report import ParityReport
from bge_export.parity.show import plots
from bge_export.parity.show.html import render_html
from bge_export.parity.show.render import as_json
from bge_export.texts.corpus import Corpus, Text

CORPUS = small_corpus()
NASTY = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload="alert(1)">',
    "{{ 7 * 7 }}{% raw %}",
    "<!-- a comment",
    "a\nb\r\x00\x1b[31m\u202eright to left\u2028",
    "&lt;b&gt;",
)


def page(report: ParityReport, corpus: Corpus = CORPUS, policy=POLICY) -> str:
    return render_html(report, judge(report, policy, corpus), policy)


def lanes_of(report: ParityReport, *, corpus: Corpus = CORPUS, policy=POLICY) -> list[list[str]]:
    """Return the rows that the table of lanes must have."""
    facts = as_json(report, judge(report, policy, corpus))["lanes"]
    found = []
    for lane in sorted(facts, key=lambda lane: lane["unavailable"] is not None):
        run = [lane["run"][:6]] if len(report.runs) > 1 else []
        figures = [lane["unavailable"] or lane["failed"]]
        if lane["texts"]:
            figures = [
                cosine_figure(lane["smallest_everyday_cosine"]), lane["smallest_everyday_cosine_text"],
                *(
                    [cosine_figure(lane["smallest_stress_cosine"]), lane["smallest_stress_cosine_text"]]
                    if lane["everyday_texts"] < lane["texts"]
                    else []
                ),
                difference_figure(lane["largest_difference"]), cosine_figure(lane["smallest_batch_cosine"]),
            ]  # fmt: skip
        sign = {"refused": "✗", "within": "✓", "not": "–"}[lane["state"].split()[0]]
        found.append([
            lane["target"], lane["output"], lane["runtime"], lane["device"], *run, str(lane["texts"]), *figures,
            f"{sign} {lane['state']}",
        ])  # fmt: skip
    return found


def together(*reports: ParityReport) -> ParityReport:
    """Return one report with the lanes of several, each on a device of its own."""
    lanes = tuple(
        lane.model_copy(update={"device": f"device-{n}"}) for n, one in enumerate(reports) for lane in one.lanes
    )
    return reports[0].model_copy(update={"lanes": lanes, "requested": ()}).sealed()


MIXED = together(
    report_of(opening=DeviceUnavailable("no CUDA here"), requested=False),
    report_of(artifacts=[artifact_of(both=True)]),
    report_of(crashing),
    report_of(on_text(CORPUS.texts[3].text, setting(0))),
)


@pytest.mark.parametrize("report", [report_of(), MIXED, report_of(artifacts=())])
def test_every_lane_is_in_the_table_with_its_figures_or_its_reason(report):
    assert Page(page(report)).rows("lanes") == lanes_of(report)


def test_a_verdict_is_a_word():
    assert "PASSED" in page(report_of())
    assert "<title>Passed" in page(report_of())
    assert "REFUSED" not in page(report_of())
    assert "REFUSED" in page(MIXED)
    assert "PASSED" not in page(MIXED)


@pytest.mark.parametrize("report", [MIXED, report_of(mean_pooled), report_of(artifacts=())])
def test_every_refusal_is_shown_with_advice(report):
    text = " ".join(Page(page(report)).text.split())
    for bad in judge(report, POLICY, CORPUS).failures:
        assert " ".join(f"{bad.got}; needed: {bad.needed}".split()) in text
        assert bad.advice in text
        assert f"{bad.rule} {bad.lane}".strip() in text


def test_worst_texts_and_batches_are_shown_with_figures():
    report = report_of(on_text(CORPUS.texts[4].text, setting(np.full(8, 0.1, np.float32))))
    content, row = page(report), report.lanes[0].rows[4]
    assert row.cosine is not None
    cells = [" ".join(cell.split()) for cell in Page(content).tables["cards worst"][1]]
    figures = [cosine_figure(row.cosine), difference_figure(1 - row.cosine), difference_figure(row.max_abs)]
    assert cells == ["t4", "everyday", str(row.tokens), *figures, row.text]
    assert "4 texts in a random order" in content


def test_limits_are_drawn_where_they_are_given():
    report = report_of()
    assert "limit: cosine 0.999999" in page(report)
    assert '<line class="limit"' not in render_html(report, judge(report, POLICY, CORPUS))


KINDS = Corpus("kinds.jsonl", (*CORPUS.texts, Text("mark", "!!!", "", "stress"), Text("dot", ".", "", "stress")))
ROUNDED_POLICY = ThresholdPolicy((), {"onnx-int8": ROUNDED})


def test_both_kinds_of_text_are_in_the_table_and_told_apart_in_the_drawings():
    report = report_of(on_text("!!!", turned(0.99)), KINDS, artifacts=[artifact_of("int8")])
    content = page(report, KINDS, ROUNDED_POLICY)
    found = Page(content)
    assert found.rows("lanes") == lanes_of(report, corpus=KINDS, policy=ROUNDED_POLICY)
    assert "mark" in found.rows("lanes")[0]
    assert "limit: cosine 0.998" in content
    assert "limit of stress texts: cosine 0.985" in content
    assert content.count('<line class="limit"') == 4
    assert len(re.findall(r'<rect class="\w+ stress"', content)) == 2
    assert "mark, 5 tokens, stress: cosine 0.9" in content
    assert "are stress texts" in content
    assert [" ".join(cell.split()) for cell in found.tables["cards worst"][1]][:2] == ["mark", "stress"]


def test_without_stress_texts_nothing_is_said_of_them():
    assert "stress text" not in page(report_of())


def test_a_limit_that_is_the_same_for_both_kinds_is_drawn_once():
    same = ROUNDED.model_copy(update={"min_stress_cosine": ROUNDED.min_cosine})
    assert [line.label for line in plots.limit_lines(same)] == ["limit: cosine 0.998"]
    assert [line.at for line in plots.limit_lines(ROUNDED)] == [1 - 0.998, 1 - 0.985]
    assert plots.limit_lines(None) == []


def test_a_bar_shows_how_much_of_it_is_of_stress_texts():
    rows = rows_with(0.99, 0.99, 0.99, 0.99)
    rows[2] = rows[2].model_copy(update={"kind": "stress"})
    (bar,) = plots.bars(rows, plots.LogAxis(-3, 0))
    assert (bar.texts, bar.height) == (4, plots.BOTTOM - plots.TOP)
    assert bar.stress_height == round(bar.height / 4, 1)
    assert "4 texts, 1 of them stress," in bar.label


def test_machines_of_a_merged_report():
    run = report_of().runs[""]
    other = run.model_copy(update={"environment": {"cpu": "<b>M3</b>"}})
    one, two = report_of(), report_of().model_copy(update={"runs": {"": other}}).sealed()
    both = merge([one, two], ["a", "b"])
    found = Page(page(both))
    assert found.rows("lanes") == lanes_of(both)
    assert "<b>M3</b>" in found.text
    assert run.environment["numpy"] in found.text
    assert {f"run-{key[:12]}" for key in both.runs} <= {value for name, value in found.attributes if name == "id"}


# Texts of others, and the network.


def nasty_report() -> tuple[ParityReport, Corpus]:
    texts = (*(Text(f"id {text}", text, "") for text in NASTY), Text("plain", "plain", ""))
    corpus = Corpus(f"{NASTY[1]}.jsonl", texts)
    report = report_of(on_text(NASTY[0], setting(0)), corpus)
    lane = report.lanes[0].model_copy(update={"device": NASTY[2], "facts": {NASTY[1]: NASTY[0]}})
    broken = lane.model_copy(update={"rows": (), "failed": f"{NASTY[0]}\n{NASTY[1]}", "output": NASTY[5]})
    return report.model_copy(update={"lanes": (lane, broken)}).sealed(), corpus


def test_texts_of_others_are_shown_and_not_obeyed():
    report, corpus = nasty_report()
    content = page(report, corpus)
    found = Page(content)
    assert set(found.tags) == set(Page(page(MIXED)).tags) | {"code"}
    assert found.tags.count("script") == 1
    assert not [name for name, _ in found.attributes if name.startswith("on")]
    assert NASTY[1] in found.text
    assert "a\\nb\\r\\x00\\x1b[31m\\u202eright to left\\u2028" in found.text
    assert "{{ 7 * 7 }}" in found.text
    assert "&lt;b&gt;" in found.text
    assert all(character.isprintable() or character == "\n" for character in content)


KNOWN_TAGS = set(Page(page(MIXED)).tags)


@given(text=st.text(min_size=1, max_size=20))
@settings(max_examples=25, deadline=None)
def test_any_text_stays_a_text(text):
    corpus = Corpus("any.txt", (Text(text, text, ""), Text(f"{text}2", "x", "")))
    report = report_of(corpus=corpus)
    found = Page(page(report, corpus))
    assert set(found.tags) <= KNOWN_TAGS
    assert json.loads(found.script)["report"]["lanes"][0]["rows"][0]["text"] == text


@pytest.mark.parametrize("report", [MIXED, nasty_report()[0]])
def test_nothing_is_loaded_from_anywhere(report):
    content = page(report)
    found = Page(content)
    assert not [value for name, value in found.attributes if name in ("src", "srcset", "action", "data", "xlink:href")]
    assert all(value.startswith("#") for name, value in found.attributes if name == "href")
    assert not set(found.tags) & {"link", "iframe", "object", "embed", "base", "img", "use", "image", "form"}
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in found.attributes
    style = content.partition("<style>")[2].partition("</style>")[0]
    assert not re.search(r"url\(|@import|https?:", style)
    assert not re.search(r"https?://", content)


def test_every_link_leads_somewhere():
    found = Page(page(merge([MIXED, report_of()], ["a", "b"])))
    names = [value for name, value in found.attributes if name == "id"]
    assert len(names) == len(set(names))
    assert {value[1:] for name, value in found.attributes if name == "href"} <= set(names)


def test_the_facts_are_embedded_unrounded_and_unedited():
    report, corpus = nasty_report()
    verdict = judge(report, POLICY, corpus)
    script = Page(render_html(report, verdict)).script
    assert not set(script) & set("<>&\u2028")
    value = json.loads(script)
    assert value["verdict"] == json.loads(json.dumps(as_json(report, verdict)))
    back = ParityReport.model_validate_json(json.dumps(value["report"]))
    assert back == report
    assert back.digest == back.computed_digest


# Plots.


ROW = report_of().lanes[0].rows[0]


def rows_with(*cosines):
    return [ROW.model_copy(update={"id": f"t{n}", "cosine": cosine}) for n, cosine in enumerate(cosines)]


def test_what_has_no_place_on_a_log_axis_stands_at_its_edge():
    rows = rows_with(1 - 2e-7, 1.0, 1.0000000000000002, None, 0.5)
    axis = plots.LogAxis.over([plots.gap(row.cosine) for row in rows if row.cosine is not None])
    assert (axis.low, axis.high) == (-7, 0)
    found = plots.marks(rows, axis, {"t4"})
    assert [mark.kind for mark in found] == ["plain", "floor", "floor", "none", "refused"]
    assert [mark.y for mark in found[1:4]] == [plots.BOTTOM, plots.BOTTOM, plots.TOP]
    assert "none" in found[3].label
    assert sum(bar.texts for bar in plots.bars(rows, axis)) == 4


@given(st.lists(st.floats(-1, 1.000001), max_size=50), st.integers(-20, 20))
@settings(deadline=None)
def test_every_text_has_a_mark_inside_the_drawing(cosines, shift):
    axis = plots.LogAxis.over([10.0**shift, *(plots.gap(value) for value in cosines)])
    rows = rows_with(*cosines)
    found = plots.marks(rows, axis, ())
    assert len(found) == len(cosines)
    assert all(plots.LEFT <= mark.x <= plots.RIGHT and plots.TOP <= mark.y <= plots.BOTTOM for mark in found)
    assert sum(bar.texts for bar in plots.bars(rows, axis)) == len(cosines)
    assert 2 <= len(axis.ticks) <= 10


def test_of_many_texts_the_worst_keep_their_marks():
    rows = rows_with(*[1 - 1e-12] * 2000)
    rows[777] = rows[777].model_copy(update={"cosine": 0.5})
    rows[1234] = rows[1234].model_copy(update={"cosine": None})
    found = plots.marks(rows, plots.LogAxis(-12, 0), {"t777"})
    assert len(found) <= plots.COLUMNS
    assert {mark.label.partition(",")[0] for mark in found if mark.kind != "plain"} == {"t777", "t1234"}


# A real browser.


@pytest.mark.parametrize("which", ["mixed", "merged", "nasty"])
def test_a_browser_reads_the_table_back(tmp_path, which):
    corpus = CORPUS
    if which == "nasty":
        report, corpus = nasty_report()
    else:
        report = MIXED if which == "mixed" else merge([MIXED, report_of()], ["a", "b"])
    path = tmp_path / "report.html"
    path.write_text(page(report, corpus), "utf-8")
    found = Page(dumped(path, tmp_path / "profile"))
    shown = found.rows("lanes")
    assert len(shown) == len(report.lanes)
    assert found.tags.count("script") == 1
    assert not [name for name, _ in found.attributes if name.startswith("on")]
    assert json.loads(found.script)["report"] == report.model_dump(mode="json")
    assert found.tags.count("svg") == 2 * sum(bool(lane.rows) for lane in report.lanes)
    if which == "nasty":
        assert NASTY[1] in found.text
    else:
        assert shown == lanes_of(report)
