"""Where batches are padded: a folder pads where its pooling is right, and says if the checkpoint padded elsewhere."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from modern import MODERN, build_modern
from tiny_checkpoint import change_json, write_pooling

from bge_export.bundle.layout import write_layout
from bge_export.checkpoint.opening import open_checkpoint
from bge_export.checkpoint.tested import TESTED
from bge_export.heads.dense import pool


def settings_of(folder: Path) -> dict:
    return json.loads((folder / "tokenizer_config.json").read_text("utf-8"))


@pytest.mark.parametrize("pooling", ["cls_token", "mean_tokens"])
@pytest.mark.parametrize("says", ["settings", "tokenizer.json", "class"])
def test_a_folder_pads_on_the_right_and_says_that_the_checkpoint_did_not(
    says: str, pooling: str, tiny: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "checkpoint"))
    flags = {"pooling_mode_mean_tokens": False, f"pooling_mode_{pooling}": True}
    write_pooling(folder, {"word_embedding_dimension": 64, **flags})
    if says == "settings":
        change_json(folder / "tokenizer_config.json", padding_side="left")
    elif says == "class":
        change_json(folder / "tokenizer_config.json", tokenizer_class="LlamaTokenizerFast")
    else:
        padding = {"strategy": "BatchLongest", "direction": "Left", "pad_to_multiple_of": None}
        change_json(folder / "tokenizer.json", padding={**padding, "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"})

    checkpoint = open_checkpoint(folder)
    assert checkpoint.padding_side == "left"
    assert any("pads on the left, the folder's on the right" in note for note in checkpoint.notes)
    write_layout(checkpoint, tmp_path / "out")
    assert settings_of(tmp_path / "out")["padding_side"] == "right"


def test_inspect_says_where_the_checkpoint_padded(bge, tiny: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "checkpoint"))
    change_json(folder / "tokenizer_config.json", padding_side="left")
    change_json(folder / "config.json", model_type="bert")
    done = bge("onnx", folder, "-o", tmp_path / "out", "--no-check")
    assert done.returncode == 0, done.stderr
    assert "pads on the left, the folder's on the right" in done.stderr

    manifest = json.loads((tmp_path / "out/bge_export.json").read_text("utf-8"))
    assert (manifest["source"]["padding_side"], manifest["source"]["tested"]) == ("left", True)
    shown = bge("inspect", tmp_path / "out")
    assert "on the right; the checkpoint's tokenizer pads on the left" in shown.stdout


def test_a_checkpoint_that_pools_the_last_token_keeps_its_side_without_a_word(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(build_modern("qwen3", tmp_path / "qwen3"))
    assert (checkpoint.padding_side, checkpoint.notes) == ("left", ())
    write_layout(checkpoint, tmp_path / "out")
    assert settings_of(tmp_path / "out")["padding_side"] == "left"


def test_the_tiny_checkpoint_pads_on_the_right_as_it_says_nothing(tiny: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(tiny)
    assert (checkpoint.padding_side, checkpoint.notes) == ("right", ())
    write_layout(checkpoint, tmp_path / "out")
    assert settings_of(tmp_path / "out").get("padding_side") == settings_of(tiny).get("padding_side")


def test_the_last_token_is_found_on_either_side_of_the_padding_and_between_holes() -> None:
    mask = np.array([[1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 1, 0], [1, 1, 1, 1]])
    states = np.arange(16, dtype=np.float32).reshape(4, 4, 1)
    assert pool(states, mask, "last").ravel().tolist() == [1, 7, 10, 15]


def test_the_tested_list_holds_what_the_tests_export(tiny: Path, tmp_path: Path) -> None:
    classic = {"bert", "roberta", "xlm-roberta", "distilbert", "mpnet"}
    assert {family.model_type for family in MODERN.values()} | classic | {
        "ernie",
        "deberta",
        "static-embedding",
    } == TESTED

    folder = Path(shutil.copytree(tiny, tmp_path / "checkpoint"))
    change_json(folder / "config.json", model_type="nezha")
    assert any("'nezha' is not in the tested list" in note for note in open_checkpoint(folder).notes)
