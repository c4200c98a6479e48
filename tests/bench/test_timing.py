"""Timing against a clock that moves only when something runs."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import pytest

from bge_export.bench import timing
from bge_export.bench.timing import MIN_ROUNDS, WARM_UPS, interleave, warm_up
from bge_export.progress import shown_by, stage


@dataclass
class World:
    """A clock, and what ran in which order."""

    now: float = 0.0
    ran: list[str] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    def run(self, name: str, *seconds: float) -> Callable[[], None]:
        """Return a run that takes `seconds`, one after the other, the last for ever."""
        left = list(seconds)

        def run() -> None:
            self.ran.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return run

    def visits(self, size: int) -> list[list[str]]:
        """Return the names in the order of the visits, round by round: of two runs each, if none is short."""
        order = self.ran[::2]
        assert order == self.ran[1::2]
        return [order[start : start + size] for start in range(0, len(order), size)]


@pytest.fixture
def world() -> World:
    return World()


def timed(world: World, groups: Sequence[Sequence[Callable[[], None]]], seconds: float = 0, seed: int = 0):
    return interleave(groups, seconds=seconds, seed=seed, clock=world.clock)


def test_each_run_gets_its_own_seconds_in_every_round(world: World) -> None:
    first, second = timed(world, [[world.run("a", 1.0), world.run("b", 2.0)], [world.run("c", 3.0)]])
    assert first.shape == (2, MIN_ROUNDS)
    assert first.tolist() == [[1.0] * MIN_ROUNDS, [2.0] * MIN_ROUNDS]
    assert second.tolist() == [[3.0] * MIN_ROUNDS]


def test_the_first_run_of_a_visit_is_not_timed(world: World) -> None:
    slow_first = world.run("a", *[9.0, 1.0] * MIN_ROUNDS)
    assert timed(world, [[slow_first]])[0].tolist() == [[1.0] * MIN_ROUNDS]


def test_a_short_run_is_repeated_and_its_median_taken(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "VISIT_SECONDS", 4.0)
    visit = [5.0, 1.0, 1.0, 7.0]  # one untimed, then three until 4 s have passed: their median is 1
    assert timed(world, [[world.run("a", *visit * MIN_ROUNDS)]])[0].tolist() == [[1.0] * MIN_ROUNDS]


def test_rounds_are_made_until_the_seconds_are_over_and_finished(world: World) -> None:
    (times,) = timed(world, [[world.run("a", 1.0), world.run("b", 1.0)]], seconds=30)
    assert times.shape == (2, 8)  # four seconds a round: the eighth begins at 28


def test_a_slow_machine_still_gets_its_rounds(world: World) -> None:
    assert timed(world, [[world.run("a", 100.0)]], seconds=1)[0].shape == (1, MIN_ROUNDS)


def test_every_round_visits_everything_once_in_another_order_group_by_group(world: World) -> None:
    names = [["a1", "a2", "a3"], ["b1", "b2", "b3"]]
    timed(world, [[world.run(name, 1.0) for name in group] for group in names], seconds=300)
    rounds = world.visits(6)
    assert len(rounds) > 20
    for visited in rounds:
        assert sorted([sorted(visited[:3]), sorted(visited[3:])]) == names
    assert {visited[0] for visited in rounds} == {"a1", "a2", "a3", "b1", "b2", "b3"}


def test_the_seed_makes_the_order() -> None:
    orders = []
    for seed in (1, 1, 2):
        world = World()
        timed(world, [[world.run(name, 1.0) for name in "abcd"]], seed=seed)
        orders.append(world.ran)
    assert orders[0] == orders[1] != orders[2]


def test_everything_is_warmed_up_before(world: World) -> None:
    told: list[int] = []
    with shown_by(lambda name, total: nullcontext(told.append)), stage("warming up", 2):
        warm_up([[world.run("a", 1.0)], [world.run("b", 1.0)]])
    assert world.ran == ["a"] * WARM_UPS + ["b"] * WARM_UPS
    assert told == [1, 1]


def test_progress_counts_whole_seconds(world: World) -> None:
    told: list[int] = []
    with shown_by(lambda name, total: nullcontext(told.append)), stage("timing", 12):
        interleave([[world.run("a", 0.6)]], seconds=12, seed=0, clock=world.clock)
    assert sum(told) == int(world.now)
    assert set(told) == {1, 2}
