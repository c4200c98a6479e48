"""Progress is ambient: work says how far it is, and the caller decides who sees it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from bge_export.progress import Advance, Display, advance, shown_by, stage


def noting(seen: list[str]) -> Display:
    """Return a display that notes what it shows."""

    @contextmanager
    def display(name: str, total: int) -> Iterator[Advance]:
        seen.append(f"{name} of {total}")
        yield lambda count: seen.append(f"{name} +{count}")
        seen.append(f"{name} ends")

    return display


def work() -> None:
    with stage("work", 3):
        advance()
        advance(2)


def test_a_display_sees_each_step() -> None:
    seen: list[str] = []
    with shown_by(noting(seen)):
        work()
    assert seen == ["work of 3", "work +1", "work +2", "work ends"]


def test_work_is_silent_without_a_display_and_after_it() -> None:
    seen: list[str] = []
    with shown_by(noting(seen)):
        pass
    work()
    assert seen == []


def test_a_step_outside_a_stage_counts_for_none() -> None:
    seen: list[str] = []
    with shown_by(noting(seen)):
        work()
        advance()
    assert seen[-1] == "work ends"


def test_a_stage_that_failed_takes_no_further_steps() -> None:
    seen: list[str] = []
    with shown_by(noting(seen)):
        with pytest.raises(ZeroDivisionError), stage("broken", 1):
            raise ZeroDivisionError
        advance()
    assert seen == ["broken of 1"]


def test_each_thread_has_a_display_of_its_own() -> None:
    first: list[str] = []
    second: list[str] = []

    def call(seen: list[str]) -> None:
        with shown_by(noting(seen)):
            work()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(call, (first, second)))
    assert first == second == ["work of 3", "work +1", "work +2", "work ends"]
