"""A build makes what is not made yet, keeps the rest, and survives whatever ends it."""

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from building import TARGETS, Forked, written
from hub_repository import WritableHub
from publishing import Run

from bge_export.build.recipe import Recipe, Source
from bge_export.build.recipe_file import read_recipe
from bge_export.build.state import Finished, State, read_state, state_path, write_state
from bge_export.bundle.integrity import CARD, MANIFEST, REPORT
from bge_export.bundle.locks import locked
from bge_export.bundle.manifest import read_manifest
from bge_export.bundle.staging import standing_at
from bge_export.cli import run
from bge_export.commands import BuildOptions, Built, build_recipe
from bge_export.commands.building.exporting import inputs_of
from bge_export.commands.building.job import Job
from bge_export.contracts import Target
from bge_export.errors import OutputError, UsageError
from bge_export.files.digest import file_digests
from bge_export.parity.report import read_report, write_report
from bge_export.precision.int8_options import Int8Options

FP16_ALONE = '["onnx:fp16"]'


def digests(out: Path) -> dict[str, str]:
    """Return name -> digest of every file of a folder."""
    return file_digests(out, (path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()))


def planned(path: Path) -> dict[str, str]:
    """Return step -> what it would do, and why."""
    done = build_recipe(read_recipe(path), BuildOptions(dry_run=True))
    return {one.step: f"{one.decision}: {one.reason}" for one in done.steps}


def to_make(path: Path) -> list[str]:
    """Return the steps that would be made, without the gate."""
    return [step for step, why in planned(path).items() if why.startswith("make") and step != "gate"]


def decisions(done: Built) -> dict[str, str]:
    return {one.step: one.decision for one in done.steps}


def test_the_gate_knows_every_file_of_a_built_folder(cold: Path) -> None:
    assert run(["gate", str(cold / "out"), "--require", "onnxruntime:cpu"]) == 0
    assert [model.target for model in read_manifest(cold / "out").models] == ["onnx-fp16", "onnx-fp32"]
    assert sorted(path.name for path in cold.iterdir()) == [".out.bge-export.build.json", "out", "recipe.toml"]


def test_nothing_changed_is_nothing_made(built: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in built.rglob("*")}
    done = build_recipe(read_recipe(built / "recipe.toml"))
    assert {step for step, decision in decisions(done).items() if decision != "keep"} == {"gate"}
    assert done.exit_status == 0
    assert {path: path.stat().st_mtime_ns for path in built.rglob("*")} == before


def changed_recipe(built: Path, more: str, targets: str = TARGETS) -> None:
    written(built, Path(read_recipe(built / "recipe.toml").source.model), targets, more)


def other_version(built: Path) -> None:
    """Let the state say that the exports were made with another version of torch."""
    path = state_path(built / "out")
    state = read_state(path)
    for step, done in state.finished.items():
        state = state.with_finished(step, Finished.of({**done.inputs, "version of torch": "1.0"}, done.outputs))
    write_state(state, path)


def other_runtime(built: Path, runtime: str = "openvino") -> None:
    """Let the report say that another version of a runtime measured it."""
    report = read_report(built / "out" / REPORT)
    runs = {
        name: run.model_copy(update={"environment": {**run.environment, runtime: "1.0"}})
        for name, run in report.runs.items()
    }
    write_report(report.model_copy(update={"runs": runs}), built / "out" / REPORT)


def other_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def edited_report(built: Path) -> None:
    path = built / "out" / REPORT
    path.write_text(path.read_text("utf-8").replace('"tokens_equal": true', '"tokens_equal": false', 1), "utf-8")


EXPORTS = ["export onnx-fp16", "export onnx-fp32"]
LANES = ["parity onnxruntime:cpu", "parity openvino:cpu"]


@pytest.mark.parametrize(
    ("change", "steps", "reason"),
    [
        (lambda f: changed_recipe(f, "[options.onnx]\nsentence_embedding = true"), EXPORTS + LANES, "options.onnx"),
        (lambda f: changed_recipe(f, "", '["onnx:fp16"]'), ["folder"], "onnx-fp32 is not in the recipe"),
        (
            lambda f: changed_recipe(f, "", '["onnx:fp16", "onnx:fp32", "torchscript:fp32"]'),
            ["export torchscript-fp32", "parity torchscript:cpu"],
            "not made yet",
        ),
        (lambda f: changed_recipe(f, "[card]\nlicense = 'mit'"), ["card"], "not written yet"),
        (lambda f: changed_recipe(f, "[proof]\nrequire = ['openvino:cpu']"), [], ""),
        (other_version, EXPORTS + LANES, "instead of 1.0"),
        (other_runtime, ["parity openvino:cpu"], "not measured there"),
        (edited_report, LANES, "not measured there"),
        (lambda f: (f / "out" / REPORT).unlink(), LANES, "not measured there"),
        (lambda f: other_byte(f / "out/onnx/model.onnx"), [*EXPORTS, "folder", *LANES], "not the file that was"),
        (lambda f: shutil.rmtree(f / "out"), [*EXPORTS, "folder", *LANES], "does not hold it"),
    ],
    ids=[
        "options",
        "target out",
        "target in",
        "card",
        "required",
        "tool",
        "runtime",
        "edited",
        "report",
        "byte",
        "gone",
    ],
)
def test_a_change_makes_the_steps_that_depend_on_it_and_no_others(
    change: Callable[[Path], object], steps: list[str], reason: str, built: Path
) -> None:
    change(built)
    before = digests(built)
    assert to_make(built / "recipe.toml") == steps
    assert any(reason in why for why in planned(built / "recipe.toml").values())
    assert digests(built) == before, "a plan changed something"


def test_another_checkpoint_makes_everything(built: Path, tiny: Path) -> None:
    other = Path(shutil.copytree(tiny, built / "other"))
    (other / "config_sentence_transformers.json").write_text('{"prompts": {"query": "ask: "}}', "utf-8")
    written(built, other)
    assert to_make(built / "recipe.toml") == EXPORTS + LANES
    assert "checkpoint changed" in " ".join(planned(built / "recipe.toml").values())


def test_limits_and_calibration_matter_to_what_they_choose(tiny: Path, tmp_path: Path) -> None:
    texts, limits = tmp_path / "texts.txt", tmp_path / "limits.toml"
    texts.write_text("a\n", "utf-8")
    limits.write_text(
        (Path(__file__).parents[2] / "parity_fixtures/thresholds.toml").read_text("utf-8") + "\n#", "utf-8"
    )

    base = Recipe(targets=(Target("onnx", "fp32"), Target("onnx", "int8")), source=Source(model=str(tiny)))
    calibrated = base.model_copy(update={"int8": Int8Options(calibration=texts)})
    limited = base.model_copy(update={"proof": base.proof.model_copy(update={"thresholds": limits})})

    def inputs(recipe: Recipe, precision: str) -> dict[str, str]:
        return inputs_of(Job.open(recipe, 1), Target("onnx", precision))

    assert inputs(base, "fp32") == inputs(calibrated, "fp32") == inputs(limited, "fp32")
    assert inputs(base, "int8") != inputs(calibrated, "int8")
    assert inputs(base, "int8") != inputs(limited, "int8")

    texts.write_text("b\n", "utf-8")
    before, after = inputs(calibrated, "int8"), inputs(base, "int8")
    assert [name for name in before if before[name] != after[name]] == ["int8"]


def test_a_folder_that_no_build_wrote_is_not_replaced_unasked(bundle: Path, tiny: Path) -> None:
    path = bundle.parent / "recipe.toml"
    text = f'targets = ["onnx:fp32"]\n[source]\nmodel = "{tiny}"\n[output]\nfolder = "bundle"\n'
    path.write_text(text, "utf-8")
    with pytest.raises(OutputError, match=r"has onnx-fp16, which no build .*output\.overwrite = true"):
        build_recipe(read_recipe(path))

    path.write_text(f"{text}overwrite = true\n", "utf-8")
    assert to_make(path)[0] == "export onnx-fp32"


@pytest.mark.parametrize(
    ("targets", "more", "options", "reason"),
    [
        (TARGETS, "[proof]\ncheck = false", BuildOptions(), "a build proves what it makes"),
        (TARGETS, "", BuildOptions(publish=True), "does not say where to publish"),
        ('["onnx:fp99"]', "", BuildOptions(), "onnx has no precision 'fp99'"),
        ('["paper:fp32"]', "", BuildOptions(), "there is no format 'paper'"),
        (TARGETS, "[proof]\nrequire = ['onixruntime:cpu']", BuildOptions(), "no 'onixruntime' among the runtimes"),
        (TARGETS, "[evaluation]\npairs = ['x/a.tsv', 'y/x/a.tsv']", BuildOptions(), "two files are called x/a.tsv"),
        (TARGETS, "[evaluation]\npairs = ['a.tsv']\nlanes = ['cpu']", BuildOptions(), "'cpu' is not a lane"),
        (TARGETS, "[options.onnx]\ncolour = 1", BuildOptions(), "onnx has no option 'colour'"),
    ],
)
def test_what_cannot_be_built_to_its_end_is_refused_before_it_begins(
    targets: str, more: str, options: BuildOptions, reason: str, tiny: Path, tmp_path: Path
) -> None:
    path = written(tmp_path, tiny, targets, more)
    with pytest.raises(UsageError, match=reason):
        build_recipe(read_recipe(path), options)
    assert [one.name for one in tmp_path.iterdir()] == ["recipe.toml"]


def test_two_builds_do_not_write_to_one_folder_at_once(built: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with locked(built / "out", "build"):
        assert run(["build", str(built / "recipe.toml")]) == 2
    assert "Another export writes" in capfd.readouterr().err


def test_a_state_that_is_damaged_proves_nothing(built: Path) -> None:
    path = state_path(built / "out")
    state = read_state(path)
    for text in ("", "{", "[]", '{"schema": "other"}', path.read_text("utf-8").replace("build/1", "build/2")):
        path.write_text(text, "utf-8")
        assert read_state(path) == State()

    write_state(state, path)
    assert read_state(path) == state


def test_a_required_lane_that_is_not_here_is_left_out_and_refused_by_name(
    built: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    changed_recipe(built, "[proof]\nrequire = ['onnx-fp32@openvino:npu']")
    assert run(["build", str(built / "recipe.toml")]) == 1
    printed = capfd.readouterr().out
    assert "parity openvino:npu" in printed
    assert "left out" in printed
    assert "required-missing: onnx-fp32 was not measured there" in printed
    assert "REFUSED" in printed


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_every_id_of_the_same_bytes_is_swept_in_one_lane(built: Path, runtime: str) -> None:
    other_runtime(built, runtime)
    done = build_recipe(read_recipe(built / "recipe.toml"))
    again = {step for step, decision in decisions(done).items() if decision == "make"}
    assert again == {f"parity {runtime}:cpu", "gate"}
    assert done.exit_status == 0

    report = read_report(built / "out" / REPORT)
    ids = {(lane.runtime, lane.sweep.ids) for lane in report.lanes}
    (few,) = [count for name, count in ids if name == "openvino"]
    assert ids == {("onnxruntime", 880), ("openvino", few)}
    assert few < 880


def test_a_target_leaves_the_folder_with_the_recipe_and_weights_and_card_come_with_it(built: Path) -> None:
    changed_recipe(built, "[transformersjs]\nlicense = 'mit'\nrepository = 'somebody/name'", FP16_ALONE)
    done = build_recipe(read_recipe(built / "recipe.toml"))
    assert done.exit_status == 0
    assert decisions(done)["export onnx-fp16"] == "keep"
    assert decisions(done)["javascript folder"] == "make"

    manifest = read_manifest(built / "out")
    assert [model.target for model in manifest.models] == ["onnx-fp16"]
    assert manifest.weights == ["model.safetensors"]
    assert not (built / "out/onnx/model.onnx").exists()
    assert "license: mit" in (built / "out" / CARD).read_text("utf-8")


def test_weights_come_where_the_recipe_asks_for_them_and_go_with_that_key(built: Path) -> None:
    text = (built / "recipe.toml").read_text("utf-8")
    (built / "recipe.toml").write_text(text.replace("[output]", "[output]\nweights = true"), "utf-8")
    done = build_recipe(read_recipe(built / "recipe.toml"))
    assert (done.exit_status, decisions(done)["folder"]) == (0, "make")
    assert read_manifest(built / "out").weights == ["model.safetensors"]
    assert to_make(built / "recipe.toml") == []

    (built / "recipe.toml").write_text(text, "utf-8")
    assert to_make(built / "recipe.toml")[0] == "folder"


def test_a_card_of_your_own_stays(built: Path) -> None:
    (built / "out" / CARD).write_text("mine", "utf-8")
    changed_recipe(built, "[card]\nlicense = 'mit'")
    assert planned(built / "recipe.toml")["card"] == "keep: it is your own"


def test_a_build_that_is_killed_goes_on_wherever_that_was(built: Path, forked: Forked, tmp_path: Path) -> None:
    """Killed at each renaming of a build that drops a target and writes a card."""
    changed_recipe(built, "[card]\nlicense = 'mit'", FP16_ALONE)
    undisturbed = Path(shutil.copytree(built, tmp_path / "undisturbed"))
    assert forked(undisturbed, "build", "recipe.toml", "--threads", "1").returncode == 0

    for number in range(1, 20):
        folder = Path(shutil.copytree(built, tmp_path / str(number)))
        killed = forked(folder, "build", "recipe.toml", "--threads", "1", killed_at=number)
        if killed.returncode == 0:
            break
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert run(["gate", str(standing_at(folder / "out"))]) == 0, "what stood there was not proven"

        again = forked(folder, "build", "recipe.toml", "--threads", "1")
        assert again.returncode == 0, again.stderr
        assert digests(folder / "out") == digests(undisturbed / "out")
        assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in undisturbed.iterdir())

    assert number > 3, "it was never killed"


def test_finished_steps_survive_a_full_disk_and_a_kill(cold: Path, tiny: Path, tmp_path: Path, forked: Forked) -> None:
    written(tmp_path, tiny)
    # The fifth renaming records that the second export begins.
    killed = forked(tmp_path, "build", "recipe.toml", "--threads", "1", killed_at=5)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    full = forked(tmp_path, "build", "recipe.toml", "--threads", "1", largest_file=600_000)
    assert full.returncode == 3, full.stderr
    assert "space" in full.stderr
    assert "Finished steps are kept" in full.stderr
    assert [model.target for model in read_manifest(tmp_path / "out").models] == ["onnx-fp16"]

    # The fourth renaming puts the new folder in place, when the old one is already set aside.
    killed = forked(tmp_path, "build", "recipe.toml", "--threads", "1", killed_at=4)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "out").exists()
    assert planned(tmp_path / "recipe.toml")["export onnx-fp16"].startswith("keep")
    assert "an earlier build did not finish it" in planned(tmp_path / "recipe.toml")["export onnx-fp32"]

    done = forked(tmp_path, "build", "recipe.toml", "--threads", "1", "--json")
    assert done.returncode == 0, done.stderr
    made = {step["step"]: step["decision"] for step in json.loads(done.stdout)["steps"]}
    assert (made["export onnx-fp16"], made["export onnx-fp32"]) == ("keep", "make")
    assert digests(tmp_path / "out") == digests(cold / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in cold.iterdir())


def test_a_file_that_changed_is_made_again(built: Path, cold: Path) -> None:
    changed_recipe(built, "", FP16_ALONE)
    other_byte(built / "out/onnx/model_fp16.onnx")
    done = build_recipe(read_recipe(built / "recipe.toml"))
    assert done.exit_status == 0
    assert decisions(done)["export onnx-fp16"] == "make"
    assert digests(built / "out")["onnx/model_fp16.onnx"] == digests(cold / "out")["onnx/model_fp16.onnx"]


def test_a_refused_target_does_not_keep_the_others_from_it(built: Path, capfd: pytest.CaptureFixture[str]) -> None:
    changed_recipe(built, "", '["onnx:fp16", "onnx:fp32", "onnx:bnb4"]')
    before = digests(built / "out")
    assert run(["build", str(built / "recipe.toml"), "--threads", "1"]) == 1
    printed = capfd.readouterr().out
    assert "export onnx-bnb4" in printed
    assert "REFUSED" in printed
    assert "more reasons" in printed
    assert digests(built / "out") == before
    assert (built / "out.refused" / MANIFEST).is_file()


def test_own_texts_and_scores_are_measured_once(built: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (built / "own.txt").write_text("a question\nanother one, longer\n", "utf-8")
    (built / "pairs.tsv").write_text("score\tsentence1\tsentence2\n1\ta\tb\n2\tc\td\n3\te\tf\n", "utf-8")
    changed_recipe(built, '[texts]\nfile = "own.txt"\n[evaluation]\npairs = ["pairs.tsv"]', FP16_ALONE)

    done = build_recipe(read_recipe(built / "recipe.toml"))
    assert done.exit_status == 0
    assert done.texts is not None
    assert done.texts.report.texts.count == 2
    (step,) = [name for name in done.scores if name.endswith("/pairs.tsv onnxruntime:cpu")]
    assert [score["target"] for score in done.scores[step]] == ["onnx-fp16"]
    assert run(["gate", str(built / "out")]) == 0

    assert to_make(built / "recipe.toml") == []
    (built / "own.txt").write_text("a question\n", "utf-8")
    assert to_make(built / "recipe.toml") == ["parity of own texts"]

    scores = built / "out.scores.json"
    scores.write_text(scores.read_text("utf-8").replace('"spearman": ', '"spearman": 1'), "utf-8")
    assert to_make(built / "recipe.toml") == ["parity of own texts", step]


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_a_build_publishes_only_what_passes_and_only_if_asked(built: Path, hub: WritableHub, command: Run) -> None:
    changed_recipe(built, "[card]\nlicense = 'mit'\n[publish]\nrepository = 'somebody/tiny'")
    recipe = built / "recipe.toml"
    assert command("build", recipe).returncode == 0
    assert hub.repositories == {}

    done = command("build", recipe, "--publish")
    assert done.returncode == 0, done.stderr
    assert f"published at {hub.repositories['somebody/tiny'].refs['main']}" in done.stdout
    again = command("build", recipe, "--publish", "--json")
    assert {step["step"]: step["decision"] for step in json.loads(again.stdout)["steps"]}["publish"] == "keep"

    changed_recipe(built, "[proof]\nrequire = ['openvino:npu']\n[publish]\nrepository = 'somebody/other'")
    assert command("build", recipe, "--publish").returncode == 1
    assert "somebody/other" not in hub.repositories
