"""The stages of a benchmark: memory in fresh processes, then interleaved timing with all files open, then the report.

The timed call is `Session.run`, with the settings that parity uses: it runs the model and copies its outputs to numpy.
Pooling is left out: for bge-small-en it takes less than 0.2 % of the time. A client in another process times the run of
its own model class, also with all files of the run open at the same time.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from bge_export.bench.memory import load_fresh
from bge_export.bench.plan import Entry, Plan
from bge_export.bench.ratios import geometric_mean, paired, spread
from bge_export.bench.report import SCHEMA, BenchLane, BenchReport, FileFacts, LoadFacts, ShapeTimes
from bge_export.bench.shapes import Shape
from bge_export.bench.timing import Clock, Elsewhere, Run, interleave, warm_up
from bge_export.capabilities import ClientRuntime, TimedSession
from bge_export.contracts import Artifact, Session, TokenBatch
from bge_export.errors import ArtifactError, BgeExportError, RuntimeContractError
from bge_export.inspection.doctor import instructions
from bge_export.parity.figures import NONE
from bge_export.parity.measure.environment import describe_environment
from bge_export.parity.measure.measurement import RuntimeDevice
from bge_export.progress import advance

CLEARLY = 1.05
"""A narrower file counts as slower than fp32 if it took longer by this factor in three rounds out of four."""

Load = Callable[[Artifact, RuntimeDevice, int], LoadFacts]
Times = Mapping[tuple[Entry, Shape], NDArray[np.float64]]
"""Entry and shape -> seconds in each round, [rounds]."""


def measure_loads(plan: Plan, load: Load = load_fresh) -> dict[Entry, LoadFacts]:
    """Return load time and memory of each entry; progress counts entries.

    Raises:
        ArtifactError: a file cannot be loaded.
    """
    loads = {}
    for entry in plan.entries:
        loads[entry] = load(entry.file.artifact, entry.device, entry.threads)
        advance()
    return loads


class OpenPlan:
    """Context manager that holds a plan with every session open."""

    def __init__(self, plan: Plan) -> None:
        """Make the batches; no file is opened yet."""
        self._plan = plan
        self._stack = ExitStack()
        self._sessions: dict[Entry, Session] = {}

        self._batches = {shape: shape.batch(plan.vocabulary, plan.seed) for shape in plan.shapes}
        self._groups = [
            [(entry, shape) for entry in plan.entries if entry.threads == threads]
            for shape in plan.shapes
            for threads in plan.threads
        ]
        """Groups to compare: all entries of one shape and one number of threads."""

    def __enter__(self) -> "OpenPlan":
        """Open every file.

        Raises:
            MeasurementError: a file cannot be opened.
        """
        with ExitStack() as stack:  # closes the open sessions if a later one fails
            for entries in self._plan.processes:
                for entry, session in zip(entries, _open(entries), strict=True):
                    self._sessions[entry] = stack.enter_context(closing(session))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Close every file."""
        self._stack.close()

    @property
    def facts(self) -> dict[Entry, dict[str, str]]:
        """Return the facts that each session reports about its runtime."""
        return {entry: {name: str(value) for name, value in one.facts.items()} for entry, one in self._sessions.items()}

    def warm_up(self) -> None:
        """Run every entry in every shape before timing; progress counts pairs of entry and shape.

        Raises:
            MeasurementError: a file cannot be run, or does not return embeddings.
        """
        for entry, shape in (one for group in self._groups for one in group):
            _refuse_broken(entry, shape, self._sessions[entry], self._batches[shape])
        warm_up(self._runs)

    def time(self, seconds: float, clock: Clock = perf_counter) -> Times:
        """Time all runs, interleaved; progress counts seconds."""
        measured = interleave(self._runs, seconds=seconds, seed=self._plan.seed, clock=clock)
        return {
            key: times
            for group, rounds in zip(self._groups, measured, strict=True)
            for key, times in zip(group, rounds, strict=True)
        }

    @property
    def _runs(self) -> list[list[Run]]:
        return [[_run(self._sessions[entry], self._batches[shape]) for entry, shape in group] for group in self._groups]


def _open(entries: Sequence[Entry]) -> Iterator[Session]:
    """Yield the open sessions of one process, one by one, so that the caller can close them if a later one fails."""
    device, threads = entries[0].device, entries[0].threads
    if isinstance(device.runtime, ClientRuntime):
        yield from device.runtime.open_together([entry.file.artifact for entry in entries], device.device, threads)
    else:
        for entry in entries:
            yield device.runtime.open(entry.file.artifact, device.device, threads)


def _run(session: Session, batch: TokenBatch) -> Run:
    once = partial(session.run, batch)
    return Elsewhere(once, partial(session.seconds, batch)) if isinstance(session, TimedSession) else once


def environment_of(plan: Plan) -> dict[str, str]:
    """Return the environment of a run that is about to start; its load shows whether others use the machine."""
    load = f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else NONE
    libraries = describe_environment(device.runtime.library for device in plan.devices)
    return {**libraries, "instructions": " ".join(instructions()), "load": load}


def report_of(
    plan: Plan,
    environment: Mapping[str, str],
    loads: Mapping[Entry, LoadFacts],
    facts: Mapping[Entry, dict[str, str]],
    times: Times,
) -> BenchReport:
    """Return the report of all measurements."""
    files = tuple(
        FileFacts(
            name=file.name,
            format=file.artifact.target.format,
            precision=file.precision,
            sha256=file.sha256,
            size_bytes=file.size_bytes,
        )
        for file in plan.files
    )
    lanes = tuple(_lane(plan, entry, facts[entry], loads[entry], times) for entry in plan.entries)

    return BenchReport(
        schema=SCHEMA,
        environment=dict(environment),
        base=plan.base.name,
        shapes=tuple(str(shape) for shape in plan.shapes),
        rounds=len(next(iter(times.values()))),
        seed=plan.seed,
        vocabulary=plan.vocabulary,
        files=files,
        lanes=lanes,
    )


def _refuse_broken(entry: Entry, shape: Shape, session: Session, batch: TokenBatch) -> None:
    """Raise ArtifactError or RuntimeContractError unless the batch gives one embedding per text: failures are fast."""
    try:
        given = session.run(batch)
    except BgeExportError:
        raise
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        raise ArtifactError(f"{entry.name} cannot run a batch of {shape}: {first}") from error

    if not given or any(len(values) != shape.texts for values in given.values()):
        raise RuntimeContractError(f"{entry.name} did not return one embedding a text for a batch of {shape}")


def _lane(plan: Plan, entry: Entry, facts: dict[str, str], load: LoadFacts, times: Times) -> BenchLane:
    base, fp32 = plan.base_of(entry), plan.fp32_of(entry)

    shapes = tuple(
        ShapeTimes(
            shape=str(shape),
            seconds=spread(times[entry, shape]),
            ratio=paired(times[entry, shape], times[base, shape]),
            fp32_ratio=paired(times[entry, shape], times[fp32, shape]) if fp32 else None,
        )
        for shape in plan.shapes
    )

    return BenchLane(
        file=entry.file.name,
        runtime=entry.device.runtime.name,
        device=entry.device.device,
        threads=entry.threads,
        facts=facts,
        load=load,
        base=base.name,
        ratio=geometric_mean(one.ratio.median for one in shapes),
        times=shapes,
        slower_than_fp32=tuple(_slower(shapes)),
    )


def _slower(shapes: Sequence[ShapeTimes]) -> Iterable[str]:
    return (one.shape for one in shapes if one.fp32_ratio is not None and one.fp32_ratio.low > CLEARLY)
