"""What was measured of one job on one checkpoint, as a file that appears whole or not at all."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bge_export.files.single import written_whole

FINISHED = (0, 1)
"""Exit statuses of a job that ended with a verdict; any other is tried again by the next run."""


@dataclass(frozen=True)
class LaneFigures:
    """How near one lane's vectors are to the checkpoint's; None where a row has no such number.

    Attributes:
        lane: such as `onnx-int8@onnxruntime:cpu last_hidden_state`.
        everyday_min, everyday_mean: smallest and mean cosine over everyday texts.
        everyday_worst: id of the text that has the smallest.
        stress_min, stress_mean, stress_worst: likewise over stress texts.
        max_abs: the largest difference of one component over all texts.
    """

    lane: str
    everyday_min: float | None
    everyday_mean: float | None
    everyday_worst: str
    stress_min: float | None
    stress_mean: float | None
    stress_worst: str
    max_abs: float | None


@dataclass(frozen=True)
class Record:
    """One job on one checkpoint.

    Attributes:
        checkpoint, job: the names of both.
        status: exit status: 0 passed, 1 refused, else it could not be measured.
        wall_seconds, cpu_seconds: of the command and the processes that it waited for.
        peak_bytes: resident memory of the largest of these processes.
        full_measurements: how many times all texts were measured; None where the output does not say.
        file_bytes: of the files of the target; None where there are none.
        lanes: figures of each lane that measured the target.
        reasons: rule -> how many times it refused; with a kind of text after a slash where it is about one.
        message: the end of the output of a job that has no verdict.
        environment: the machine and its libraries, as the report names them.
    """

    checkpoint: str
    job: str
    status: int
    wall_seconds: float
    cpu_seconds: float
    peak_bytes: int
    full_measurements: int | None
    file_bytes: int | None
    lanes: Sequence[LaneFigures]
    reasons: dict[str, int]
    message: str
    environment: dict[str, str]


def record_path(results: Path, checkpoint: str, job: str) -> Path:
    """Return the file of a record."""
    return results / checkpoint / f"{job}.json"


def write_record(results: Path, record: Record) -> None:
    """Write a record in place of an older one."""
    path = record_path(results, record.checkpoint, record.job)
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as file:
        file.write_text(json.dumps(asdict(record), indent=2, ensure_ascii=False) + "\n", "utf-8")


def read_record(path: Path) -> Record:
    """Return the record in a file."""
    fields = json.loads(path.read_text("utf-8"))
    lanes = [LaneFigures(**lane) for lane in fields.pop("lanes")]
    return Record(lanes=lanes, **fields)


def is_finished(results: Path, checkpoint: str, job: str) -> bool:
    """Return whether a job needs no other run."""
    path = record_path(results, checkpoint, job)
    return path.is_file() and read_record(path).status in FINISHED
