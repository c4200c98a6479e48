"""The records of a bench as a page of Markdown."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from jobs import JOBS, Peer
from recipes import DESCRIPTIONS
from records import FINISHED, LaneFigures, Record, read_record

from bge_export.parity.figures import cosine_figure

HEADER = (
    "| checkpoint | job | everyday min | everyday mean | stress min | verdict | MB | seconds | CPU seconds | peak GiB "
    "| measured |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|"
)
NOTHING = "–"
VERDICTS = {0: "passed", 1: "refused"}


def page(results: Path) -> str:
    """Return one row a record, the checkpoints in the bench's order, then what refused.

    Raises:
        SystemExit: there are no records.
    """
    records = [read_record(path) for path in results.glob("*/*.json")]
    if not records:
        raise SystemExit(f"error: {results} holds no records. Write some with: scripts/int8_bench run FOLDER {results}")

    jobs, checkpoints = list(JOBS), list(DESCRIPTIONS)
    records.sort(key=lambda record: (_rank(record.checkpoint, checkpoints), _rank(record.job, jobs)))
    parts = [_machine(records), "\n".join([HEADER, *map(_row, records)])]

    refused = [line for record in records if (line := _refusal(record))]
    if refused:
        parts.append("\n".join(["Why refused:", "", *refused]))

    return "\n\n".join(parts) + "\n"


def _machine(records: Sequence[Record]) -> str:
    """Return on which machines it was measured, and with which versions of the runtimes."""
    shown = ("cpu", "cores", "bge-export", "onnxruntime", "openvino")
    values = {key: {record.environment.get(key) for record in records} - {None} for key in shown}

    return "Measured on: " + "; ".join(f"{key} {', '.join(sorted(map(str, values[key])))}" for key in shown) + "."


def _row(record: Record) -> str:
    measured = bool(record.lanes)
    cells = [
        record.checkpoint,
        record.job,
        cosine_figure(_least(lane.everyday_min for lane in record.lanes)) if measured else NOTHING,
        cosine_figure(_least(lane.everyday_mean for lane in record.lanes)) if measured else NOTHING,
        cosine_figure(_least(lane.stress_min for lane in record.lanes)) if measured else NOTHING,
        VERDICTS.get(record.status, f"not measured ({record.status})"),
        NOTHING if record.file_bytes is None else f"{record.file_bytes / 1e6:.1f}",
    ]

    # A peer's file is made by this bench: the time and memory are those of measuring alone.
    if isinstance(JOBS.get(record.job), Peer):
        cells += [NOTHING] * 4
    else:
        cells += [f"{record.wall_seconds:.0f}", f"{record.cpu_seconds:.0f}", f"{record.peak_bytes / 2**30:.2f}"]
        cells.append(NOTHING if record.full_measurements is None else f"{record.full_measurements}×")

    return f"| {' | '.join(cells)} |"


def _refusal(record: Record) -> str:
    """Return why a job was refused or not measured, as an item of a list; "" of one that passed."""
    if record.status not in FINISHED:
        last = record.message.strip().splitlines()[-1:] or ["no message"]
        return f"- {record.checkpoint}, {record.job}: {last[0]}"
    if not record.reasons:
        return ""

    counts = ", ".join(f"{rule} {count}" for rule, count in record.reasons.items())
    worst = min(record.lanes, key=_everyday, default=None)
    texts = f"; worst texts: {worst.everyday_worst}, {worst.stress_worst}" if worst else ""
    return f"- {record.checkpoint}, {record.job}: {counts}{texts}"


def _everyday(lane: LaneFigures) -> float:
    return -2.0 if lane.everyday_min is None else lane.everyday_min


def _least(values: Iterable[float | None]) -> float | None:
    """Return the smallest; None where one is undefined, which is worse than any."""
    known = list(values)
    return None if None in known else min(value for value in known if value is not None)


def _rank(name: str, order: Sequence[str]) -> tuple[int, str]:
    """Return a key that sorts what is in `order` as it stands there, and the rest after it by name."""
    return (order.index(name) if name in order else len(order), name)
