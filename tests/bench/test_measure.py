"""A run of several files in fake runtimes whose speed is known, on a clock that only they move."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from bge_export.bench.files import BenchFile
from bge_export.bench.measure import OpenPlan, environment_of, measure_loads, report_of
from bge_export.bench.plan import Plan
from bge_export.bench.report import BenchReport, LoadFacts, read_bench, write_bench
from bge_export.bench.shapes import Shape
from bge_export.contracts import Artifact, InputSpec, Target, TokenBatch
from bge_export.errors import ArtifactError, DeviceUnavailable, ReportError, RuntimeContractError, UsageError
from bge_export.heads.dense import UNDECLARED
from bge_export.parity.measure.measurement import RuntimeDevice

SHORT, LONG = Shape(1, 4), Shape(2, 8)
COSTS = {"fp32": 1.0, "int8": 0.5, "fp16": 1.5}
"""Seconds a text."""


@dataclass(eq=False)
class SlowRuntime:
    """Takes `COSTS` x `factor` seconds a text, and more whenever `slowdown` says so."""

    name: str = "slow"
    formats: frozenset[str] = frozenset({"onnx"})
    factor: float = 1.0
    library: str = "numpy"
    extra: str = "slow"
    now: float = 0.0
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    opened: list["SlowSession"] = field(default_factory=list)
    broken: str = ""
    empty: bool = False

    def devices(self) -> Mapping[str, str | None]:
        return {"cpu": None, "gpu": "there is none"}

    def open(self, artifact: Artifact, device: str, threads: int) -> "SlowSession":
        if artifact.target.precision == self.broken:
            raise ArtifactError(f"{artifact.model} is broken")
        self.opened.append(SlowSession(self, artifact, threads))
        return self.opened[-1]


@dataclass(eq=False)
class SlowSession:
    runtime: SlowRuntime
    artifact: Artifact
    threads: int
    closed: bool = False
    facts: Mapping[str, str] = field(default_factory=lambda: {"slow": "1"})

    def run(self, batch: TokenBatch) -> Mapping[str, np.ndarray]:
        texts, _ = batch.input_ids.shape
        self.runtime.shapes.append(batch.input_ids.shape)
        precision = self.artifact.target.precision
        cost = COSTS[precision] * (2.2 if precision == "int8" and texts > 1 else 1)  # int8 is slow in batches
        self.runtime.now += cost * self.runtime.factor * texts / self.threads
        return {"last_hidden_state": np.zeros((0 if self.runtime.empty else texts, 1, 4), dtype=np.float32)}

    def close(self) -> None:
        self.closed = True


@dataclass(eq=False)
class ClientsRuntime(SlowRuntime):
    """Runs in a process of its own, by whose clock everything takes 7 s."""

    together: list[int] = field(default_factory=list)

    def stage(self, artifact: Artifact, donors: Sequence[Path], stage: Path) -> Artifact:
        raise NotImplementedError

    def open_together(self, artifacts: Sequence[Artifact], device: str, threads: int) -> Sequence[SlowSession]:
        self.together.append(len(artifacts))
        self.opened += [ClientsSession(self, artifact, threads) for artifact in artifacts]
        return self.opened[-len(artifacts) :]


class ClientsSession(SlowSession):
    def seconds(self, batch: TokenBatch, least: float) -> float:
        return 7.0

    def peak_bytes(self) -> int | None:
        return None


def file_of(precision: str, format_name: str = "onnx", max_tokens: int = 0) -> BenchFile:
    artifact = Artifact(
        target=Target(format_name, precision), root=Path(), model=f"{precision}.onnx", files=(), digest="",
        spec=replace(UNDECLARED, inputs=InputSpec(max_tokens, {})),
        inputs=("input_ids",), outputs=("last_hidden_state",),
    )  # fmt: skip
    return BenchFile(f"{format_name}-{precision}", artifact, "a" * 64, 2_000_000, 30)


FILES = tuple(map(file_of, COSTS))


def plan_of(
    *runtimes: SlowRuntime, files: Sequence[BenchFile] = FILES, base: int = 0, threads: tuple[int, ...] = (1,),
    shapes: tuple[Shape, ...] = (SHORT, LONG),
) -> Plan:  # fmt: skip
    devices = tuple(RuntimeDevice(runtime, "cpu", requested=True) for runtime in runtimes or (SlowRuntime(),))
    return Plan(tuple(files), files[base], devices, threads, shapes, seed=0)


def fake_load(artifact: Artifact, _place: RuntimeDevice, _threads: int) -> LoadFacts:
    return LoadFacts(load_seconds=0.25, before_mib=50.0, peak_mib=50.0 + COSTS[artifact.target.precision])


def report_from(plan: Plan) -> BenchReport:
    plan.refuse_impossible()
    runtimes = {id(one.runtime): one.runtime for one in plan.devices}.values()
    loads = measure_loads(plan, fake_load)
    with OpenPlan(plan) as opened:
        opened.warm_up()
        times = opened.time(0, clock=lambda: sum(runtime.now for runtime in runtimes))
        return report_of(plan, environment_of(plan), loads, opened.facts, times)


def lanes(report: BenchReport) -> dict[str, list[float]]:
    return {lane.name: [round(one.ratio.median, 6) for one in lane.times] for lane in report.lanes}


def test_times_ratios_and_their_mean_are_those_of_the_files() -> None:
    report = report_from(plan_of())
    assert lanes(report) == {
        "onnx-fp32@slow:cpu, 1 thread": [1.0, 1.0],
        "onnx-int8@slow:cpu, 1 thread": [0.5, 1.1],
        "onnx-fp16@slow:cpu, 1 thread": [1.5, 1.5],
    }
    int8 = report.lanes[1]
    assert [round(one.seconds.median, 6) for one in int8.times] == [0.5, 2.2]
    assert int8.ratio == pytest.approx((0.5 * 1.1) ** 0.5)
    assert int8.load == LoadFacts(load_seconds=0.25, before_mib=50.0, peak_mib=50.5)
    assert int8.facts == {"slow": "1"}
    assert (report.rounds, report.shapes, report.vocabulary) == (5, ("1x4", "2x8"), 30)
    assert {"cpu", "cores", "instructions", "load", "numpy"} <= set(report.environment)


def test_a_narrower_file_that_is_slower_is_said_to_be_and_where() -> None:
    report = report_from(plan_of())
    assert [lane.slower_than_fp32 for lane in report.lanes] == [(), ("2x8",), ("1x4", "2x8")]
    assert report.warnings == (
        "onnx-int8@slow:cpu, 1 thread is slower here than fp32 at 2x8",
        "onnx-fp16@slow:cpu, 1 thread is slower here than fp32 at 1x4, 2x8",
    )


def test_slower_is_told_against_fp32_whatever_the_base_is() -> None:
    report = report_from(plan_of(base=2))
    assert lanes(report)["onnx-int8@slow:cpu, 1 thread"] == [round(1 / 3, 6), round(1.1 / 1.5, 6)]
    assert report.lanes[1].slower_than_fp32 == ("2x8",)


def test_without_a_file_in_fp32_nothing_is_said_to_be_slower() -> None:
    report = report_from(plan_of(files=FILES[1:]))
    assert not report.warnings
    assert {one.fp32_ratio for lane in report.lanes for one in lane.times} == {None}


def test_the_base_is_one_for_all_runtimes_and_fp32_is_that_of_the_own() -> None:
    report = report_from(plan_of(SlowRuntime("one"), SlowRuntime("two", factor=4.0)))
    assert {lane.base for lane in report.lanes} == {"onnx-fp32@one:cpu, 1 thread"}
    assert lanes(report)["onnx-int8@two:cpu, 1 thread"] == [2.0, 4.4]
    assert report.lanes[3].slower_than_fp32 == ("2x8",)  # than fp32 in the same runtime


def test_within_each_runtime_has_its_own_base() -> None:
    report = report_from(replace(plan_of(SlowRuntime("one"), SlowRuntime("two", factor=4.0)), within=True))
    assert lanes(report)["onnx-int8@two:cpu, 1 thread"] == [0.5, 1.1]
    assert {lane.base for lane in report.lanes} == {"onnx-fp32@one:cpu, 1 thread", "onnx-fp32@two:cpu, 1 thread"}


def test_files_of_a_client_are_opened_in_one_process_and_timed_there() -> None:
    runtime = ClientsRuntime()
    report = report_from(plan_of(runtime))
    assert runtime.together == [3]
    assert [one.seconds.median for one in report.lanes[1].times] == [7.0, 7.0]
    assert all(session.closed for session in runtime.opened)


def test_numbers_of_threads_are_compared_with_their_like() -> None:
    report = report_from(plan_of(threads=(1, 2)))
    assert lanes(report)["onnx-int8@slow:cpu, 2 threads"] == [0.5, 1.1]
    assert [one.seconds.median for one in report.lanes[1].times] == [0.5, 1.0]
    assert report.lanes[1].base == "onnx-fp32@slow:cpu, 2 threads"


def test_every_file_gets_every_shape_and_all_are_closed() -> None:
    runtime = SlowRuntime()
    report_from(plan_of(runtime))
    assert {(1, 4), (2, 8)} == set(runtime.shapes)
    assert len(runtime.opened) == 3
    assert all(session.closed for session in runtime.opened)


def test_if_one_cannot_be_opened_the_others_are_closed() -> None:
    runtime = SlowRuntime(broken="fp16")
    with pytest.raises(ArtifactError, match=r"fp16\.onnx is broken"):
        report_from(plan_of(runtime))
    assert [session.closed for session in runtime.opened] == [True, True]


def test_a_runtime_that_gives_nothing_is_not_called_fast() -> None:
    with pytest.raises(RuntimeContractError, match="one embedding a text for a batch of 1x4"):
        report_from(plan_of(SlowRuntime(empty=True)))


def test_a_crash_is_named_with_file_runtime_and_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(_self: SlowSession, batch: TokenBatch) -> Mapping[str, np.ndarray]:
        raise ValueError("Unexpected input data type\nand more")

    monkeypatch.setattr(SlowSession, "run", crash)
    with pytest.raises(ArtifactError, match=r"onnx-fp32@slow:cpu, 1 thread cannot run a batch of 1x4: .* type$"):
        report_from(plan_of())


@pytest.mark.parametrize(
    ("plan", "error", "message"),
    [
        (
            plan_of(files=(*FILES, file_of("fp32", "other"))),
            UsageError,
            "other-fp32: no runtime that was named, or is installed, reads other",
        ),
        (plan_of(SlowRuntime(), SlowRuntime("x", frozenset({"xyz"}))), UsageError, "x:cpu reads none of these files"),
        (
            replace(
                plan_of(SlowRuntime(), SlowRuntime("x", frozenset({"xyz"})), files=(*FILES, file_of("int8", "xyz"))),
                within=True,
            ),
            UsageError,
            "x:cpu does not read onnx-fp32, so nothing can be compared",
        ),
        (plan_of(files=[file_of("fp32", max_tokens=7)]), UsageError, "shape 2x8: onnx-fp32 takes 7 tokens"),
        (plan_of(SlowRuntime(library="torch"), threads=(1, 2)), UsageError, "Give one --threads"),
        (replace(plan_of(), devices=(RuntimeDevice(SlowRuntime(), "gpu", True),)), DeviceUnavailable, "there is none"),
        (
            replace(plan_of(), devices=(RuntimeDevice(SlowRuntime(), "tpu", True),)),
            DeviceUnavailable,
            "no such device",
        ),
    ],
)
def test_a_plan_of_which_a_part_cannot_be_measured_is_refused(plan: Plan, error, message: str) -> None:
    with pytest.raises(error, match=message):
        plan.refuse_impossible()


def test_a_report_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    report = report_from(plan_of())
    write_bench(report, tmp_path / "bench.json")
    assert read_bench(tmp_path / "bench.json") == report
    assert [path.name for path in tmp_path.iterdir()] == ["bench.json"]


def test_what_is_no_report_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    with pytest.raises(ReportError, match=r"bench\.json does not exist"):
        read_bench(path)
    path.write_text("{}")
    with pytest.raises(ReportError, match=r"no report of schema bench|bge_export\.bench/1"):
        read_bench(path)
    with pytest.raises(ReportError, match="cannot be written"):
        write_bench(report_from(plan_of()), tmp_path / "no/such/folder.json")
