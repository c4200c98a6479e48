from itertools import permutations

import pytest
from fakes import LANE, POLICY, artifact_of, crashing, mean_pooled, promising, report_of, requiring, small_corpus
from hypothesis import given, settings
from hypothesis import strategies as st

from bge_export.errors import DeviceUnavailable, ReportError
from bge_export.parity.gate.judge import judge
from bge_export.parity.merge import merge
from bge_export.parity.report import ParityReport, read_report, write_report
from bge_export.parity.show.render import as_json

CORPUS = small_corpus()
NO_GPU = DeviceUnavailable("no CUDA here")


def on(report, device="cpu", *, cpu="CPU", vectors="v", requested=(), **changes):
    """Return a report as if measured on another device and machine, against vectors of its own."""
    run = report.runs[""].model_copy(update={"environment": {"cpu": cpu}})
    run = run.model_copy(update={"reference": run.reference.model_copy(update={"vectors_digest": vectors})})
    lanes = tuple(lane.model_copy(update={"device": device}) for lane in report.lanes)
    return report.model_copy(update={"lanes": lanes, "runs": {"": run}, "requested": requested, **changes}).sealed()


def plus(report, *others):
    """Return a report with the lanes of others too, as one run measures several devices."""
    lanes = (*report.lanes, *(lane for other in others for lane in other.lanes))
    return report.model_copy(update={"lanes": lanes}).sealed()


GOOD = report_of(requested=False)
ABSENT = on(report_of(opening=NO_GPU, requested=False), "cuda")
CPU = plus(on(GOOD, cpu="x86"), ABSENT)
GPU = on(GOOD, "cuda", cpu="host of the GPU", vectors="w")
MAC = plus(on(GOOD, cpu="M3", vectors="m"), ABSENT)
BAD = on(report_of(mean_pooled, requested=False), cpu="ARM")
POOL = (CPU, GPU, MAC, BAD, on(report_of(crashing), "npu", cpu="edge", requested=("fake:npu",)))


def merged(*reports):
    return merge(reports, [f"{n}.json" for n in range(len(reports))])


def lanes_of(report):
    return [(lane.device, lane.run, lane.measured) for lane in report.lanes]


def test_one_report_is_itself():
    for report in POOL:
        assert merged(report) == report
        assert merged(report, report) == report


def test_a_lane_measured_elsewhere_replaces_one_that_could_not_run():
    both = merged(CPU, GPU)
    assert lanes_of(both) == [("cpu", CPU.digest, True), ("cuda", GPU.digest, True)]
    assert both.digest == both.computed_digest
    assert judge(both, requiring("fake:cpu", "fake:cuda"), CORPUS).passed
    assert not judge(CPU, requiring("fake:cuda"), CORPUS).passed


def test_what_could_run_nowhere_stays_with_its_reason():
    both = merged(CPU, MAC)
    assert [lane.unavailable for lane in both.lanes if lane.device == "cuda"] == ["no CUDA here"] * 2
    assert judge(both, POLICY, CORPUS).passed


def test_a_lane_that_was_asked_for_and_could_not_run_is_not_replaced():
    asked = on(report_of(opening=NO_GPU), "cuda", requested=("fake:cuda",))
    verdict = judge(merged(asked, GPU), POLICY, CORPUS)
    assert [bad.rule for bad in verdict.failures] == ["unavailable"]
    assert asked.digest[:12] in verdict.failures[0].lane


def test_a_crash_is_not_replaced():
    verdict = judge(merged(on(report_of(crashing, requested=False), "cuda"), GPU), POLICY, CORPUS)
    assert [bad.rule for bad in verdict.failures] == ["crashed"]


def test_a_wrong_lane_is_not_hidden_by_the_same_lane_of_another_machine():
    both = merged(BAD, CPU)
    verdict = judge(both, POLICY, CORPUS)
    assert {bad.lane for bad in verdict.failures} == {f"{LANE} (run {BAD.digest[:12]})"}
    states = {lane["run"]: lane["state"] for lane in as_json(both, verdict)["lanes"] if lane["device"] == "cpu"}
    assert states[CPU.digest] == "within limits"
    assert states[BAD.digest].startswith("refused")


def test_machines_and_their_vectors_survive():
    runs = merged(CPU, GPU, MAC).runs
    assert {key: run.environment["cpu"] for key, run in runs.items()} == {
        CPU.digest: "x86", GPU.digest: "host of the GPU", MAC.digest: "M3",
    }  # fmt: skip
    assert {run.reference.vectors_digest for run in runs.values()} == {"v", "w", "m"}


def test_what_was_asked_for_anywhere_is_asked_for():
    one, two = on(GOOD, requested=("fake:cpu",)), on(GOOD, "cuda", requested=("fake:cuda", "fake:cpu"))
    assert merged(one, two).requested == ("fake:cpu", "fake:cuda")


def test_names_that_may_differ_are_chosen_by_value():
    local = on(GOOD, checkpoint=GOOD.checkpoint.model_copy(update={"source": "a-folder", "revision": None}))
    other = on(GOOD, texts=GOOD.texts.model_copy(update={"name": "a-copy.txt"}), cpu="other")
    for order in permutations((local, other)):
        assert merged(*order).checkpoint == GOOD.checkpoint
        assert merged(*order).texts.name == "a-copy.txt"


def test_the_checkpoint_itself_may_run_on_one_machine_only():
    lane = GPU.lanes[0].model_copy(update={"target": "checkpoint-fp32", "model": "model.safetensors"})
    eager = GPU.model_copy(update={"lanes": (*GPU.lanes, lane), "targets": (*GPU.targets, lane.target)}).sealed()
    for order in permutations((CPU, eager)):
        assert merged(*order).targets == ("checkpoint-fp32", "onnx-fp32")
        assert [one.device for one in merged(*order).lanes if one.target == lane.target] == ["cuda"]


def test_a_merged_report_is_a_file_like_any_other(tmp_path):
    both = merged(CPU, GPU)
    assert write_report(both, tmp_path / "all.json") == both == read_report(tmp_path / "all.json")


def test_every_row_of_every_lane_is_there():
    everything = merged(*POOL)
    for report in POOL:
        for lane in report.lanes:
            if lane.rows:
                assert lane.model_copy(update={"run": report.digest}) in everything.lanes


@given(order=st.permutations(POOL), cut=st.integers(1, len(POOL) - 1), again=st.sampled_from(POOL))
@settings(max_examples=30, deadline=None)
def test_neither_order_nor_grouping_nor_repetition_matters(order, cut, again):
    everything = merged(*POOL)
    assert merged(*order) == everything
    assert merged(merged(*order[:cut]), merged(*order[cut:])) == everything
    assert merged(again, merged(*order)) == everything
    assert merged(everything, everything) == everything


@given(order=st.permutations(POOL))
@settings(max_examples=10, deadline=None)
def test_merging_never_makes_a_refused_lane_pass(order):
    failing = {bad.rule for report in POOL for bad in judge(report, POLICY, CORPUS).failures}
    assert {bad.rule for bad in judge(merged(*order), POLICY, CORPUS).failures} >= failing - {"not-measured"}


# Refusals.


def with_field(report, part, **changes):
    return report.model_copy(update={part: getattr(report, part).model_copy(update=changes)}).sealed()


def with_spec(report, spec):
    return report.model_copy(update={"spec": spec}).sealed()


def with_prompts(report, query):
    reads = report.spec.inputs.model_copy(update={"prompts": {"query": query}})
    return with_spec(report, report.spec.model_copy(update={"inputs": reads}))


def with_reference(report, **changes):
    run = report.runs[""]
    other = run.model_copy(update={"reference": run.reference.model_copy(update=changes)})
    return report.model_copy(update={"runs": {"": other}}).sealed()


@pytest.mark.parametrize(
    ("other", "field", "values"),
    [
        (with_field(GPU, "checkpoint", digest="d" * 64), "checkpoint.digest", ("c" * 64, "d" * 64)),
        (with_spec(GPU, promising(GPU.spec, pooling="mean")), "spec.heads.dense.pooling", ("'cls'", "'mean'")),
        (with_prompts(GPU, "q: "), "spec.inputs.prompts", ("{}", "{'query': 'q: '}")),
        (with_field(GPU, "texts", digest="e" * 64), "texts.digest", (CORPUS.digest, "e" * 64)),
        (with_field(GPU, "texts", count=7), "texts.count", ("20", "7")),
        (with_reference(GPU, texts_digest="f" * 64), "reference.texts_digest", (CORPUS.digest, "f" * 64)),
        (GPU.model_copy(update={"targets": ("onnx-fp16", "onnx-fp32")}).sealed(), "targets", ("onnx-fp16, onnx-fp32",)),
        (
            on(report_of(artifacts=[artifact_of(digest="b" * 64)])),
            "artifact_digest of onnx-fp32 onnx/model.onnx",
            ("a" * 64, "b" * 64),
        ),
    ],
)
def test_reports_about_different_things(other: ParityReport, field, values):
    for one, two in permutations((("cpu.json", CPU), ("gpu.json", other))):
        with pytest.raises(ReportError) as caught:
            merge([CPU, one[1], two[1]], ["first.json", one[0], two[0]])
        message = str(caught.value)
        assert field in message
        assert "gpu.json" in message
        assert "first.json" in message or "cpu.json" in message
        assert all(value in message for value in values)
        assert message.endswith((".", "))"))
        assert caught.value.exit_status == 3


def test_bytes_that_differ_between_the_second_and_the_third():
    two = [artifact_of(), artifact_of("fp16")]
    other = [artifact_of(), artifact_of("fp16", digest="b" * 64)]
    first = report_of(artifacts=two)
    first = first.model_copy(update={"lanes": first.lanes[:1]}).sealed()
    with pytest.raises(ReportError, match=r"^b\.json and c\.json cannot be merged"):
        merge([first, report_of(artifacts=two), report_of(artifacts=other)], ["a.json", "b.json", "c.json"])


def test_an_edited_report():
    edited = GPU.model_copy(update={"lanes": CPU.lanes})
    for reports, names in (([CPU, edited], ["cpu.json", "gpu.json"]), ([edited], ["gpu.json"])):
        with pytest.raises(ReportError, match=r"^gpu\.json: .*edited"):
            merge(reports, names)


def test_nothing_to_merge():
    with pytest.raises(ReportError, match="No report"):
        merge([], [])


def test_values_of_others_act_on_no_terminal():
    other = with_prompts(GPU, "\x1b[31m\u202e")
    with pytest.raises(ReportError) as caught:
        merge([CPU, other], ["a\n.json", "b.json"])
    assert str(caught.value).isprintable()
