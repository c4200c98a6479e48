"""The processor and the peak memory of a process, each read in one way by every caller."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import bge_export
from bge_export.files import proc
from bge_export.parity.measure.environment import describe_environment

MIB = 1 << 20
INTEL = "processor\t: 0\nmodel\t\t: 143\nmodel name\t: Intel(R) Xeon(R): 2.10GHz\nflags\t\t: fpu avx2 avx512_vnni\n"
ARM = "processor\t: 0\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd asimddp\n\nModel\t\t: Raspberry Pi 5 Model B\n"


def told(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str | bytes | None) -> None:
    """Let this text stand for `/proc/cpuinfo`; None: the system has none."""
    path = folder / "cpuinfo"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    monkeypatch.setattr(proc, "CPU_INFO", path)


@pytest.mark.parametrize("word", ["cpuinfo", "VmHWM", "ru_maxrss"])
def test_one_module_alone_reads_it(word: str) -> None:
    package = Path(bge_export.__file__).parent
    readers = [path for path in package.rglob("*.py") if word in path.read_text("utf-8")]
    assert [path.relative_to(package).as_posix() for path in readers] == ["files/proc.py"]


@pytest.mark.parametrize(
    ("text", "name", "features"),
    [
        (INTEL, "Intel(R) Xeon(R): 2.10GHz", {"fpu", "avx2", "avx512_vnni"}),
        (ARM, "Raspberry Pi 5 Model B", {"fp", "asimd", "asimddp"}),
        (b"model name\t: \xff\xfe\n", "\ufffd\ufffd", set()),
    ],
)
def test_name_and_features_of_a_processor(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | bytes, name: str, features: set[str]
) -> None:
    told(monkeypatch, tmp_path, text)
    assert proc.processor_name() == name
    assert proc.processor_features() == features


@pytest.mark.parametrize("text", [None, "", "processor\t: 0\n"])
def test_a_system_that_does_not_tell_still_has_a_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None
) -> None:
    told(monkeypatch, tmp_path, text)
    assert proc.processor_name()
    assert proc.processor_features() == set()


def test_a_report_names_the_processor_as_doctor_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told(monkeypatch, tmp_path, ARM)
    assert describe_environment([])["cpu"] == "Raspberry Pi 5 Model B"


def test_the_peak_of_this_process_grows_and_never_falls() -> None:
    before = proc.peak_bytes()
    assert before is not None
    block = b"x" * (before + 64 * MIB)
    after = proc.peak_bytes()
    assert after is not None
    assert after >= before + 64 * MIB
    del block
    assert proc.peak_bytes() == pytest.approx(after, rel=0.1)


def test_the_peak_of_another_process_is_known_while_it_runs() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert child.stdout is not None
        child.stdout.readline()  # the interpreter has started
        peak = proc.peak_bytes(child.pid)
    finally:
        child.communicate(b"\n")

    assert peak is not None
    assert MIB < peak < 100 * MIB
    assert proc.peak_bytes(child.pid) is None


def test_a_system_without_proc_is_asked_for_this_process_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    known = proc.peak_bytes()
    monkeypatch.setattr(proc, "PROCESSES", tmp_path)
    asked = proc.peak_bytes()
    assert known is not None
    assert asked is not None
    assert asked >= 0.9 * known  # the system counts the parent's peak too
    assert proc.peak_bytes(os.getpid()) is None
