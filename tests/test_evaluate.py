from pathlib import Path

import numpy as np
import pytest

from bge_export.commands import Exported, evaluate_pairs
from bge_export.errors import TextsError, UsageError
from bge_export.evaluate.similarity import read_pairs

LINES = (
    "score\tsentence1\tsentence2",
    "5\tthe dog sleeps\tthe dog sleeps",
    '1\ta "quoted" text\tsomething else entirely',
    "3\thello world\thello there",
)


def write(path: Path, lines: tuple[str, ...] = LINES) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def test_every_output_of_every_artifact_is_scored(tiny_export: Exported, tmp_path: Path) -> None:
    scores = evaluate_pairs(tiny_export.folder, write(tmp_path / "task/test.tsv"))
    assert [(s.target, s.output) for s in scores] == [
        (target, output)
        for target in ("onnx-fp32", "onnx-fp16")
        for output in ("last_hidden_state", "sentence_embedding")
    ]
    assert all(-100 <= score.spearman <= 100 and score.pairs == 3 for score in scores)


def test_the_score_is_the_rank_correlation(tiny_export: Exported, tmp_path: Path, monkeypatch) -> None:
    vectors = {"a": [1, 0], "b": [1, 0.1], "c": [1, 1], "d": [0, 1]}
    pairs = write(tmp_path / "t.tsv", (LINES[0], "1\ta\td", "2\ta\tc", "3\ta\tb"))
    monkeypatch.setattr(
        "bge_export.evaluate.similarity.embed",
        lambda *a: {"x": np.asarray([vectors[text] for text in a[4]], dtype=np.float64)},
    )
    assert {score.spearman for score in evaluate_pairs(tiny_export.folder, pairs)} == {100.0}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("sentence1\tsentence2", "a\tb"), "score"),
        ((LINES[0], "x\ta\tb", "1\ta\tb"), "number"),
        ((LINES[0], "1\ta", "2\ta\tb"), "cells"),
        ((LINES[0], "1\ta\tb"), "two pairs"),
        ((LINES[0], "nan\ta\tb", "2\ta\tb"), "finite"),
        ((LINES[0], "2\ta\tb", "2.0\tc\td"), "every pair has the score 2"),
    ],
)
def test_a_bad_file_of_pairs_is_named(tmp_path: Path, lines: tuple[str, ...], message: str) -> None:
    with pytest.raises(TextsError, match=message):
        read_pairs(write(tmp_path / "t.tsv", lines))


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    path = write(tmp_path / "t.tsv")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_pairs(path).first[0] == "the dog sleeps"


def test_a_runtime_that_reads_nothing_is_said(tiny_export: Exported, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no 'nothing' among the runtimes"):
        evaluate_pairs(tiny_export.folder, write(tmp_path / "t.tsv"), runtime="nothing")
