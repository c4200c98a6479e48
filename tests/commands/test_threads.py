"""Calls from several threads take turns: torch, its tracer and Python's warnings have one state for all threads."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from threading import Barrier, Event

import pytest
from exporting import export_model

from bge_export import commands
from bge_export.commands import write_reference
from bge_export.commands.turns import TURN
from bge_export.exporters import find_exporter
from bge_export.progress import shown_by


def noting(name: str, events: list[str]) -> Callable:
    """Return a display that notes whose stage begins, goes on and ends."""

    @contextmanager
    def track(stage: str, total: int) -> Iterator[Callable[[int], None]]:
        events.append(name)
        yield lambda count: events.append(name)
        events.append(name)

    return track


@pytest.mark.parametrize("other", ["export", "reference"])
def test_calls_from_several_threads_take_turns(other: str, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("one text\n")
    events: list[str] = []
    start = Barrier(2)

    def call(name: str, kind: str) -> None:
        start.wait(60)
        with shown_by(noting(name, events)):
            if kind == "export":
                export_model(find_exporter("onnx"), str(tiny), tmp_path / name, check=False)
            else:
                write_reference(str(tiny), tmp_path / f"{name}.npz", texts=tmp_path / "texts.txt")

    with ThreadPoolExecutor(2) as pool:
        done = [pool.submit(call, "first", "export"), pool.submit(call, "second", other)]
        for one in done:
            one.result(timeout=120)
    assert sorted(name for name, _ in groupby(events)) == ["first", "second"]
    assert len({path.read_bytes() for path in tmp_path.glob("*/onnx/model.onnx")}) == 1


def test_a_call_that_failed_lets_another_thread_in(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("a text that no other test embeds\n")

    def stop(stage: str, total: int) -> Callable:
        raise ZeroDivisionError

    def write() -> object:
        return write_reference(str(tiny), tmp_path / "vectors.npz", texts=tmp_path / "texts.txt")

    with pytest.raises(ZeroDivisionError), shown_by(stop):
        write()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(write).result(timeout=120).ids


@pytest.mark.parametrize(
    "name", ["export", "check_parity", "write_reference", "bisect_artifact", "evaluate_pairs", "bench_files"]
)
def test_whatever_runs_a_model_takes_its_turn(name: str) -> None:
    """A failing argument is enough to see it: nothing is looked at before the turn has come."""
    inside, leave = Event(), Event()

    def hold() -> None:
        with TURN:
            inside.set()
            leave.wait(60)

    with ThreadPoolExecutor(2) as pool:
        pool.submit(hold)
        assert inside.wait(60)
        waiting = pool.submit(getattr(commands, name))
        assert not wait([waiting], timeout=0.5).done
        leave.set()
        with pytest.raises(TypeError):
            waiting.result(timeout=60)
