"""Memory given back to the system, and C libraries that cannot."""

import ctypes
from pathlib import Path

import pytest

from bge_export.memory import Parked, release


def resident() -> int:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1])


def test_freed_memory_goes_back() -> None:
    if not hasattr(ctypes.CDLL(None), "malloc_trim"):
        pytest.fail("the suite runs on glibc")
    pieces = [bytearray(60_000) for _ in range(4000)]  # below the size that glibc maps by itself
    kept = pieces[-1]
    pieces.clear()
    before = resident()
    release()
    assert before - resident() > 100_000
    assert len(kept) == 60_000


def test_another_c_library_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    release()


def test_a_parked_object_comes_back_and_its_file_goes_with_it() -> None:
    def files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = files()
    parked = Parked({"integers": list(range(1000))})
    assert files() == before + 1
    assert parked.load() == {"integers": list(range(1000))}
    assert parked.load() is not parked.load()
    del parked
    assert files() == before
