"""mteb's own tasks on artifacts: its protocol and its files, on a few rows of its form, without a network."""

import gzip
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from bge_export.commands import Exported, TaskOptions, evaluate_tasks
from bge_export.errors import TextsError, UsageError
from bge_export.evaluate import embedding
from bge_export.evaluate.bootstrap import Items, interval
from bge_export.evaluate.local_data import read_rows, read_sets, refuse_changed

pytestmark = pytest.mark.filterwarnings("ignore")  # mteb's libraries use each other's old names

SENTENCES = ("the dog sleeps", "a cat sleeps", "hello world", "stock prices fell", "rain in the north", "a red car")
MODEL = "somebody/tiny"


def table(*rows: tuple[object, ...]) -> bytes:
    return "".join("\t".join(map(str, row)) + "\n" for row in rows).encode()


def lines(*rows: dict[str, str]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def files() -> dict[str, tuple[str, str, dict[str, bytes]]]:
    """Return mteb's task -> the kind of its set, mteb's subset, and the set's files."""
    pairs = [(number, one, other) for number, (one, other) in enumerate(pairwise(SENTENCES))]
    scored = {"test.tsv": table(("score", "sentence1", "sentence2"), *pairs)}
    classes = [{"text": text, "label": f"c{number % 2}"} for number, text in enumerate(SENTENCES * 4)]
    documents = [{"_id": f"d{n}", "title": "about", "text": text} for n, text in enumerate(SENTENCES)]
    return {
        "STSBenchmark": ("sts", "default", scored),
        "STS17": ("sts", "en-en", scored),
        "Banking77Classification": (
            "classification",
            "default",
            {"train.jsonl.gz": gzip.compress(lines(*classes)), "test.jsonl": lines(*classes[:6])},
        ),
        "SciFact": (
            "retrieval",
            "default",
            {
                "corpus.jsonl": lines(*documents),
                "queries.jsonl": lines({"_id": "q1", "text": "sleep"}, {"_id": "q2", "text": "weather"}),
                "qrels.tsv": table(
                    ("query-id", "corpus-id", "score"), ("q1", "d0", 1), ("q1", "d1", 1), ("q2", "d4", 1)
                ),
            },
        ),
    }


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of sets with a manifest."""
    root, listed = tmp_path / "data", []
    for task, (kind, subset, contents) in files().items():
        folder = root / task
        folder.mkdir(parents=True)
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        listed.append(
            {
                "mteb_task": task,
                "mteb_subset": subset,
                "type": kind,
                "dir": task,
                "files": {name.partition(".")[0]: name for name in contents},
                "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
                "published": {MODEL: 0.5},
            }
        )
    (root / "manifest.json").write_text(json.dumps({"tasks": listed}), "utf-8")
    return root


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every text that artifacts are given, in order."""
    texts: list[str] = []
    real = embedding.Embedder.embed

    def remembering(embedder: embedding.Embedder, given: list[str]) -> dict[str, np.ndarray]:
        texts.extend(given)
        return real(embedder, given)

    monkeypatch.setattr(embedding.Embedder, "embed", remembering)
    return texts


def options(data: Path, **changes: object) -> TaskOptions:
    return TaskOptions(data=data, results=data.parent / "scores", **changes)


def results(data: Path) -> list[Path]:
    return sorted((data.parent / "scores/results").rglob("experiments/*/*.json"))


def test_tasks_are_scored_in_mtebs_own_form(tiny_export: Exported, data: Path) -> None:
    scores = evaluate_tasks(tiny_export.folder, list(files()), options(data))
    assert [(one.task, one.artifact.partition("@")[0]) for one in scores] == [
        (task, target) for task in files() for target in ("onnx-fp32", "onnx-fp16")
    ]
    assert {one.metric for one in scores} == {"cosine_spearman", "accuracy", "ndcg_at_10"}

    from mteb.results import TaskResult

    written = [path for path in results(data) if path.stem in files()]
    assert len(written) == len(scores)
    for path in written:
        result = TaskResult.from_disk(path)
        assert result.dataset_revision.startswith("sha256-")
        meta = json.loads((path.parent / "model_meta.json").read_text("utf-8"))
        assert meta["experiment_kwargs"]["artifact"].endswith("@onnxruntime:cpu")


def test_the_score_of_pairs_is_that_of_the_scored_pairs_form(tiny_export: Exported, data: Path) -> None:
    from bge_export.commands import evaluate_pairs

    (score, *_) = evaluate_tasks(tiny_export.folder, ["STSBenchmark"], options(data, targets=("onnx-fp32",)))
    (same, *_) = evaluate_pairs(tiny_export.folder, data / "STSBenchmark/test.tsv")
    assert score.score == pytest.approx(same.spearman, abs=1e-3)


def test_an_instruction_stands_before_queries_alone(
    tiny_export: Exported, data: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from bge_export.bundle.manifest import read_manifest

    prompt = read_manifest(tiny_export.folder).spec.inputs.prompts["query"]
    assert prompt
    evaluate_tasks(tiny_export.folder, list(files()), options(data, targets=("onnx-fp32",)))
    assert {text for text in asked if text.startswith(prompt)} == {f"{prompt}sleep", f"{prompt}weather"}
    assert "about the dog sleeps" in asked


def test_what_is_there_is_not_made_again(tiny_export: Exported, data: Path, asked: list[str]) -> None:
    first = evaluate_tasks(tiny_export.folder, ["STS17", "SciFact"], options(data))
    del asked[:]
    again = evaluate_tasks(tiny_export.folder, ["STS17", "SciFact"], options(data))
    assert asked == []
    assert all(one.already for one in again)
    assert [(one.score, one.interval) for one in again] == [(one.score, one.interval) for one in first]


def test_a_result_that_was_half_written_is_made_again(tiny_export: Exported, data: Path) -> None:
    given = options(data, targets=("onnx-fp32",))
    (first,) = evaluate_tasks(tiny_export.folder, ["STS17"], given)
    (path,) = (one for one in results(data) if one.stem == "STS17")
    path.write_bytes(path.read_bytes()[:100])
    (again,) = evaluate_tasks(tiny_export.folder, ["STS17"], given)
    assert (again.already, again.score) == (False, first.score)


def test_other_data_or_another_artifact_is_scored_anew(tiny_export: Exported, data: Path, asked: list[str]) -> None:
    evaluate_tasks(tiny_export.folder, ["STSBenchmark"], options(data, targets=("onnx-fp32",)))
    changed = (data / "STSBenchmark/test.tsv").read_bytes().replace(b"hello world", b"hello there")
    (data / "STSBenchmark/test.tsv").write_bytes(changed)
    with pytest.raises(TextsError, match="Restore the folder"):
        evaluate_tasks(tiny_export.folder, ["STSBenchmark"], options(data, targets=("onnx-fp32",)))

    manifest = json.loads((data / "manifest.json").read_text("utf-8"))
    manifest["tasks"][0]["sha256"]["test.tsv"] = hashlib.sha256(changed).hexdigest()
    (data / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    del asked[:]
    (again,) = evaluate_tasks(tiny_export.folder, ["STSBenchmark"], options(data, targets=("onnx-fp32",)))
    assert (again.already, bool(asked)) == (False, True)

    (other,) = evaluate_tasks(tiny_export.folder, ["STSBenchmark"], options(data, targets=("onnx-fp16",)))
    assert not other.already


def test_the_checkpoint_is_scored_beside_and_the_published_score_is_shown(
    tiny_export: Exported, data: Path, tiny: Path
) -> None:
    given = options(data, targets=("onnx-fp32",), reference=str(tiny))
    itself, artifact = evaluate_tasks(tiny_export.folder, ["STSBenchmark"], given)
    assert itself.artifact == "checkpoint-fp32@torch:cpu"
    assert artifact.baseline == itself.artifact
    assert artifact.difference == pytest.approx(0, abs=1e-3)
    assert artifact.interval == pytest.approx((0, 0), abs=1e-3)
    assert (itself.published, artifact.published) == (50, 50)


def test_vectors_before_their_norm_are_another_experiment_and_give_the_same_cosines(
    tiny_export: Exported, data: Path
) -> None:
    (usual,) = evaluate_tasks(tiny_export.folder, ["STSBenchmark"], options(data, targets=("onnx-fp32",)))
    given = options(data, targets=("onnx-fp32",), unnormalized=True)
    (before,) = evaluate_tasks(tiny_export.folder, ["STSBenchmark"], given)
    assert not before.already
    assert before.score == pytest.approx(usual.score, abs=1e-6)

    def euclidean(path: Path) -> float:
        return json.loads(path.read_text("utf-8"))["scores"]["test"][0]["euclidean_pearson"]

    one, other = (path for path in results(data) if path.stem == "STSBenchmark")
    assert euclidean(one) != pytest.approx(euclidean(other), abs=1e-6)


@pytest.mark.parametrize(
    ("tasks", "changes", "said"),
    [
        (["NoSuchTask"], {}, "NoSuchTask"),
        (["STSBenchmark"], {"targets": ("onnx-q4",)}, "onnx-q4"),
        (["STSBenchmark"], {"runtime": "nothing"}, "nothing"),
    ],
)
def test_what_cannot_be_scored_is_said(
    tiny_export: Exported, data: Path, tasks: list[str], changes: dict[str, object], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        evaluate_tasks(tiny_export.folder, tasks, options(data, **changes))


def test_mteb_has_no_task_of_a_wrong_name(tiny_export: Exported, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="mteb has no task 'NoSuchTask'"):
        evaluate_tasks(tiny_export.folder, ["NoSuchTask"], TaskOptions(results=tmp_path / "scores"))


@contextmanager
def damaged(data: Path, change: Callable[[dict], object]) -> Iterator[None]:
    """Change the manifest of a folder of sets."""
    manifest = json.loads((data / "manifest.json").read_text("utf-8"))
    change(manifest["tasks"][0])
    (data / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    yield


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda one: one.pop("mteb_task"), "mteb_task"),
        (lambda one: one["files"].pop("test"), "no file 'test'"),
        (lambda one: one["sha256"].pop("test.tsv"), "no sha256"),
        (lambda one: one.update(dir="../elsewhere"), "outside"),
        (lambda one: one.update(type="poems"), "type"),
    ],
)
def test_a_bad_manifest_is_named(data: Path, change: Callable[[dict], object], said: str) -> None:
    with damaged(data, change), pytest.raises(TextsError, match=said):
        read_sets(data)


def test_a_folder_without_a_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(TextsError, match="manifest"):
        read_sets(tmp_path)
    (tmp_path / "manifest.json").write_text("[]", "utf-8")
    assert read_sets(tmp_path) == {}
    (tmp_path / "manifest.json").write_text("{}", "utf-8")
    with pytest.raises(TextsError, match="tasks"):
        read_sets(tmp_path)


def test_a_file_that_is_gone_is_named(data: Path) -> None:
    (data / "STS17/test.tsv").unlink()
    with pytest.raises(TextsError, match=r"test\.tsv"):
        refuse_changed(read_sets(data)["STS17"], data)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rows.tsv", b"score\ttext\n1\n", "row 1 has no 'text'"),
        ("rows.jsonl", b"[1]\n", "not a JSON object"),
        ("rows.jsonl", b"{\n", "cannot be read"),
        ("rows.jsonl.gz", b"no gzip", "cannot be read"),
        ("rows.jsonl.gz", gzip.compress(b'{"text": "a"}', mtime=0)[:-9], "damaged"),
        ("rows.tsv", b"\xff\xfe", "cannot be read"),
    ],
)
def test_a_damaged_file_of_rows_is_named(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TextsError, match=said):
        read_rows(tmp_path / name, ("text",))


def items(values: list[float], kind: str = "mean", gold: list[float] | None = None) -> Items:
    return Items(kind, np.asarray(values, dtype=np.float64), np.asarray(gold or [], dtype=np.float64))


def test_an_interval_holds_the_difference_and_pairs_the_items() -> None:
    drawn = np.random.default_rng(1)
    hard = drawn.normal(size=400)
    first, second = items(list(hard)), items(list(hard + 0.1 + 0.01 * drawn.normal(size=400)))
    low, high = interval(second, first) or (0, 0)
    assert 9 < low < 10 < high < 11  # unpaired it would span about twenty


def test_the_interval_of_a_correlation_is_of_spearmans() -> None:
    drawn = np.random.default_rng(2)
    gold = list(drawn.normal(size=300))
    good, bad = items(gold, "correlation", gold), items(list(drawn.normal(size=300)), "correlation", gold)
    low, high = interval(bad, good) or (0, 0)
    assert -120 < low < high < -80
    assert interval(good, good) == (0, 0)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (items([1, 2]), items([1, 2, 3])),
        (items([1, 2]), items([1, 2], "correlation", [1, 2])),
        (items([1, 2], "correlation", [1, 2]), items([1, 2], "correlation", [2, 1])),
        (items([1]), items([1])),
        (items([1, 1], "correlation", [1, 1]), items([1, 1], "correlation", [1, 1])),
    ],
)
def test_there_is_no_interval_of_what_cannot_be_paired(one: Items, other: Items) -> None:
    assert interval(one, other) is None
