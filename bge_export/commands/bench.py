"""The benchmark command: measures time, memory and size of artifacts side by side."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from bge_export.bench.files import gather, staged
from bge_export.bench.measure import OpenPlan, environment_of, measure_loads, report_of
from bge_export.bench.plan import Plan
from bge_export.bench.report import BenchReport, write_bench
from bge_export.bench.shapes import SHAPES, Shape
from bge_export.commands.measuring import default_devices, named_device
from bge_export.commands.turns import in_turn
from bge_export.errors import UsageError
from bge_export.progress import stage

SEED = 0
SECONDS = 30.0


@in_turn
def bench_files(
    paths: Sequence[Path],
    *,
    against: Path | None = None,
    lanes: Sequence[str] = (),
    shapes: Sequence[str] = (),
    threads: Sequence[int] = (1,),
    seconds: float = SECONDS,
    seed: int = SEED,
    within: bool = False,
    report_path: Path | None = None,
) -> BenchReport:
    """Measure time, memory and size of artifacts side by side in one run.

    Args:
        paths: folders that bge-export wrote, and .onnx and .xml files from anywhere.
        against: the file that the others are compared with, or a folder, whose fp32 artifact is used; by default the
            first file in fp32.
        lanes: `runtime:device` to measure on; a folder's artifacts that none of them reads are left out. By default
            each format's own runtimes on the CPU, if installed.
        shapes: shapes of batches such as `8x64`; by default `SHAPES`.
        threads: numbers of threads.
        seconds: how long to time, without warm-up and memory; at least five rounds are made.
        seed: seed of token ids and order.
        within: whether each lane is compared with the base on the same runtime and device, instead of the first one.
        report_path: the path of the report to write.

    Raises:
        UsageError: an argument cannot be used.
        MeasurementError: a file cannot be opened or run, or the report cannot be written.
    """
    if report_path is not None and not report_path.parent.is_dir():
        raise UsageError(
            f"{report_path} cannot be written: the folder does not exist. Make it, or choose another path."
        )

    wanted = tuple(Shape.parse(written) for written in dict.fromkeys(shapes)) or SHAPES
    named = [named_device(name) for name in dict.fromkeys(lanes)]
    files, base = gather(paths, against, named)
    devices = named or default_devices([file.artifact for file in files], all_devices=False)

    # Clients load bare files only from folders, which exist until the last measurement.
    with tempfile.TemporaryDirectory(prefix="bge_export-") as folder:
        moved = staged(files, devices, Path(folder))
        base = moved[files.index(base)]
        plan = Plan(moved, base, tuple(devices), tuple(dict.fromkeys(threads)), wanted, seed, within)
        report = _measured(plan, seconds)

    if report_path is not None:
        write_bench(report, report_path)
    return report


def _measured(plan: Plan, seconds: float) -> BenchReport:
    plan.refuse_impossible()
    environment = environment_of(plan)

    with stage("loading each in a process of its own", len(plan.entries)):
        loads = measure_loads(plan)

    with OpenPlan(plan) as opened:
        with stage("warming up", len(plan.entries) * len(plan.shapes)):
            opened.warm_up()
        with stage("timing, seconds", max(1, round(seconds))):
            times = opened.time(seconds)
        return report_of(plan, environment, loads, opened.facts, times)
