"""Every exporter x precision x runtime, found by file name: a new file is tested by being there."""

import shutil
from pathlib import Path

import pytest
from conftest import needs_client
from exporting import export_model
from noise_limits import noise_limits

from bge_export.bundle.manifest import read_bundle
from bge_export.commands import check_parity, judge_report, read_policy
from bge_export.commands.measuring import ASKED_FOR, Proof
from bge_export.contracts import Target
from bge_export.exporters import find_exporter, format_names
from bge_export.oracle.vectors import ReferenceVectors
from bge_export.parity.gate.judge import judge
from bge_export.parity.measure.files import known_files
from bge_export.parity.measure.measurement import Measurement, RuntimeDevice
from bge_export.parity.report import ParityReport
from bge_export.runtimes import find_runtime, runtime_names
from bge_export.texts.corpus import builtin_corpus

TARGETS = [Target(name, precision) for name in format_names() for precision in find_exporter(name).precisions]
UNSUPPORTED = {
    ("onnx", "openvino_default_hint"),
    ("onnx", "torch"),
    ("onnx", "torchscript"),
    ("openvino", "onnxruntime"),
    ("openvino", "torch"),
    ("openvino", "torchscript"),
    ("openvino", "transformersjs"),
    ("torchscript", "onnxruntime"),
    ("torchscript", "openvino"),
    ("torchscript", "openvino_default_hint"),
    ("torchscript", "torch"),
    ("torchscript", "transformersjs"),
}
"""Format and runtime that does not read it. Every other pair is measured."""

NO_OPERATOR = {("onnx-bnb4", "openvino")}
"""Target and runtime that reads the format, and lacks an operator of that precision."""

PINNED = {"openvino_default_hint": "openvino"}
"""Runtime that chooses its own precision, and so proves nothing alone -> the pinned one beside it."""
DEVICES = {"transformersjs": "node@4"}
"""Where a runtime that has no `cpu` is measured; `tests/runtimes` has the other devices."""

PAIRS = [
    (target, name)
    for target in TARGETS
    for name in runtime_names()
    if (target.format, name) not in UNSUPPORTED and (str(target), name) not in NO_OPERATOR
]


@pytest.fixture(scope="session")
def everything(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder with every format in every precision, unchecked."""
    out = tmp_path_factory.mktemp("everything") / "out"
    for name in format_names():
        exporter = find_exporter(name, {"sentence_embedding": True})
        export_model(exporter, str(tiny), out, precisions=exporter.precisions, check=False)
    return out


@pytest.fixture(scope="session")
def reference(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from bge_export.commands import write_reference

    path = tmp_path_factory.mktemp("reference") / "reference.npz"
    write_reference(str(tiny), path)
    return path


@pytest.fixture(scope="module")
def proof(everything: Path, tiny: Path, thresholds: Path, tmp_path_factory: pytest.TempPathFactory) -> Proof:
    """Every target in every runtime that needs not be named, measured and judged at once."""
    folder = Path(shutil.copytree(everything, tmp_path_factory.mktemp("measured") / "out"))
    return check_parity(folder, str(tiny), thresholds=thresholds)


@pytest.fixture(scope="session")
def thresholds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return noise_limits(tmp_path_factory.mktemp("limits"))


@pytest.mark.parametrize(("target", "runtime"), PAIRS, ids=lambda part: str(part))
def test_a_pair_is_proven(
    everything: Path, reference: Path, thresholds: Path, proof: Proof, target: Target, runtime: str
) -> None:
    corpus = builtin_corpus()
    artifacts = [item for item in read_bundle(everything)[1] if item.target == target]
    device = DEVICES.get(runtime, "cpu")
    names = {runtime, PINNED.get(runtime, runtime)}
    if runtime in ASKED_FOR:
        needs_client(device)
        vectors = ReferenceVectors.read(reference)
        report = Measurement(corpus, vectors, 1).report(
            artifacts,
            [RuntimeDevice(find_runtime(runtime), device, True)],
            facts=known_files(artifacts, vectors.sweep),
        )
    else:
        report = of_target(proof.report, target)

    required = [f"{target}@{name}:{device}" for name in sorted(names)]
    verdict = judge(report, read_policy(thresholds), corpus, require=required, artifacts=artifacts)
    measured = {(lane.runtime, lane.device) for lane in report.lanes if lane.measured}
    assert {(name, device) for name in names} <= measured
    assert [bad.message for bad in verdict.failures] == []
    assert {lane.output for lane in report.lanes} == {"last_hidden_state", "sentence_embedding"}


def of_target(report: ParityReport, target: Target) -> ParityReport:
    """Return a report with nothing but the lanes of a target: one of them has swept every id and position for all."""
    lanes = tuple(lane for lane in report.lanes if lane.target == str(target))
    return report.model_copy(update={"lanes": lanes, "targets": (str(target),), "requested": ()}).sealed()


def test_the_list_of_unsupported_pairs_is_what_the_runtimes_say() -> None:
    readers = {(target.format, name) for target in TARGETS for name in runtime_names()}
    assert {(f, name) for f, name in readers if f not in find_runtime(name).formats} == UNSUPPORTED


def test_the_list_of_missing_operators_is_what_the_runtimes_say(everything: Path) -> None:
    artifacts = read_bundle(everything)[1]
    places = {name: RuntimeDevice(find_runtime(name), DEVICES.get(name, "cpu"), True) for name in runtime_names()}
    found = {
        (str(item.target), name)
        for item in artifacts
        for name, place in places.items()
        if item.target.format in find_runtime(name).formats and not place.reads(item)
    }
    assert found == NO_OPERATOR


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_every_cell_can_fail(everything: Path, reference: Path, target: Target) -> None:
    corpus = builtin_corpus()
    artifacts = [item for item in read_bundle(everything)[1] if item.target == target]
    vectors = ReferenceVectors.read(reference)
    for name in runtime_names():
        real = find_runtime(name)
        if target.format in real.formats:
            wrong = Wrong(real, corpus, vectors)
            report = Measurement(corpus, vectors, 1).report(artifacts, [RuntimeDevice(wrong, "cpu", True)])
            verdict = judge(report, read_policy(None), corpus, artifacts=artifacts)
            lanes = {bad.lane for bad in verdict.failures if bad.row == corpus.texts[7].id}
            assert lanes == {lane.name for lane in report.lanes}, name


def test_without_a_runtime_named_everything_here_is_measured_and_the_rest_says_why(
    proof: Proof, thresholds: Path
) -> None:
    assert proof.verdict.passed
    measured = {(lane.target, lane.runtime) for lane in proof.report.lanes if lane.measured}
    assert measured == {(str(target), name) for target, name in PAIRS if name not in ASKED_FOR}
    for lane in proof.report.lanes:
        assert lane.measured or lane.unavailable, lane.name
    assert judge_report(proof.path, thresholds=thresholds).verdict.passed
    refused = judge_report(proof.path, thresholds=thresholds, require=["onnxruntime:directml"])
    assert refused.verdict.exit_status == 1


class Wrong:
    """A runtime that says what the oracle says, but for the eighth text."""

    def __init__(self, real, corpus, vectors) -> None:
        self.real, self.corpus, self.vectors = real, corpus, vectors
        self.name, self.formats, self.library, self.extra = real.name, real.formats, real.library, real.extra

    def devices(self):
        return {"cpu": None}

    def open(self, artifact, device, threads):
        return WrongSession(artifact, self.vectors)


class WrongSession:
    def __init__(self, artifact, vectors) -> None:
        self.facts = {}
        rows = vectors.truth.copy()
        rows[7] = rows[7][::-1]
        self.by_ids = dict(zip(vectors.token_ids, rows, strict=True))
        self.outputs = artifact.outputs

    def run(self, batch):
        import numpy as np

        counts = batch.attention_mask.sum(axis=1)
        texts = [tuple(ids[:count].tolist()) for ids, count in zip(batch.input_ids, counts, strict=True)]
        other = np.ones_like(next(iter(self.by_ids.values())))  # of the sweep, which holds no text
        rows = np.stack([self.by_ids.get(ids, other) for ids in texts])
        return {output: rows if output == "sentence_embedding" else rows[:, None] for output in self.outputs}

    def close(self) -> None:
        pass
