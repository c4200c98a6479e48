"""Runs jobs on checkpoints, one after the other, and records each; those that are recorded are left out."""

import json
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from child import Ran, run
from figures import lane_figures, reasons
from jobs import JOBS, Export
from kinds import kinds_by_id
from peers import present_as_int8
from records import FINISHED, Record, is_finished, record_path, write_record

from bge_export.bundle.integrity import REPORT
from bge_export.bundle.manifest import read_manifest
from bge_export.bundle.staging import refused_folder
from bge_export.parity.report import read_report

COMMAND = (sys.executable, "-m", "bge_export")
FULL_MEASUREMENT = re.compile(r"^measuring\b", re.MULTILINE)
"""The line on standard error that announces that all texts are measured."""

PEERS_LANE = "onnxruntime:cpu"


def run_all(
    checkpoints: Sequence[Path], results: Path, jobs: Sequence[str], *, threads: int | None = None, keep: bool = False
) -> None:
    """Run jobs on checkpoints.

    Args:
        checkpoints: folders; a record is named after the folder.
        results: where records go, and what the commands printed.
        jobs: keys of JOBS.
        threads: of each command; None for its default, which is all cores.
        keep: whether what was exported is left in `results` to look at.
    """
    for checkpoint in checkpoints:
        for job in jobs:
            if is_finished(results, checkpoint.name, job):
                continue

            record = run_one(checkpoint, results, job, threads=threads, keep=keep)
            write_record(results, record)
            print(
                f"{checkpoint.name}, {job}: status {record.status}, {record.wall_seconds:.0f} s, "
                f"peak {record.peak_bytes / 2**30:.2f} GiB: {record_path(results, checkpoint.name, job)}",
                flush=True,
            )


def run_one(checkpoint: Path, results: Path, name: str, *, threads: int | None, keep: bool) -> Record:
    """Run one job and return its record."""
    work = results / checkpoint.name / name
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    folder = work / "folder"
    job = JOBS[name]
    own = () if threads is None else ("--threads", str(threads))

    if isinstance(job, Export):
        ran = run([*COMMAND, job.command, checkpoint, "-o", folder, *job.options, *own, "--json"], work)
    else:
        ran = run([*COMMAND, "onnx", checkpoint, "-o", folder, "--no-check", *own], work)
        if ran.status == 0:
            present_as_int8(folder, checkpoint, per_channel=job.per_channel)
            lane = ("--runtime", PEERS_LANE)
            ran = run([*COMMAND, "parity", folder, "--reference", checkpoint, *lane, *own, "--json"], work)

    record = _record(checkpoint.name, name, ran, folder)
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(refused_folder(folder), ignore_errors=True)
    return record


def _record(checkpoint: str, name: str, ran: Ran, folder: Path) -> Record:
    """Return the record of a command that has ended; `folder` is where it was to write."""
    record = Record(
        checkpoint=checkpoint,
        job=name,
        status=ran.status,
        wall_seconds=ran.wall_seconds,
        cpu_seconds=ran.cpu_seconds,
        peak_bytes=ran.peak_bytes,
        full_measurements=len(FULL_MEASUREMENT.findall(ran.stderr)) or None,
        file_bytes=None,
        lanes=[],
        reasons={},
        message="",
        environment={},
    )
    if ran.status not in FINISHED:
        return replace(record, message=(ran.stderr or ran.stdout)[-2000:])

    target = JOBS[name].target
    found = _folder_of(target, folder)
    report = read_report(found / REPORT)
    kinds = kinds_by_id(report)
    return replace(
        record,
        file_bytes=_file_bytes(found, target),
        lanes=lane_figures(report, target, kinds),
        reasons=reasons(json.loads(ran.stdout)["failures"], kinds),
        environment=next(iter(report.runs.values())).environment,
    )


def _folder_of(target: str, folder: Path) -> Path:
    """Return the folder that holds a target: the one that was asked for, or the refused one beside it."""
    for found in (folder, refused_folder(folder)):
        if found.is_dir() and target in {model.target for model in read_manifest(found).models}:
            return found

    raise SystemExit(
        f"error: neither {folder} nor {refused_folder(folder)} holds {target}, though a verdict was given."
    )


def _file_bytes(folder: Path, target: str) -> int:
    (model,) = [model for model in read_manifest(folder).models if model.target == target]
    return sum((folder / name).stat().st_size for name in model.files)
