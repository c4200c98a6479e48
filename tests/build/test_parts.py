"""A fleet built in parts, here or on a Ray cluster, ends with the same bytes as one built target after target."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from building import written

from bge_export.build.recipe_file import read_recipe
from bge_export.build.store import LIST, Store
from bge_export.bundle.manifest import read_manifest
from bge_export.cli import run
from bge_export.commands import BuildOptions, Built
from bge_export.commands.fleets.engines import InProcess
from bge_export.commands.fleets.run import build_in_parts
from bge_export.errors import MeasurementError
from bge_export.files.digest import file_digests

SUPPORT = Path(__file__).parents[1] / "support"


def digests(out: Path) -> dict[str, str]:
    return file_digests(out, (path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    one = tmp_path / "one"
    one.mkdir()
    (one / "sub").mkdir()
    (one / "a.txt").write_text("a", "utf-8")
    (one / "sub/b.bin").write_bytes(bytes(1000))
    return one


def listed(store: Path, key: str, files: dict[str, str]) -> None:
    (store / key).mkdir(parents=True)
    (store / key / LIST).write_text(json.dumps({"schema": "bge_export.part/1", "files": files}), "utf-8")


def test_a_store_gives_back_what_was_put_into_it(folder: Path, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    assert not store.holds("k")
    store.put("k", folder)
    assert store.holds("k")
    assert store.get("k", tmp_path / "back")
    assert digests(tmp_path / "back") == digests(folder)
    assert not list((tmp_path / "store").rglob("*.tmp"))


def test_a_store_may_be_any_file_system(folder: Path, tmp_path: Path) -> None:
    store = Store(f"memory://{tmp_path.name}/parts")
    store.put("k", folder)
    assert Store(f"memory://{tmp_path.name}/parts").get("k", tmp_path / "back")
    assert digests(tmp_path / "back") == digests(folder)


@pytest.mark.parametrize("damage", ["list", "byte", "file"])
def test_what_is_half_there_or_damaged_is_not_there(damage: str, folder: Path, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    store.put("k", folder)
    if damage == "list":
        (tmp_path / "store/k" / LIST).unlink()
    elif damage == "byte":
        (tmp_path / "store/k/sub/b.bin").write_bytes(b"x" + bytes(999))
    else:
        (tmp_path / "store/k/a.txt").unlink()
    assert not store.get("k", tmp_path / "back")
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize(
    "name", ["../out.txt", "/out.txt", "a/../../out.txt", "a\\..\\out.txt", "C:out.txt", "", ".", "a//b"]
)
def test_a_list_that_leads_out_of_its_part_is_not_followed(name: str, tmp_path: Path) -> None:
    listed(tmp_path / "store", "k", {name: "0" * 64})
    store = Store(str(tmp_path / "store"))
    assert not store.holds("k")
    assert not store.get("k", tmp_path / "deep/back")
    assert not (tmp_path / "deep").exists()


@pytest.mark.parametrize(
    "rest", ["user:secret@host/parts", "host/parts?token=secret", "a:secret?x@host", "host/p#t=secret"]
)
def test_a_url_that_is_no_store_is_refused_without_its_secrets(rest: str) -> None:
    with pytest.raises(MeasurementError, match=r"^nowhere://… is no store") as error:
        Store(f"nowhere://{rest}")
    assert "secret" not in str(error.value)


def parts(folder: Path, store: Path, told: list[str]) -> Built:
    (built,) = build_in_parts(
        [read_recipe(folder / "recipe.toml")], InProcess(), str(store), BuildOptions(), told.append
    )
    return built


def test_a_folder_built_in_parts_has_the_bytes_of_one_built_at_once(cold: Path, tiny: Path, tmp_path: Path) -> None:
    """The report too, whatever order its lanes were measured in; the state says the same of each target."""
    told: list[str] = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        written(tmp_path / name, tiny)
        built = parts(tmp_path / name, tmp_path / "store", told)
        assert built.exit_status == 0
        assert digests(tmp_path / name / "out") == digests(cold / "out")

    states = [json.loads((one / ".out.bge-export.build.json").read_text("utf-8")) for one in (cold, tmp_path / "first")]
    assert states[0] == states[1]
    assert [line.rpartition(": ")[2] for line in told if " onnx-fp" in line and " on " in line] == [
        "proven", "proven", "kept, the store has it", "kept, the store has it",
    ]  # fmt: skip
    assert run(["gate", str(tmp_path / "second/out")]) == 0


def test_targets_that_a_folder_has_are_not_made_apart(built: Path, tmp_path: Path) -> None:
    told: list[str] = []
    assert parts(built, tmp_path / "store", told).exit_status == 0
    assert not (tmp_path / "store").exists()
    assert told == []


def test_a_target_is_added_to_a_folder_by_its_part(built: Path, tiny: Path, tmp_path: Path) -> None:
    written(built, tiny, '["onnx:fp16", "onnx:fp32", "openvino:fp16"]')
    told: list[str] = []
    assert parts(built, tmp_path / "store", told).exit_status == 0
    assert [model.target for model in read_manifest(built / "out").models] == [
        "onnx-fp16",
        "onnx-fp32",
        "openvino-fp16",
    ]
    assert len(list((tmp_path / "store").iterdir())) == 1


def test_what_the_gate_refuses_apart_is_said_and_not_tried_again(tiny: Path, tmp_path: Path) -> None:
    shipped = (Path(__file__).parents[2] / "parity_fixtures/thresholds.toml").read_text("utf-8")
    before, table = '["onnx-fp16"]\nmin_cosine = 0.9999\n', '["onnx-fp16"]\nmin_cosine = 1.0\n'
    assert before in shipped
    limits = tmp_path / "limits.toml"
    limits.write_text(shipped.replace(before, table), "utf-8")

    written(tmp_path, tiny, more=f'[proof]\nthresholds = "{limits}"\n')
    told: list[str] = []
    built = parts(tmp_path, tmp_path / "store", told)
    assert built.exit_status == 1
    assert [model.target for model in read_manifest(tmp_path / "out").models] == ["onnx-fp32"]
    (refused,) = (step for step in built.steps if step.refused)
    assert refused.step == "export onnx-fp16"
    assert refused.seconds < 1
    assert sum("REFUSED" in line for line in told) == 1


def test_one_that_cannot_be_used_does_not_keep_the_others_from_being_built(
    tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = Path(shutil.copytree(tiny, tmp_path / "broken"))
    (broken / "model.safetensors").write_bytes(b"x" * 100)
    text = '[defaults]\ntargets = ["onnx:fp32"]\n'
    for model, out in ((tmp_path / "missing", "a"), (broken, "b"), (tiny, "c")):
        text += f'[[build]]\nsource.model = "{model}"\noutput.folder = "{out}"\n'
    (tmp_path / "fleet.toml").write_text(text, "utf-8")

    assert (
        run(["build", str(tmp_path / "fleet.toml"), "--store", str(tmp_path / "store"), "--threads", "1", "--json"])
        == 2
    )
    printed = capfd.readouterr()
    missing, wrong, right = json.loads(printed.out)
    assert "no such folder" in missing["error"]
    assert "model.safetensors" in wrong["error"]
    assert right["exit_status"] == 0
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()


def test_a_dry_run_begins_no_part(tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    recipe = written(tmp_path, tiny)
    assert run(["build", str(recipe), "--store", str(tmp_path / "store"), "--dry-run"]) == 0
    assert "nothing was done" in capfd.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["recipe.toml"]


def test_two_nodes_and_a_killed_worker_end_with_the_same_bytes(cold: Path, tiny: Path, tmp_path: Path) -> None:
    written(tmp_path, tiny)
    command = [sys.executable, "-m", "bge_export", "build", str(tmp_path / "recipe.toml"), "--threads", "1", "--json"]
    done = subprocess.run(
        [sys.executable, str(SUPPORT / "ray_cluster.py"), "2", "onnx-fp16", *command, "--ray", "{address}"],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
        env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"},
    )
    assert done.returncode == 0, done.stderr
    assert "killed: ray::" in done.stdout
    assert "onnx-fp16" in done.stdout.rpartition("killed: ")[2]
    assert digests(tmp_path / "out") == digests(cold / "out")
    assert "onnx-fp16 on " in done.stderr


@pytest.mark.parametrize("address", ["127.0.0.1:1", "auto"])
def test_without_a_cluster_the_address_is_named(address: str, tiny: Path, tmp_path: Path) -> None:
    written(tmp_path, tiny)
    command = [sys.executable, "-m", "bge_export", "build", "recipe.toml", "--ray", address]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 3
    assert f"There is no Ray cluster at '{address}'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
