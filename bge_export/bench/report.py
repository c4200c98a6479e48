"""What was measured, as a file: facts of one machine at one time, none of them judged."""

import json
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from bge_export.errors import ReportError
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
    """One measured file; `size_bytes` with its external data, `precision` as most of its narrow weights have it."""

    name: str
    format: str
    precision: str
    sha256: str
    size_bytes: int


class LoadFacts(Record):
    """One file in a process of its own.

    Attributes:
        load_seconds: to open it; the runtime's library was imported before. Of a client, from the start of its process.
        before_mib: the process's peak before it was opened: interpreter, numpy, the library. None where the system
            does not say, and of a client, whose process starts with the file.
        peak_mib: its peak after one text of 16 tokens was embedded. None for a browser, which is many processes.
    """

    load_seconds: float
    before_mib: float | None
    peak_mib: float | None


class ShapeTimes(Record):
    """One shape in one lane.

    Attributes:
        seconds: of a run, over the rounds.
        ratio: to the base's time in the same round.
        fp32_ratio: to the fp32 file's time in the same round, if this file is narrower and one was measured.
    """

    shape: str
    seconds: Spread
    ratio: Spread
    fp32_ratio: Spread | None


class BenchLane(Record):
    """One file in one runtime on one device with one number of threads.

    Attributes:
        facts: what the runtime says of itself.
        base: the lane that the ratios are to: the base file in the first runtime that reads it, or in this one.
        ratio: the geometric mean of the ratios over the shapes.
        slower_than_fp32: the shapes in which this narrower file took clearly longer than the fp32 file here.
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
        """Return the lane as people write it."""
        return lane_name(self.file, self.runtime, self.device, self.threads)


class BenchReport(Record):
    """Everything measured in one run.

    Attributes:
        environment: processor, its instructions, versions, the load before the run; no user, host or folder.
        base: the file that the others are compared with.
        rounds: how often each time was taken.
        seed: of the order and of the token ids.
        vocabulary: the ids were drawn from [0, vocabulary).
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
        """Return a sentence for each lane that is slower than fp32 here."""
        return tuple(
            f"{lane.name} is slower here than fp32 at {', '.join(lane.slower_than_fp32)}"
            for lane in self.lanes
            if lane.slower_than_fp32
        )


def lane_name(file: str, runtime: str, device: str, threads: int) -> str:
    """Return a lane as people write it: `onnx-fp32@onnxruntime:cpu, 1 thread`."""
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
        raise ReportError(f"{path} cannot be written: {error.strerror}. Choose another place.") from error


def read_bench(path: Path) -> BenchReport:
    """Read a report back.

    Raises:
        ReportError: the file is missing, no JSON, of another schema, or a field is missing, unknown or no such value.
    """
    advice = "Measure again with: bge-export bench FOLDER --output FILE"
    try:
        return BenchReport.model_validate_json(read_regular(path, REPORT_BYTES))
    except OSError as error:
        raise ReportError(f"{path} cannot be read: {error.strerror}. {advice}") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ReportError(f"{path} is no report of schema {SCHEMA}: {field}: {first['msg']}. {advice}") from error
