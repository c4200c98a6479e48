"""The lab of consumers: what a library gives is compared with the checkpoint, and its errors are named."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from exporting import export_model

from bge_export.exporters.onnx import OnnxExporter

ROOT = Path(__file__).parent.parent
LAB = ROOT / "lab"
sys.path.insert(0, str(LAB))

import consumer_table as table  # noqa: E402
import run as lab  # noqa: E402

PLAIN = """
import onnxruntime
import tokenizers
from lane import lane, main

@lane("plain", "onnx-fp32")
def plain(job):
    tokenizer = tokenizers.Tokenizer.from_file(job.folder + "/tokenizer.json")
    session = onnxruntime.InferenceSession(job.file("onnx-fp32"))

    def embed(texts):
        for text in texts:
            ids = tokenizer.encode(text).ids
            ones, zeros = [1] * len(ids), [0] * len(ids)
            feed = {"input_ids": [ids], "attention_mask": [ones], "token_type_ids": [zeros]}
            yield session.run(None, feed)[0][0, 0]

    return embed, lambda texts: embed([job.prompt + text for text in texts])

@lane("broken", "onnx-fp32")
def broken(job):
    raise ValueError("no such\\nthing")

@lane("of weights, which the folder lacks")
def weights(job):
    raise AssertionError

main("onnxruntime")
"""
WANTED = {"documents": np.eye(3), "edge cases": np.eye(3)[:1], "queries": np.eye(3)[:2]}
NEEDED = {"onnx-fp32": 0.99999}


def lane(**changes: object) -> dict[str, object]:
    """Return a lane that gives the checkpoint's own vectors, but for changes."""
    rows = {kind: vectors.tolist() for kind, vectors in WANTED.items()}
    return {"name": "one", "target": "onnx-fp32", "setting": "", "fault": "", **rows, **changes}


def test_the_checkpoints_vectors_are_the_same_at_any_length() -> None:
    found = lab.judged(lane(), WANTED, NEEDED)
    assert found["same"]
    assert found["norm_off"] == 0
    assert found["cosines"] == {"documents": 1.0, "edge cases": 1.0, "queries": 1.0}

    longer = lab.judged(lane(documents=(3 * np.eye(3)).tolist()), WANTED, NEEDED)
    assert longer["same"]
    assert longer["norm_off"] == 2


@pytest.mark.parametrize("kind", ["documents", "queries"])
@pytest.mark.parametrize(
    "rows",
    [np.ones((3, 3)), np.eye(3)[::-1], np.eye(4), "ValueError: too long"],
    ids=["turned", "order", "width", "error"],
)
def test_other_vectors_and_errors_are_not(kind: str, rows: object) -> None:
    given = rows if isinstance(rows, str) else rows[: len(WANTED[kind])].tolist()
    assert not lab.judged(lane(**{kind: given}), WANTED, NEEDED)["same"]


def test_edge_cases_are_shown_and_decide_nothing() -> None:
    found = lab.judged(lane(**{"edge cases": "IndexError: 513 tokens"}), WANTED, NEEDED)
    assert found["same"]
    assert found["cosines"]["edge cases"] == "IndexError: 513 tokens"


def test_a_lane_that_cannot_be_opened_says_why() -> None:
    found = lab.judged(
        {"name": "one", "target": "", "setting": "", "fault": "", "error": "OSError: x"}, WANTED, {"": 1.0}
    )
    assert (found["same"], found["error"]) == (False, "OSError: x")


def test_texts_are_spread_over_all_of_them() -> None:
    assert lab.spread(list("abcdefghij"), 4) == ["a", "d", "g", "j"]
    assert lab.spread(["a", "b"], 5) == ["a", "b"]


def test_every_consumer_has_exact_versions_and_no_address() -> None:
    for name in lab.consumers():
        script = LAB / "consumers" / f"{name}.py"
        needed = lab.NEEDS.findall(script.read_text("utf-8"))
        assert script.with_suffix(".txt").is_file() == bool(needed), name
        if needed:
            lines = script.with_suffix(".txt").read_text("utf-8").splitlines()
            assert all(re.fullmatch(r"[\w.\[\]-]+==\S+( ; .*)?", line) for line in lines), name


def test_a_consumer_embeds_with_the_folder_alone(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that needs no environment of its own: it runs in this one, and knows nothing of bge_export."""
    consumers = tmp_path / "consumers"
    consumers.mkdir()
    (consumers / "plain.py").write_text(PLAIN, "utf-8")
    (tmp_path / "lane.py").write_bytes((LAB / "lane.py").read_bytes())
    monkeypatch.setattr(lab, "LAB", tmp_path)
    folder = export_model(OnnxExporter(), str(tiny), tmp_path / "out", check=False).folder

    report = lab.report_of(folder, str(tiny), ["plain"])
    plain, broken = report["consumers"]["plain"]["lanes"]
    assert plain["same"]
    assert plain["norm_off"] > 0.1
    assert min(plain["cosines"].values()) > 0.99999
    assert (broken["same"], broken["error"]) == (False, "ValueError: no such")
    assert "onnxruntime" in report["consumers"]["plain"]["versions"]


def test_the_table_has_a_row_for_each_lane_of_the_report() -> None:
    report = json.loads(table.REPORT.read_text("utf-8"))
    lanes = [one for found in report["consumers"].values() for one in found["lanes"]]
    rows = [line for line in table.table().splitlines() if line.startswith("| ")]
    assert len(rows) - 1 == len(lanes) + sum("error" in found for found in report["consumers"].values())
    assert {len(re.split(r"(?<!\\)\|", row)) for row in rows} == {10}


def test_each_kind_of_model_has_rows_of_its_own_libraries() -> None:
    rows = json.loads(table.OWN_REPORT.read_text("utf-8"))
    classes = {"CrossEncoder", "SparseEncoder", "MultiVectorEncoder", "FlagReranker", "FlagModel", "BGEM3FlagModel"}
    assert classes <= {row["loaded"] for row in rows}
    assert len(table.own_table().splitlines()) == 2 + len(rows)

    # PyTorch runs the very weights; only BGE-M3's two layers must be loaded by hand.
    torch = [
        row for row in rows if row["backend"] == "torch" and (row["loaded"], row["setting"]) != ("BGEM3FlagModel", "")
    ]
    assert all(row["difference"] <= table.NEAR for row in torch)
    assert all(row["difference"] <= table.NEAR for row in rows if row["loaded"] == "CrossEncoder")


def test_nobody_is_left_out_of_the_report() -> None:
    assert set(json.loads(table.REPORT.read_text("utf-8"))["consumers"]) == set(lab.consumers())


def test_an_unknown_consumer_is_answered_with_those_that_are_known() -> None:
    command = [sys.executable, LAB / "run.py", "nobody"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "there is no consumer 'nobody', only chromadb" in done.stderr
