import hashlib
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import SPEC

from bge_export.bundle.integrity import GENERATED_CARD, MANIFEST
from bge_export.bundle.manifest import SCHEMA, Manifest, Source
from bge_export.bundle.staging import publish, refused_folder, staged
from bge_export.errors import OutputError
from bge_export.files.spec import SpecRecord

OLD = "old.onnx"
EMPTY = hashlib.sha256(b"").hexdigest()


def ours(folder: Path, **listed: str) -> Path:
    """Make a folder that bge-export wrote: its only file is `OLD`, unless it lists others."""
    folder.mkdir(parents=True)
    manifest = Manifest(
        schema_=SCHEMA, source=Source(id="m", revision=None, digest="c" * 64, model_type="bert"), models=[], weights=[],
        spec=SpecRecord.of(SPEC),
        files={OLD: EMPTY, **listed},
        checked=True,
    )  # fmt: skip
    (folder / MANIFEST).write_text(manifest.model_dump_json().replace("schema_", "schema"))
    (folder / OLD).touch()
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
    assert (out / OLD).exists()


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
    folder = refused_folder(tmp_path / "out")
    folder.mkdir()
    (folder / "notes").touch()
    with pytest.raises(OutputError, match=r"out\.refused"):
        write(tmp_path / "out", source)


@pytest.mark.parametrize("name", ["out", "new [1]*"])
def test_what_a_killed_export_left_is_removed(tmp_path: Path, source: Path, name: str) -> None:
    (tmp_path / f".{name}.bge-export.partial/half").mkdir(parents=True)
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
from bge_export.bundle import staging as output

out, source, nth = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
calls = 0

def killing(real):
    def call(*arguments, **named):
        global calls
        calls += 1
        if calls == nth:
            os.kill(os.getpid(), 9)
        return real(*arguments, **named)
    return call

for name in ("rename", "replace", "link", "unlink", "remove", "rmdir", "mkdir", "utime", "chmod"):
    setattr(os, name, killing(getattr(os, name)))
with output.staged(out, source=source) as staging:
    (staging / "onnx").mkdir()
    (staging / "onnx/model.onnx").write_text("new")
    shutil.copyfile(out / "bge_export.json", staging / "bge_export.json")
    output.publish(staging, out)
"""


def test_whatever_step_an_export_is_killed_at_nothing_of_the_users_is_lost(tmp_path: Path, source: Path) -> None:
    """Killed before each operation on a file in turn, until none is left to be killed at."""
    swapped: list[bool] = []
    for nth in range(1, 100):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        out = ours(tmp_path / "out", **{"onnx/model.onnx": hashlib.sha256(b"old").hexdigest()})
        (out / "onnx/notes").mkdir(parents=True)
        (out / "onnx/model.onnx").write_text("old")
        users = [out / "README.md", out / "docs/deep/run.sh", out / "onnx/notes/why", out / "thesis.tex"]
        for path in users:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(path.name)
        before = {path: path.stat().st_ino for path in users}
        status = subprocess.run([sys.executable, "-c", KILLED, str(out), str(source), str(nth)], check=False).returncode
        assert status in (0, -signal.SIGKILL)
        fail(out, source)  # the next export, whatever becomes of it, finds things whole
        assert names(tmp_path) == ["out", "source"]
        assert {path: path.stat().st_ino for path in users} == before
        swapped.append((out / "onnx/model.onnx").read_text() == "new")
        assert (out / OLD).exists() != swapped[-1]
        if status == 0:
            break
    assert swapped[-1]
    assert swapped == sorted(swapped), "once the new folder has come to stand it stays"
    assert swapped.count(False) >= 4
    assert swapped.count(True) >= 10


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("nth", [1, 2, 3])
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
    with pytest.raises(OutputError if (nth, error) == (3, OSError) else error):
        write(out, source)
    assert names(tmp_path) == ["out", "source"]
    new = (nth, after) == (2, True) or nth == 3
    assert names(out) == (["README.md", "new"] if new else ["README.md", MANIFEST, OLD])


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
    assert (tmp_path / "out" / OLD).exists()


def test_of_two_exports_into_one_folder_the_second_is_refused(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out"
    with staged(out, source=source) as staging:
        for folder in (out, refused_folder(out)):
            with pytest.raises(OutputError, match="Another export writes"):
                write(folder, source)
        write(tmp_path / "other", source)
        (staging / "first").touch()
        publish(staging, out)
    assert names(out) == ["first"]
    write(ours(tmp_path / "third"), source)
    assert names(tmp_path) == ["other", "out", "source", "third"]


def identity(path: Path) -> tuple[object, ...]:
    """Return what a copy of a file or folder would not have, or not surely."""
    state = path.lstat()
    return (state.st_ino, state.st_mode, state.st_uid, state.st_gid, state.st_nlink, state.st_blocks, state.st_mtime_ns)


def test_what_others_put_there_stays_as_it_is(tmp_path: Path, source: Path) -> None:
    out = ours(tmp_path / "out")
    (out / "docs/empty").mkdir(parents=True)
    (out / "docs/run.sh").write_text("#!")
    (out / "docs/run.sh").chmod(0o750)
    (out / "docs").chmod(0o710)
    (out / "dangling").symlink_to("nowhere")
    (out / "linked").symlink_to("../source")
    os.mkfifo(out / "pipe")
    os.link(out / "docs/run.sh", tmp_path / "elsewhere.sh")
    os.link(out / "docs/run.sh", out / "twice.sh")
    with (out / "sparse").open("wb") as file:
        file.truncate(1 << 30)
    if os.geteuid() == 0:
        os.chown(out / "sparse", 12345, 12346)
    before = {path: identity(path) for path in out.rglob("*") if path.name not in (OLD, MANIFEST)}
    write(out, source)
    assert names(out) == ["dangling", "docs", "linked", "new", "pipe", "sparse", "twice.sh"]
    assert {path: identity(path) for path in before} == before
    assert (out / "linked").readlink() == Path("../source")
    assert (tmp_path / "elsewhere.sh").samefile(out / "docs/run.sh")


def test_a_folder_that_both_have_keeps_what_others_put_into_it(tmp_path: Path, source: Path) -> None:
    out = ours(tmp_path / "out")
    (out / "onnx").mkdir()
    (out / "onnx/notes").write_text("mine")
    (out / "onnx").chmod(0o750)
    before = identity(out / "onnx/notes")
    with staged(out, source=source) as staging:
        (staging / "onnx").mkdir()
        (staging / "onnx/model.onnx").touch()
        publish(staging, out)
    assert names(out / "onnx") == ["model.onnx", "notes"]
    assert identity(out / "onnx/notes") == before
    assert stat.S_IMODE((out / "onnx").stat().st_mode) == 0o750


@pytest.mark.parametrize("newer", [False, True])
def test_a_generated_card_gives_way_to_a_newer_one_alone(tmp_path: Path, source: Path, newer: bool) -> None:
    out = ours(tmp_path / "out")
    (out / "README.md").write_text(f"{GENERATED_CARD}\nold")
    with staged(out, source=source) as staging:
        if newer:
            (staging / "README.md").write_text(f"{GENERATED_CARD}\nnew")
        (staging / "new").touch()
        publish(staging, out)
    assert (out / "README.md").read_text().endswith("new" if newer else "old")
    assert names(tmp_path) == ["out", "source"]


def test_what_another_process_writes_meanwhile_stays(tmp_path: Path, source: Path) -> None:
    out = ours(tmp_path / "out")
    with (out / "log").open("a") as log, staged(out, source=source) as staging:
        log.write("before, ")
        publish(staging, out)
        log.write("after")
    assert (out / "log").read_text() == "before, after"


def test_what_comes_while_folders_are_swapped_stays(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = ours(tmp_path / "out")
    (out / "notes").touch()
    inside = os.open(out, os.O_RDONLY)  # as a process does that stands in the folder
    came: list[str] = []

    def writing(function):
        def call(*arguments: object, **named: object) -> object:
            result = function(*arguments, **named)
            if len(came) < 4:
                came.append(f"came{len(came)}")
                os.close(os.open(came[-1], os.O_CREAT | os.O_WRONLY, dir_fd=inside))
            return result

        return call

    for name in ("rename", "unlink"):
        monkeypatch.setattr(os, name, writing(getattr(os, name)))
    write(out, source)
    os.close(inside)
    assert names(out) == ["came0", "came1", "came2", "came3", "new", "notes"]
    assert names(tmp_path) == ["out", "source"]


@pytest.mark.parametrize("digest", [EMPTY, "0" * 64])
def test_what_a_foreign_manifest_lists_is_no_export_of_ours(tmp_path: Path, source: Path, digest: str) -> None:
    listed = dict.fromkeys(["thesis.tex", "data/texts.jsonl", "../victim.onnx", str(tmp_path / "other.onnx")], digest)
    out = ours(tmp_path / "out", **listed)
    (out / "data").mkdir()
    kept = [out / "thesis.tex", out / "data/texts.jsonl", tmp_path / "victim.onnx", tmp_path / "other.onnx"]
    for path in kept:
        path.touch()
    before = [identity(path) for path in kept]
    write(out, source)
    assert [identity(path) for path in kept] == before
    assert names(out) == ["data", "new", "thesis.tex"]


def test_a_listed_file_with_other_bytes_is_not_removed_where_nothing_takes_its_place(
    tmp_path: Path, source: Path
) -> None:
    out = ours(tmp_path / "out")
    (out / OLD).write_text("a model of somebody's own")
    with pytest.raises(OutputError, match=r"old\.onnx is not the file that bge_export\.json lists, so it may be yours"):
        write(out, source)
    assert (out / OLD).read_text() == "a model of somebody's own"
    assert names(tmp_path) == ["out", "source"]
    with staged(out, source=source) as staging:
        (staging / OLD).write_text("exported again")
        publish(staging, out)
    assert (out / OLD).read_text() == "exported again"


def test_what_others_put_there_while_an_export_ran_stays(tmp_path: Path, source: Path) -> None:
    out = ours(tmp_path / "out")
    with staged(out, source=source) as staging:
        (out / "notes").write_text("written meanwhile")
        publish(staging, out)
    assert (out / "notes").read_text() == "written meanwhile"


def test_notes_in_the_place_of_refused_exports_stay_there(tmp_path: Path, source: Path) -> None:
    out, refused = ours(tmp_path / "out"), ours(tmp_path / "out.refused")
    (out / "README.md").touch()
    (refused / "notes").write_text("why")
    with staged(out, source=source) as staging:
        (staging / "new").touch()
        publish(staging, refused_folder(out))
    assert names(refused) == ["new", "notes"]
    assert names(out) == ["README.md", MANIFEST, OLD]


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


def test_what_cannot_be_moved_is_named_before_anything_is_done(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = ours(tmp_path / "out")
    (out / "disk/deep").mkdir(parents=True)
    real = os.access
    with monkeypatch.context() as patch:
        patch.setattr(os.path, "ismount", lambda path: Path(path) == out / "disk")
        with pytest.raises(OutputError, match="out/disk was not written by bge-export and is a mount point"):
            fail(out, source)
    with monkeypatch.context() as patch:  # root may write everywhere
        patch.setattr(os, "access", lambda path, mode: Path(path) != out / "disk" and real(path, mode))
        with pytest.raises(OutputError, match="out/disk was not written by bge-export and is write-protected"):
            fail(out, source)
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: Path(path) != out / "disk/deep" and real(path, mode))
        write(out, source)  # it moves with the folder that it lies in
    assert (out / "disk/deep").is_dir()


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
