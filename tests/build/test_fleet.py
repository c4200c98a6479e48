"""A fleet is many recipes in one file, built one after the other; one that fails does not stop the others."""

import json
import re
from pathlib import Path

import pytest

from bge_export.build.fleet import read_builds
from bge_export.cli import run
from bge_export.contracts import Target
from bge_export.errors import UsageError

SHARED = """
[defaults]
targets = ["onnx:fp16", "onnx:fp32"]
[defaults.proof]
require = ["onnxruntime:cpu"]
[defaults.output]
overwrite = true
"""


def fleet(folder: Path, text: str) -> Path:
    path = folder / "fleet.toml"
    path.write_text(text, "utf-8")
    return path


def one(model: str, folder: str, more: str = "") -> str:
    return f'[[build]]\nsource.model = "{model}"\noutput.folder = "{folder}"\n{more}\n'


def test_defaults_complete_tables_and_lists_are_replaced(tmp_path: Path) -> None:
    path = fleet(tmp_path, SHARED + one("a/b", "first") + one("c/d", "second", 'targets = ["onnx:int8"]'))
    first, second = read_builds(path)
    assert (first.source.model, second.source.model) == ("a/b", "c/d")
    assert (first.output.folder, second.output.folder) == (tmp_path / "first", tmp_path / "second")
    assert first.output.overwrite
    assert first.proof.require == second.proof.require == ("onnxruntime:cpu",)
    assert second.targets == (Target("onnx", "int8"),)
    assert len(first.targets) == 2


def test_a_file_of_one_recipe_is_a_fleet_of_one(tmp_path: Path) -> None:
    (recipe,) = read_builds(fleet(tmp_path, 'targets = ["onnx:fp32"]'))
    assert recipe.targets == (Target("onnx", "fp32"),)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"{SHARED}{one('a/b', 'x')}[default]\n", "default: there is no such key; did you mean 'defaults'"),
        (SHARED, r"one or more tables \[\[build\]\]"),
        ("build = 3", r"one or more tables \[\[build\]\]"),
        ("build = [3]", r"one or more tables \[\[build\]\]"),
        (f"defaults = 3\n{one('a/b', 'x')}", r"one or more tables \[\[build\]\]"),
        (SHARED + one("a/b", "x") + one("a/b", "y", "colour = 1"), r"build\.2: colour: there is no such key"),
        (one("a/b", "x"), r"build\.1: targets: Field required"),
        (SHARED + one("a/b", "x") + one("c/d", "./x"), r"build\.1 and build\.2 both write to .*x\. Give each"),
        ("[[build]]\n[build", "is not valid TOML"),
    ],
)
def test_what_is_no_fleet_is_refused_with_its_place(text: str, reason: str, tmp_path: Path) -> None:
    path = fleet(tmp_path, text)
    with pytest.raises(UsageError, match=reason) as error:
        read_builds(path)
    assert str(error.value).startswith(str(path))


def test_one_that_cannot_be_used_does_not_keep_the_others_from_being_built(
    built: Path, tiny: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = fleet(built, SHARED + one("./nowhere", "missing") + one(str(tiny), "out"))
    assert run(["build", str(path)]) == 2
    printed = capfd.readouterr()
    assert "nowhere: no such folder" in printed.out
    assert re.search(r"out: PASSED: 2 targets in \d lanes; 0 steps made, 5 kept", printed.out)
    assert "(2 of 2)" in printed.err

    assert run(["build", str(path), "--dry-run", "--json"]) == 2
    first, second = json.loads(capfd.readouterr().out)
    assert (first["exit_status"], second["exit_status"]) == (2, 0)
    assert [step["decision"] for step in second["steps"]] == ["keep"] * 5 + ["make"]


def test_the_page_shows_a_recipe_and_a_fleet(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/how-to/build.md").read_text("utf-8")
    single, many = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    assert len(read_builds(fleet(tmp_path, single))) == 1
    assert [recipe.source.model for recipe in read_builds(fleet(tmp_path, many))] == [
        "BAAI/bge-small-en",
        "BAAI/bge-base-en",
    ]
