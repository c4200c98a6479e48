"""The benchmark report as a JSON file: facts about one machine at one time, without a verdict."""

import json
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from bge_export.errors import ReportError
from bge_export.files.reading import first_fault, reading
from bge_export.files.regular import REPORT_BYTES, read_regular
from bge_export.files.single import written_whole
from bge_export.parity.report import Record

SCHEMA: Literal["bge_export.bench/1"] = "bge_export.bench/1"


class Spread(Record):
    """A median with its quartiles: half of the rounds lie between `low` and `high`."""

    median: float
    low: float
    high: float


class FileFacts(Record):
    """One measured file; `size_bytes` includes external data, `precision` is that of its narrow weights."""

    name: str
    format: str
    precision: str
    sha256: str
    size_bytes: int


class LoadFacts(Record):
    """Load time and memory of one file in a separate process.

    Attributes:
        load_seconds: seconds to open the file, with the runtime's library imported. For a client, from process start.
        before_mib: peak memory before the file is opened: interpreter, numpy, the library. None if the system does not
            report it, and for a client, whose process starts with the file.
        peak_mib: peak memory after one text of 16 tokens is embedded. None for a browser, which has many processes.
    """

    load_seconds: float
    before_mib: float | None
    peak_mib: float | None


class ShapeTimes(Record):
    """Times of one shape in one lane.

    Attributes:
        seconds: seconds of a run, over the rounds.
        ratio: time divided by the base's time in the same round.
        fp32_ratio: time divided by the fp32 file's time in the same round; None unless this file is narrower and an
            fp32 file was measured.
    """

    shape: str
    seconds: Spread
    ratio: Spread
    fp32_ratio: Spread | None


class BenchLane(Record):
    """One file in one runtime on one device with one number of threads.

    Attributes:
        facts: facts that the runtime reports about itself.
        base: the lane that times are divided by: the base file in the first runtime that reads it, or in this one.
        ratio: the geometric mean of the ratios over the shapes.
        slower_than_fp32: the shapes in which this narrower file took clearly longer than the fp32 file in this lane.
    """

    file: str
    runtime: str
    device: str
    threads: int
    facts: dict[str, str]
    load: LoadFacts
    base: str
    ratio: float
    times: tuple[ShapeTimes, ...]
    slower_than_fp32: tuple[str, ...]

    @property
    def name(self) -> str:
        """Return the lane's readable name."""
        return lane_name(self.file, self.runtime, self.device, self.threads)


class BenchReport(Record):
    """Everything measured in one run.

    Attributes:
        environment: processor, instruction sets, versions, and load before the run; no user, host or folder.
        base: the file that the others are compared with.
        rounds: the number of times that each run was timed.
        seed: seed of the order and of the token ids.
        vocabulary: token ids are drawn from [0, vocabulary).
    """

    schema_: Literal["bge_export.bench/1"] = Field(alias="schema")
    environment: dict[str, str]
    base: str
    shapes: tuple[str, ...]
    rounds: int
    seed: int
    vocabulary: int
    files: tuple[FileFacts, ...]
    lanes: tuple[BenchLane, ...]

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return a sentence for each lane that is slower than fp32."""
        return tuple(
            f"{lane.name} is slower here than fp32 at {', '.join(lane.slower_than_fp32)}"
            for lane in self.lanes
            if lane.slower_than_fp32
        )


def lane_name(file: str, runtime: str, device: str, threads: int) -> str:
    """Return a lane's readable name: `onnx-fp32@onnxruntime:cpu, 1 thread`."""
    return f"{file}@{runtime}:{device}, {threads} thread{'s' * (threads != 1)}"


def write_bench(report: BenchReport, path: Path) -> None:
    """Write a report as JSON.

    Raises:
        ReportError: the file cannot be written.
    """
    text = json.dumps(report.model_dump(mode="json"), ensure_ascii=False, indent=1, allow_nan=False)
    try:
        with written_whole(path) as temporary:
            temporary.write_text(text + "\n", "utf-8")
    except OSError as error:
        raise ReportError(f"{path} cannot be written: {error.strerror}. Choose another path.") from error


def read_bench(path: Path) -> BenchReport:
    """Read a report back.

    Raises:
        ReportError: the file is missing, not valid JSON, or of another schema; or a field is missing, unknown or
            invalid.
    """
    advice = "Measure again with: bge-export bench FOLDER --output FILE"

    try:
        with reading(path, ReportError, advice=advice):
            return BenchReport.model_validate_json(read_regular(path, REPORT_BYTES))
    except ValidationError as error:
        raise ReportError(f"{path} is not a report of schema {SCHEMA}: {first_fault(error)}. {advice}") from error
