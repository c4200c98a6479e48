"""Times things against each other in one run, so that what disturbs the machine disturbs all of them alike.

Pure: it calls what it is given and reads the clock it is given.

One round visits everything once. The order of the groups, and within a group, is shuffled anew each round: nothing
always follows the same neighbour, and things of one group, which are compared, are visited close in time. A visit
begins with a run that is not timed, because the one before it left the caches (and the threads, which wait for work in
a loop) to another model. Its figure is the median of the runs that follow, until `VISIT_SECONDS` have passed.
"""

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Run = Callable[[], object]
Clock = Callable[[], float]


@dataclass(frozen=True)
class Elsewhere:
    """A run in another process.

    Attributes:
        run: runs it once.
        visit: one untimed run, and then the median seconds, by that process's clock, over so many seconds of runs.
    """

    run: Run
    visit: Callable[[float], float]

    def __call__(self) -> object:
        """Run it once."""
        return self.run()


VISIT_SECONDS = 0.05
MIN_ROUNDS = 5
"""Fewer have no quartiles worth the name."""
WARM_UPS = 2


def warm_up(groups: Sequence[Sequence[Run]], advance: Callable[[int], None] = lambda _: None) -> None:
    """Run everything a few times: the first run of a shape plans, allocates and compiles."""
    for runs in groups:
        for run in runs:
            for _ in range(WARM_UPS):
                run()
            advance(1)


def interleave(
    groups: Sequence[Sequence[Run]],
    *,
    seconds: float,
    seed: int,
    clock: Clock = time.perf_counter,
    advance: Callable[[int], None] = lambda _: None,
) -> list[NDArray[np.float64]]:
    """Time runs round by round; a round that was begun is finished.

    Args:
        groups: runs that are compared with each other stand in one group.
        seconds: no round begins after these, but for the first `MIN_ROUNDS`.
        seed: of the order.
        clock: seconds that only grow.
        advance: called with the whole seconds that have passed.

    Returns:
        For each group [runs, rounds] float64, in seconds.
    """
    shuffled = random.Random(seed)  # noqa: S311 - an order, no secret
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
    run()
    times: list[float] = []
    begin = clock()
    while not times or clock() - begin < VISIT_SECONDS:
        before = clock()
        run()
        times.append(clock() - before)
    return statistics.median(times)
