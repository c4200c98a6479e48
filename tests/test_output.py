import os
from pathlib import Path

import pytest

from bge_export.bundle_files import MANIFEST
from bge_export.errors import OutputError
from bge_export.output import publish, refused_place, staged


def ours(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / MANIFEST).write_text("{}")
    (folder / "old").touch()
    return folder


def write(out: Path, source: Path) -> None:
    with staged(out, source=source) as staging:
        (staging / "new").touch()
        publish(staging, out)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


def test_a_folder_appears_whole(tmp_path: Path, source: Path) -> None:
    write(tmp_path / "a/b/out", source)
    assert [p.name for p in (tmp_path / "a/b").iterdir()] == ["out"]
    assert [p.name for p in (tmp_path / "a/b/out").iterdir()] == ["new"]


def test_an_empty_folder_is_filled(tmp_path: Path, source: Path) -> None:
    (tmp_path / "out").mkdir()
    write(tmp_path / "out", source)
    assert (tmp_path / "out/new").exists()


def test_nothing_is_left_when_the_work_fails(tmp_path: Path, source: Path) -> None:
    def fail_half_way() -> None:
        with staged(tmp_path / "out", source=source) as staging:
            (staging / "half").touch()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


def test_an_old_export_is_kept_when_the_new_one_fails(tmp_path: Path, source: Path) -> None:
    out = ours(tmp_path / "out")
    with pytest.raises(RuntimeError), staged(out, source=source):
        raise RuntimeError
    assert (out / "old").exists()


def test_a_new_export_replaces_the_whole_folder(tmp_path: Path, source: Path) -> None:
    write(ours(tmp_path / "out"), source)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["new"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "source"]


def test_a_folder_of_others_is_never_touched(tmp_path: Path, source: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.tex").touch()
    with pytest.raises(OutputError, match="did not write"):
        write(tmp_path / "out", source)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="not a folder"):
        write(tmp_path / "file", source)


@pytest.mark.parametrize("out", ["source", "source/inside", "."])
def test_the_checkpoint_is_never_the_output(tmp_path: Path, source: Path, out: str) -> None:
    ours(tmp_path / "source2")
    (source / MANIFEST).write_text("{}")
    with pytest.raises(OutputError, match="checkpoint itself"):
        write(tmp_path / out, source)


def test_a_link_to_the_checkpoint_is_the_checkpoint(tmp_path: Path, source: Path) -> None:
    (tmp_path / "out").symlink_to(source)
    with pytest.raises(OutputError):
        write(tmp_path / "out", source)
    assert source.is_dir()


def test_an_over_long_path_is_said(tmp_path: Path, source: Path) -> None:
    with pytest.raises(OutputError, match="File name too long"):
        write(tmp_path / ("x" * 300), source)


def test_a_place_of_a_refused_export_that_is_not_ours_is_kept(tmp_path: Path, source: Path) -> None:
    place = refused_place(tmp_path / "out")
    place.mkdir()
    (place / "notes").touch()
    with pytest.raises(OutputError, match=r"out\.refused"):
        write(tmp_path / "out", source)


def test_what_killed_processes_left_is_swept_and_what_live_ones_have_is_kept(tmp_path: Path, source: Path) -> None:
    dead = tmp_path / ".out.999999999.partial"
    live = tmp_path / f".out.{os.getppid()}.partial"
    for folder in (dead, live):
        folder.mkdir()
    write(tmp_path / "out", source)
    assert not dead.exists()
    assert live.exists()


def test_a_refused_export_has_a_place_whatever_the_folder_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert refused_place(Path("out")) == Path("out.refused")
    assert refused_place(Path()) == tmp_path / "here.refused"
    assert refused_place(Path("..")) == tmp_path.with_name(tmp_path.name + ".refused")
