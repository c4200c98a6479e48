"""`scripts/int8_bench`: its checkpoints are the same each time and whole, its records say what was measured."""

import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from exporting import export_model
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

from bge_export.bundle.integrity import REPORT
from bge_export.bundle.manifest import read_bundle
from bge_export.checkpoint.model import load_model
from bge_export.checkpoint.opening import open_checkpoint
from bge_export.commands import check_parity
from bge_export.exporters.onnx import OnnxExporter
from bge_export.heads.dense import dense_head
from bge_export.parity.report import read_report
from bge_export.texts.corpus import builtin_corpus

SCRIPTS = Path(__file__).parent.parent / "scripts/int8"
sys.path.insert(0, str(SCRIPTS))

from child import run  # noqa: E402
from figures import lane_figures, reasons  # noqa: E402
from folders import TRAINING, appearing  # noqa: E402
from jobs import JOBS, Export, Peer  # noqa: E402
from kinds import KINDS, kinds_by_id  # noqa: E402
from main import main  # noqa: E402
from making import make_fine_tune  # noqa: E402
from pairs import SOURCES, Pair, batches  # noqa: E402
from peers import present_as_int8  # noqa: E402
from recipes import FINE_TUNES, FineTune  # noqa: E402
from records import read_record, record_path, write_record  # noqa: E402
from table import page  # noqa: E402
from training import embed  # noqa: E402

RECIPE = FineTune("tiny", "sts-zh", 3, 1e-3, 0.05)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of evaluation sets with one set, whose rows are positive pairs but for the first two."""
    folder = tmp_path_factory.mktemp("eval")
    rows = ["score\tsentence1\tsentence2", "1.5\tthe sky\tan egg", "5.0\tthe same\tthe same"]
    rows += [f'4.{number % 10}\ttext {number} "\tsaid again, {number}' for number in range(40)]
    (folder / "STSB-zh").mkdir()
    (folder / "STSB-zh/test.tsv").write_text("\n".join(rows) + "\n", "utf-8")
    return folder


def made(recipe: FineTune, tiny: Path, sets: Path, path: Path) -> Path:
    make_fine_tune(recipe, tiny, sets, path)
    return path


# Pairs.


def test_only_pairs_of_high_score_and_two_texts_are_trained_on(sets):
    pairs = SOURCES["sts-zh"](sets)
    assert len(pairs) == 40
    assert pairs[0] == Pair('text 0 "', "said again, 0", group='text 0 "')


def test_no_batch_holds_two_pairs_of_a_group_and_none_is_left_out():
    pairs = [Pair(f"{number}a", f"{number}b", group=str(number % 9)) for number in range(60)]
    found = list(batches(pairs, 7, 40, seed=1))
    assert [len({pair.group for pair in batch}) for batch in found] == [7] * 40
    times = Counter(pair for batch in found for pair in batch)
    assert min(times[pair] for pair in pairs) >= 280 // 60 - 1
    assert max(times.values()) <= 280 // 60 + 2
    assert found == list(batches(pairs, 7, 40, seed=1))
    assert found != list(batches(pairs, 7, 40, seed=2))


def test_groups_that_do_not_fill_a_batch_are_refused():
    with pytest.raises(ValueError, match="fewer than 3 groups"):
        next(batches([Pair("a", "b", "one"), Pair("c", "d", "two")] * 5, 3, 1, seed=0))


# Checkpoints.


def test_a_fine_tune_has_the_same_bytes_each_time(tiny, sets, tmp_path):
    one, other = (made(RECIPE, tiny, sets, tmp_path / name) for name in ("one", "other"))
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(other) for path in other.rglob("*") if path.is_file())
    assert [name for name in files if (one / name).read_bytes() != (other / name).read_bytes()] == []


def test_a_fine_tune_is_trained(tiny, sets, tmp_path):
    path = made(replace(RECIPE, steps=12), tiny, sets, tmp_path / "trained")
    losses = json.loads((path / TRAINING).read_text())["losses"]
    assert len(losses) == 12
    assert losses[-1] < losses[0]
    before, after = load_file(tiny / "model.safetensors"), load_file(path / "model.safetensors")
    assert set(after) <= set(before)
    assert not any(torch.equal(after[name], before[name]) for name in after if name.endswith("query.weight"))


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("normalize", [True, False])
def test_texts_of_like_length_that_run_together_give_what_each_gives_alone_in_their_order(pooling, normalize, tiny):
    recipe = replace(RECIPE, pooling=pooling, normalize=normalize)
    model = AutoModel.from_pretrained(tiny, add_pooling_layer=False).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    texts = [f"a {'b ' * (number * 7 % 19)}c" for number in range(19)]
    with torch.no_grad():
        together = embed(model, tokenizer, texts, recipe)
        alone = torch.cat([embed(model, tokenizer, [text], recipe) for text in texts])
    assert torch.allclose(together, alone, atol=1e-5)
    assert torch.allclose(together.norm(dim=1), torch.ones(19)) == normalize


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("normalize", [True, False])
def test_a_fine_tune_promises_what_it_was_trained_with(pooling, normalize, tiny, sets, tmp_path):
    recipe = replace(RECIPE, steps=1, pooling=pooling, normalize=normalize)
    head = dense_head(open_checkpoint(made(recipe, tiny, sets, tmp_path / "tuned")).spec)
    assert (head.pooling, head.normalize) == (pooling, normalize)


def test_layers_that_are_left_out_are_the_others(tiny, sets, tmp_path):
    recipe = replace(RECIPE, steps=1, learning_rate=0.0, layers=(1,))
    path = made(recipe, tiny, sets, tmp_path / "fewer")
    assert load_model(open_checkpoint(path)).config.num_hidden_layers == 1
    name = "encoder.layer.{}.output.dense.weight"
    before, after = load_file(tiny / "model.safetensors"), load_file(path / "model.safetensors")
    assert torch.equal(after[name.format(0)], before[name.format(1)])


def test_weights_are_saved_in_the_type_of_the_recipe(tiny, sets, tmp_path):
    path = made(replace(RECIPE, steps=1, dtype="bfloat16"), tiny, sets, tmp_path / "half")
    assert {tensor.dtype for tensor in load_file(path / "model.safetensors").values()} == {torch.bfloat16}
    load_model(open_checkpoint(path))


def test_a_folder_that_is_not_filled_to_the_end_does_not_appear(tmp_path):
    def fill() -> None:
        with appearing(tmp_path / "folder") as folder:
            (folder / "half").touch()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fill()
    assert list(tmp_path.iterdir()) == []


def test_every_recipe_names_pairs_that_there_are():
    assert {recipe.pairs for recipe in FINE_TUNES.values()} <= set(SOURCES)


# Jobs.


def test_a_command_is_measured_with_the_processes_that_it_starts(tmp_path):
    inner = "import sys; kept = bytearray(300 * 2**20); sum(range(10**7)); print('inside')"
    code = f"import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', {inner!r}]).returncode + 3)"
    ran = run([sys.executable, "-c", code], tmp_path)
    assert (ran.status, ran.stdout, ran.stderr) == (3, "inside\n", "")
    assert ran.peak_bytes > 300 * 2**20
    assert ran.cpu_seconds > 0.05
    assert 0.05 < ran.wall_seconds < 60


def test_a_command_that_a_signal_ends_is_not_a_verdict(tmp_path):
    assert run([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"], tmp_path).status == -9


def test_each_rounded_form_and_both_peers_are_run():
    exports = {(job.command, job.options) for job in JOBS.values() if isinstance(job, Export)}
    assert exports == {
        ("openvino", ("--quantize", "int8")),
        ("transformersjs", ("--dtypes", "int8")),
        *(
            ("onnx", ("--quantize", precision))
            for precision in ("int8", "q4", "q4f16", "uint8", "int8-dynamic", "bnb4")
        ),
    }
    assert {job.per_channel for job in JOBS.values() if isinstance(job, Peer)} == {True, False}


def test_every_text_has_a_kind_and_each_kind_has_texts(tiny_export):
    kinds = kinds_by_id(read_report(tiny_export.folder / REPORT))
    assert set(kinds) == {text.id for text in builtin_corpus().texts}
    assert set(kinds.values()) == set(KINDS)


def test_figures_are_the_reports_own_with_both_kinds_apart(tiny_export):
    report = read_report(tiny_export.folder / REPORT)
    kinds = kinds_by_id(report)
    cosines = {row.id: row.cosine for row in report.lanes[0].rows}
    found = lane_figures(report, report.lanes[0].target, kinds)[0]
    for kind in KINDS:
        own = {name: value for name, value in cosines.items() if kinds[name] == kind}
        worst = min(own, key=own.get)
        assert getattr(found, f"{kind}_min") == own[worst]
        assert own[getattr(found, f"{kind}_worst")] == own[worst]
        assert getattr(found, f"{kind}_mean") == pytest.approx(sum(own.values()) / len(own), abs=1e-12)
    assert found.max_abs == max(row.max_abs for row in report.lanes[0].rows)


def test_an_undefined_cosine_is_the_worst_figure_and_not_left_out(tiny_export):
    report = read_report(tiny_export.folder / REPORT)
    kinds = kinds_by_id(report)
    lane = report.lanes[0]
    name = next(row.id for row in lane.rows[1:] if kinds[row.id] == "everyday")
    rows = [row.model_copy(update={"cosine": None}) if row.id == name else row for row in lane.rows]
    report = report.model_copy(update={"lanes": (lane.model_copy(update={"rows": tuple(rows)}),)})
    (found,) = lane_figures(report, lane.target, kinds)
    assert (found.everyday_min, found.everyday_mean, found.everyday_worst) == (None, None, name)
    assert found.stress_min is not None


def test_refusals_are_counted_by_rule_and_kind_of_text():
    failures = [
        {"rule": "cosine", "row": "a"},
        {"rule": "cosine", "row": "a"},
        {"rule": "cosine", "row": "b"},
        {"rule": "pair-rule", "row": None},
    ]
    kinds = {"a": "everyday", "b": "stress"}
    assert reasons(failures, kinds) == {"cosine/everyday": 2, "cosine/stress": 1, "pair-rule": 1}


@pytest.mark.parametrize("per_channel", [True, False])
def test_a_peers_file_is_presented_as_ours_and_judged_by_its_vectors(per_channel, tiny, tmp_path):
    folder = export_model(OnnxExporter(), str(tiny), tmp_path / "out", check=False).folder
    present_as_int8(folder, tiny, per_channel=per_channel)
    _, (artifact,) = read_bundle(folder)
    assert str(artifact.target) == "onnx-int8"
    assert b"MatMulInteger" in (folder / artifact.model).read_bytes()
    proof = check_parity(folder, str(tiny), lanes=["onnxruntime:cpu"])
    assert "cosine" in {failure.rule for failure in proof.verdict.failures}


# The command.


@pytest.fixture(scope="module")
def bench(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with checkpoints/tiny, and results of one job on it."""
    folder = tmp_path_factory.mktemp("bench")
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints/tiny").symlink_to(tiny, target_is_directory=True)
    assert main(command(folder)) == 0
    return folder


def command(folder: Path) -> list[str]:
    return ["run", str(folder / "checkpoints"), str(folder / "results"), "--jobs", "onnx-q4", "--threads", "1"]


def test_a_job_is_recorded_once_and_shown_in_the_table(bench, capsys):
    results = bench / "results"
    path = record_path(results, "tiny", "onnx-q4")
    record = read_record(path)
    assert record.status in (0, 1)
    assert record.full_measurements == 1
    assert record.file_bytes > 1000
    assert {lane.lane.split("@")[0] for lane in record.lanes} == {"onnx-q4"}
    assert (record.status == 0) == (record.reasons == {})

    written = path.stat().st_mtime_ns
    main(command(bench))
    assert path.stat().st_mtime_ns == written
    assert sorted(path.name for path in (results / "tiny/onnx-q4").iterdir()) == ["stderr.txt", "stdout.txt"]

    main(["table", str(results)])
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| tiny | onnx-q4 |"))
    assert f"| {'passed' if record.status == 0 else 'refused'} |" in row
    assert row.count("|") == 12


def test_a_job_without_a_verdict_is_named_and_tried_again(bench):
    results = bench / "results"
    path = record_path(results, "tiny", "onnx-q4")
    write_record(results, replace(read_record(path), status=3, lanes=[], message="…\nerror: no memory"))
    text = page(results)
    assert "not measured (3)" in text
    assert "- tiny, onnx-q4: error: no memory" in text
    main(command(bench))
    assert read_record(path).status in (0, 1)


def test_a_checkpoint_that_is_not_there_is_named(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(SystemExit, match="holds no checkpoint 'other'"):
        main([*command(tmp_path), "--only", "other"])


def test_results_without_records_are_refused(tmp_path):
    with pytest.raises(SystemExit, match="holds no records"):
        main(["table", str(tmp_path)])
