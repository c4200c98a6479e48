import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from bge_export.bundle_files import MANIFEST
from bge_export.errors import OutputError
from bge_export.manifest import SCHEMA, Manifest, Source, Spec
from bge_export.output import publish, refused_place, staged


def ours(folder: Path) -> Path:
    """Make a folder that bge-export wrote: its only file is `old`."""
    folder.mkdir(parents=True)
    manifest = Manifest(
        schema_=SCHEMA, source=Source(id="m", revision=None, digest="c" * 64, model_type="bert"), models=[], weights=[],
        spec=Spec(dim=8, max_tokens=8, pooling="cls", normalize=True, query_prefix=""), files={"old": "0" * 64},
        checked=True,
    )  # fmt: skip
    (folder / MANIFEST).write_text(manifest.model_dump_json().replace("schema_", "schema"))
    (folder / "old").touch()
    return folder


def fail(out: Path, source: Path) -> None:
    with pytest.raises(ZeroDivisionError), staged(out, source=source):
        raise ZeroDivisionError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


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


@pytest.mark.parametrize("name", ["out", "new [1]*"])
def test_what_a_killed_export_left_is_removed(tmp_path: Path, source: Path, name: str) -> None:
    (tmp_path / f".{name}.bge-export.partial/half").mkdir(parents=True)
    (tmp_path / f".{name}.bge-export.lock").touch()
    write(tmp_path / name, source)
    assert names(tmp_path) == sorted([name, "source"])


def test_siblings_with_other_names_are_never_touched(tmp_path: Path, source: Path) -> None:
    for folder in (".out.999999999.old", ".out.old", ".out1.bge-export.old", "out.old"):
        (tmp_path / folder).mkdir()
    write(tmp_path / "out1", source)
    write(tmp_path / "out?", source)
    assert {".out.999999999.old", ".out.old", "out.old"} < set(names(tmp_path))


KILLED = """
import os, shutil, sys
from pathlib import Path
from bge_export import output

out, source, function, nth, after = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[5]
owner = shutil if function == "rmtree" else os
real = getattr(owner, function)
calls = 0

def killing(*arguments, **named):
    global calls
    calls += 1
    if calls == nth and after == "before":
        os.kill(os.getpid(), 9)
    real(*arguments, **named)
    if calls == nth:
        os.kill(os.getpid(), 9)

setattr(owner, function, killing)
with output.staged(out, source=source) as staging:
    (staging / "new").touch()
    shutil.copy(out / "bge_export.json", staging)
    output.publish(staging, out)
"""
STEPS = [("rename", 1), ("rename", 2), ("rmtree", 1)]


@pytest.mark.parametrize("after", ["before", "after"])
@pytest.mark.parametrize(("function", "nth"), STEPS)
def test_whatever_step_an_export_is_killed_at_nothing_of_the_users_is_lost(
    tmp_path: Path, source: Path, function: str, nth: int, after: str
) -> None:
    out = ours(tmp_path / "out")
    (out / "README.md").write_text("a card")
    command = [sys.executable, "-c", KILLED, str(out), str(source), function, str(nth), after]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    fail(out, source)  # the next export, whatever becomes of it, finds things as they were
    assert names(tmp_path) == ["out", "source"]
    swapped = (function, nth, after) not in [("rename", 1, "before"), ("rename", 1, "after"), ("rename", 2, "before")]
    assert names(out) == ["README.md", MANIFEST, "new" if swapped else "old"]
    assert (out / "README.md").read_text() == "a card"


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("nth", [1, 2])
def test_an_export_that_is_stopped_while_it_swaps_folders_undoes_it(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, nth: int, after: bool, error: type[BaseException]
) -> None:
    out = ours(tmp_path / "out")
    (out / "README.md").write_text("a card")
    real, calls = os.rename, []

    def stopping(*arguments: object) -> None:
        calls.append(arguments)
        if after or len(calls) != nth:
            real(*arguments)
        if len(calls) == nth:
            raise error

    monkeypatch.setattr(os, "rename", stopping)
    with pytest.raises(error):
        write(out, source)
    assert names(tmp_path) == ["out", "source"]
    assert names(out) == (["README.md", "new"] if (nth, after) == (2, True) else ["README.md", MANIFEST, "old"])


def test_a_folder_that_was_set_aside_is_never_removed_where_something_else_stands_in_its_place(
    tmp_path: Path, source: Path
) -> None:
    ours(tmp_path / ".out.bge-export.old")
    (tmp_path / ".out.bge-export.partial").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.tex").touch()
    for _ in range(2):
        with pytest.raises(OutputError, match=r"\.out\.bge-export\.old is what stood at .*Move one of them away"):
            write(tmp_path / "out", source)
    assert (tmp_path / "out/thesis.tex").exists()
    (tmp_path / "out/thesis.tex").unlink()
    fail(tmp_path / "out", source)  # an empty folder gives way
    assert (tmp_path / "out/old").exists()


def test_of_two_exports_into_one_folder_the_second_is_refused(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out"
    with staged(out, source=source) as staging:
        for place in (out, refused_place(out)):
            with pytest.raises(OutputError, match="Another export writes"):
                write(place, source)
        write(tmp_path / "other", source)
        (staging / "first").touch()
        publish(staging, out)
    assert names(out) == ["first"]
    write(ours(tmp_path / "third"), source)
    assert names(tmp_path) == ["other", "out", "source", "third"]


def test_what_others_put_there_stays_as_it_is(tmp_path: Path, source: Path) -> None:
    out = ours(tmp_path / "out")
    (out / "docs/empty").mkdir(parents=True)
    (out / "docs/run.sh").write_text("#!")
    (out / "docs/run.sh").chmod(0o750)
    (out / "dangling").symlink_to("nowhere")
    (out / "linked").symlink_to("../source")
    (source / "weights").touch()
    before = (out / "docs/run.sh").stat()
    os.link(out / "docs/run.sh", tmp_path / "elsewhere.sh")
    write(out, source)
    assert names(out) == ["dangling", "docs", "linked", "new"]
    assert names(out / "docs") == ["empty", "run.sh"]
    assert (out / "dangling").readlink() == Path("nowhere")
    assert (out / "linked").readlink() == Path("../source")
    after = (out / "docs/run.sh").stat()
    assert (stat.S_IMODE(after.st_mode), after.st_mtime) == (0o750, before.st_mtime)
    assert after.st_nlink == 1
    assert (source / "weights").exists()


def test_what_others_put_there_while_an_export_ran_stays(tmp_path: Path, source: Path) -> None:
    out = ours(tmp_path / "out")
    with staged(out, source=source) as staging:
        (out / "notes").write_text("written meanwhile")
        publish(staging, out)
    assert (out / "notes").read_text() == "written meanwhile"


def test_notes_in_the_place_of_refused_exports_stay_there(tmp_path: Path, source: Path) -> None:
    out, place = ours(tmp_path / "out"), ours(tmp_path / "out.refused")
    (out / "README.md").touch()
    (place / "notes").write_text("why")
    with staged(out, source=source) as staging:
        (staging / "new").touch()
        publish(staging, refused_place(out))
    assert names(place) == ["new", "notes"]
    assert names(out) == ["README.md", MANIFEST, "old"]


def test_a_name_that_the_export_needs_is_not_taken_from_others(tmp_path: Path, source: Path) -> None:
    out = ours(tmp_path / "out")
    (out / "new").write_text("mine")
    with pytest.raises(OutputError, match="out/new was not written by bge-export"):
        write(out, source)
    assert (out / "new").read_text() == "mine"


def test_a_model_of_others_is_named_before_anything_is_done(tmp_path: Path, source: Path) -> None:
    out = ours(tmp_path / "out")
    (out / "onnx").mkdir()
    (out / "onnx/model_int8.onnx").touch()
    with pytest.raises(OutputError, match=r"onnx/model_int8\.onnx is a model, .* bge-export did not write it"):
        write(out, source)


def test_a_folder_whose_manifest_cannot_be_read_is_not_replaced(tmp_path: Path, source: Path) -> None:
    out = ours(tmp_path / "out")
    (out / MANIFEST).write_text("{")
    with pytest.raises(OutputError, match="nothing tells which files there are yours"):
        write(out, source)


@pytest.mark.parametrize("name", [".", "..", "../../here", "../here/sub/..", "/"])
def test_the_folder_one_is_in_is_no_output(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    ours(tmp_path / "here")
    (tmp_path / "here/sub").mkdir()
    monkeypatch.chdir(tmp_path / "here" / ("sub" if name == "../../here" else ""))
    model = tmp_path.parent / f"{tmp_path.name}-checkpoint"
    model.mkdir()
    with pytest.raises(OutputError, match="the folder you are in" if name != "/" else "around it"):
        write(Path(name), model)
    assert names(tmp_path) == ["here", "source"]


def test_the_place_of_refused_exports_is_not_pulled_from_under_who_looks_at_it(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ours(tmp_path / "out.refused"))
    with pytest.raises(OutputError, match=r"out\.refused is the folder you are in"):
        write(tmp_path / "out", source)


def test_what_cannot_be_copied_is_named_before_anything_is_done(tmp_path: Path, source: Path) -> None:
    out = ours(tmp_path / "out")
    os.mkfifo(out / "pipe")
    with pytest.raises(OutputError, match="out/pipe was not written by bge-export and cannot be copied"):
        write(out, source)


def test_a_mount_point_is_no_output(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == tmp_path / "out")
    with pytest.raises(OutputError, match="mount point"):
        write(tmp_path / "out", source)


def test_a_folder_in_a_file_is_said(tmp_path: Path, source: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file is not a folder, so .* cannot be in it"):
        write(tmp_path / "file/deep/out", source)


def test_a_refused_checkpoint_folder_is_left_without_a_trace(tmp_path: Path, source: Path) -> None:
    with pytest.raises(OutputError, match="checkpoint itself"):
        write(source / "a/b/out", source)
    assert names(source) == []
