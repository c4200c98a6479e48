"""Scores of a folder's own files on its card, in its `model-index` and in `.eval_results/`."""

from pathlib import Path

import pytest
import yaml
from hub_repository import WritableHub
from huggingface_hub import ModelCard
from publishing import Done, Run
from task_results import FILE, write_result

from bge_export.bundle.integrity import CARD
from bge_export.bundle.manifest import read_bundle
from bge_export.evaluate.mteb_tasks import task_of
from bge_export.publish.scores import read_scores, result_files

pytestmark = pytest.mark.filterwarnings("ignore")  # mteb's libraries use each other's old names

REPO = "somebody/tiny-onnx"


def refused(done: Done, status: int, *parts: str) -> None:
    assert done.returncode == status, done.stdout + done.stderr
    for part in parts:
        assert part in done.stdout + done.stderr, done.stdout + done.stderr


@pytest.fixture
def scores(bundle: Path, tmp_path: Path) -> Path:
    """Results of both files of the folder, and of one with other bytes."""
    for number, artifact in enumerate(read_bundle(bundle)[1]):
        write_result(tmp_path / "scores", str(artifact.target), artifact.digest, 0.85 - number / 100)
    write_result(tmp_path / "scores", "onnx-q4", "0" * 64, 0.99)
    return tmp_path / "scores"


def test_scores_are_published_on_the_card_and_beside_it(
    bundle: Path, scores: Path, hub: WritableHub, command: Run
) -> None:
    done = command("publish", bundle, "--repo", REPO, "--scores", scores)
    assert done.returncode == 0, done.stderr
    head = hub.repositories[REPO].head
    card = head[CARD].decode()
    assert "| STS17 (en-en) | cosine_spearman | onnx-fp32 | onnxruntime:cpu | 85.00 |" in card
    assert "| onnx-fp16 | onnxruntime:cpu | 84.00 |" in card
    assert "99" not in card.partition("## Scores in tasks")[2].partition("##")[0]

    metrics = [(one.metric_name, one.metric_value) for one in ModelCard(card).data.eval_results]
    assert metrics == [
        ("cosine_spearman of onnx-fp32 in onnxruntime:cpu", 85.0),
        ("cosine_spearman of onnx-fp16 in onnxruntime:cpu", 84.0),
    ]

    (entry,) = yaml.safe_load(head[FILE])
    assert entry["dataset"] == {
        "id": "mteb/sts17-crosslingual-sts",
        "task_id": "STS17_en-en_test",
        "revision": "a" * 40,
    }
    assert entry["value"] == 85.0
    assert "onnx-fp32" in entry["notes"]
    assert command("verify", REPO).returncode == 0


def test_the_hub_is_told_what_mteb_would_tell_it(bundle: Path, scores: Path) -> None:
    from mteb._hf_integration.eval_result_model import HFEvalResult, HFEvalResultDataset

    (entry,) = yaml.safe_load(result_files(read_scores(scores, read_bundle(bundle)[1]))[FILE])
    known = task_of("STS17", None).metadata
    assert entry["dataset"]["id"] == known.dataset["path"]
    HFEvalResult(**{**entry, "dataset": HFEvalResultDataset(**entry["dataset"])})


def test_scores_on_plain_files_name_no_revision_of_the_hub(bundle: Path, tmp_path: Path) -> None:
    artifacts = read_bundle(bundle)[1]
    write_result(tmp_path / "s", str(artifacts[0].target), artifacts[0].digest, 0.5, revision="sha256-" + "b" * 64)
    (entry,) = yaml.safe_load(result_files(read_scores(tmp_path / "s", artifacts))[FILE])
    assert "revision" not in entry["dataset"]


def test_scores_of_other_bytes_are_refused(bundle: Path, tmp_path: Path, hub: WritableHub, command: Run) -> None:
    write_result(tmp_path / "s", "onnx-fp32", "0" * 64, 0.99)
    refused(command("publish", bundle, "--repo", REPO, "--scores", tmp_path / "s"), 2, "no scores of these files")
    assert REPO not in hub.repositories


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_a_damaged_result_is_named(bundle: Path, tmp_path: Path, command: Run, content: str) -> None:
    artifact = read_bundle(bundle)[1][0]
    path = write_result(tmp_path / "s", str(artifact.target), artifact.digest, 0.5)
    path.write_text(content, "utf-8")
    done = command("publish", bundle, "--repo", REPO, "--scores", tmp_path / "s", "--dry-run")
    refused(done, 3, "STS17.json")


def test_only_files_of_scores_may_lie_in_the_hubs_folder_for_them(bundle: Path, command: Run) -> None:
    (bundle / ".eval_results").mkdir()
    (bundle / ".eval_results/STS17.yaml").write_text("[]", "utf-8")
    assert command("verify", bundle).returncode == 0
    (bundle / ".eval_results/model.onnx").write_text("whose?", "utf-8")
    refused(command("verify", bundle), 3, ".eval_results/model.onnx")
