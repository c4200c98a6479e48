"""A file must give every output that the promise names, whatever its manifest and its report list."""

import pytest
from fakes import POLICY, artifact_of, promising, report_of, small_corpus
from token_world import POLICY as TOKEN_POLICY
from token_world import SPEC, token_report

from bge_export.contracts import LAST_HIDDEN_STATE, SENTENCE_EMBEDDING
from bge_export.parity.gate.judge import judge
from bge_export.parity.report import ParityReport
from bge_export.texts.corpus import Corpus


def missing(report: ParityReport, policy: object, corpus: Corpus) -> list[str]:
    verdict = judge(report.sealed(), policy, corpus)  # type: ignore[arg-type]
    return [one.got for one in verdict.failures if one.rule == "not-measured"]


@pytest.mark.parametrize("output", SPEC.outputs)
def test_a_file_without_one_of_its_three_outputs_is_refused(output: str) -> None:
    report, corpus = token_report(), small_corpus()
    assert missing(report, TOKEN_POLICY, corpus) == []

    fewer = report.model_copy(update={"lanes": tuple(lane for lane in report.lanes if lane.output != output)})
    (got,) = missing(fewer, TOKEN_POLICY, corpus)
    assert f"gives no {output}" in got


def test_a_file_must_give_the_vector_that_clients_cannot_make() -> None:
    report = report_of(artifacts=[artifact_of(both=True)])
    pooled = promising(report.spec, pooling="max")
    lanes = [lane.model_copy(update={"spec": pooled}) for lane in report.lanes]
    whole = report.model_copy(update={"spec": pooled, "lanes": tuple(lanes)})
    assert missing(whole, POLICY, small_corpus()) == []

    states = tuple(lane for lane in lanes if lane.output == LAST_HIDDEN_STATE)
    (got,) = missing(whole.model_copy(update={"lanes": states}), POLICY, small_corpus())
    assert f"gives no {SENTENCE_EMBEDDING}" in got
