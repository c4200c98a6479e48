"""Interleaved timing: runs take turns in shuffled rounds, so that a disturbance of the machine affects all of them.

Pure: it only calls the runs and reads the clock that it is given.

One round visits every run once. The order of the groups, and the order within each group, is shuffled in each round: no
run always follows the same neighbour, and the runs of one group, which are compared, are visited close in time. A visit
begins with an untimed run, because the previous run left the caches (and the threads, which spin while they wait for
work) to another model. The visit's result is the median of the runs that follow, until `VISIT_SECONDS` have passed.
"""

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bge_export.progress import advance

Run = Callable[[], object]
Clock = Callable[[], float]


@dataclass(frozen=True)
class Elsewhere:
    """A run in another process.

    Attributes:
        run: runs it once.
        visit: runs it once untimed, then for the given seconds; returns the median seconds by that process's clock.
    """

    run: Run
    visit: Callable[[float], float]

    def __call__(self) -> object:
        """Run it once."""
        return self.run()


VISIT_SECONDS = 0.05
MIN_ROUNDS = 5
"""Quartiles of fewer rounds are meaningless."""
WARM_UPS = 2


def warm_up(groups: Sequence[Sequence[Run]]) -> None:
    """Run everything a few times untimed: the first run of a shape plans, allocates and compiles.

    Progress counts runs.
    """
    for runs in groups:
        for run in runs:
            for _ in range(WARM_UPS):
                run()
            advance()


def interleave(
    groups: Sequence[Sequence[Run]],
    *,
    seconds: float,
    seed: int,
    clock: Clock = time.perf_counter,
) -> list[NDArray[np.float64]]:
    """Time runs round by round; the last round is always finished. Progress counts whole seconds.

    Args:
        groups: groups of runs that are compared with each other.
        seconds: no round begins later than this, except the first `MIN_ROUNDS`.
        seed: seed of the order.
        clock: a monotonic clock, in seconds.

    Returns:
        For each group [runs, rounds] float64, in seconds.
    """
    shuffled = random.Random(seed)  # noqa: S311 - an order, not a secret
    rounds: list[list[list[float]]] = [[[] for _ in runs] for runs in groups]
    start, told, done = clock(), 0, 0

    while done < MIN_ROUNDS or clock() - start < seconds:
        for group in shuffled.sample(range(len(groups)), len(groups)):
            for run in shuffled.sample(range(len(groups[group])), len(groups[group])):
                rounds[group][run].append(_visit(groups[group][run], clock))

        done += 1
        passed = int(clock() - start)
        advance(passed - told)
        told = passed

    return [np.asarray(times, dtype=np.float64) for times in rounds]


def _visit(run: Run, clock: Clock) -> float:
    """Return the median seconds of a run."""
    if isinstance(run, Elsewhere):
        return run.visit(VISIT_SECONDS)

    run()  # untimed: brings the model back into the caches
    times: list[float] = []
    begin = clock()
    while not times or clock() - begin < VISIT_SECONDS:
        before = clock()
        run()
        times.append(clock() - before)

    return statistics.median(times)
