"""What continuous integration is shown of a verdict: a JUnit file, and annotations of GitHub."""

from pathlib import Path
from xml.etree import ElementTree

import pytest
from fakes import POLICY, artifact_of, on_text, report_of, requiring, setting, small_corpus

from bge_export.errors import DeviceUnavailable, OutputError
from bge_export.parity.gate.judge import judge
from bge_export.parity.show.ci import ANNOTATIONS, annotations, junit, write_junit
from bge_export.texts.corpus import Corpus, Text

CORPUS = small_corpus()
NASTY = "a]]>&\"'<b>\n::error::x\r%0A\x00\x1b[31m\ufffe\u202e"


def test_a_passing_report_has_no_failure() -> None:
    report = report_of()
    root = ElementTree.fromstring(junit(report, judge(report, POLICY, CORPUS)))
    (suite,) = root
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("2", "0", "0")
    assert [case.get("name") for case in suite] == ["the report as a whole", "fake:cpu sentence_embedding"]
    assert list(annotations(judge(report, POLICY, CORPUS))) == []


def test_a_refused_lane_fails_with_every_reason() -> None:
    report = report_of(lambda rows, ids: rows * 0)
    verdict = judge(report, POLICY, CORPUS)
    assert len(verdict.failures) > 1
    (failure,) = ElementTree.fromstring(junit(report, verdict)).iter("failure")
    assert (failure.text or "").splitlines() == [bad.message for bad in verdict.failures]
    assert all(line.startswith("::error title=bge-export gate%3A ") for line in annotations(verdict))


def test_a_refusal_of_the_whole_report_fails_too() -> None:
    report = report_of()
    verdict = judge(report, requiring("onnxruntime:cuda"), CORPUS)
    cases = {case.get("name"): case for case in ElementTree.fromstring(junit(report, verdict)).iter("testcase")}
    assert cases["the report as a whole"].find("failure") is not None
    assert cases["fake:cpu sentence_embedding"].find("failure") is None


def test_a_lane_that_did_not_run_is_skipped_with_its_reason_or_fails() -> None:
    report = report_of(opening=DeviceUnavailable("no such device"), requested=False)
    verdict = judge(report, POLICY, CORPUS)
    root = ElementTree.fromstring(junit(report, verdict))
    skipped, failed = list(root.iter("skipped")), list(root.iter("failure"))
    assert failed
    assert [one.get("message") for one in skipped] == ["no such device"]


def test_texts_cannot_leave_their_place() -> None:
    corpus = Corpus("nasty.jsonl", (Text(NASTY, NASTY, ""),))
    report = report_of(on_text(NASTY, setting(0.0)), corpus, artifacts=[artifact_of()])
    verdict = judge(report, POLICY, corpus)
    (failure, *_) = ElementTree.fromstring(junit(report, verdict)).iter("failure")
    assert "<b>" in (failure.text or "")
    for line in annotations(verdict):
        assert line.isprintable()
        assert line.startswith("::error title=bge-export gate%3A ")
        assert "%0A" not in line.replace("%250A", "")


def test_github_gets_as_many_annotations_as_it_shows() -> None:
    report = report_of()
    lanes = tuple(lane.model_copy(update={"device": f"d{n}", "rows": ()}) for n in range(12) for lane in report.lanes)
    verdict = judge(report.model_copy(update={"lanes": lanes}).sealed(), POLICY, CORPUS)
    lines = list(annotations(verdict))
    assert len(lines) == ANNOTATIONS + 1
    assert lines[-1].endswith("see the log.")


def test_a_file_of_another_kind_is_not_replaced(tmp_path: Path) -> None:
    report = report_of()
    verdict = judge(report, POLICY, CORPUS)
    path = tmp_path / "gate.xml"
    for _ in range(2):
        write_junit(path, report, verdict)
    path.write_text("<testsuites name='mine'/>", "utf-8")
    with pytest.raises(OutputError, match="is not a JUnit file that bge-export wrote"):
        write_junit(path, report, verdict)
