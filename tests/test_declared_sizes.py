"""What config.json declares is held to the weights before anything is built of it."""

import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tiny_checkpoint import EMBEDDING, TOKENS, WIDTH, change_json, write_checkpoint

from bge_export.checkpoint.model import load_model
from bge_export.checkpoint.opening import open_checkpoint
from bge_export.errors import CheckpointError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "tiny")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_hidden_layers", 2**31),
        ("num_hidden_layers", 1e12),
        ("n_layers", 10_000),
        ("num_labels", 4_194_304),
        ("vocab_size", 2**31),
        ("vocab_size", 2**22),
        ("max_position_embeddings", 2**40),
        ("type_vocab_size", 2**31),
        ("intermediate_size", 2**25),
        ("num_attention_heads", 2**31),
        ("num_hidden_layers", float("inf")),
        ("vision_config", {"num_hidden_layers": 2**31}),
    ],
)
def test_a_size_far_beyond_the_weights_is_refused_before_anything_is_built(root: Path, key: str, value: object) -> None:
    change_json(root / "config.json", **{key: value})
    start = time.monotonic()
    with pytest.raises(CheckpointError) as caught:
        load_model(open_checkpoint(root))
    name = f"{key}.num_hidden_layers" if isinstance(value, dict) else key
    assert f"says {name}" in str(caught.value)
    assert "the weights" in str(caught.value)
    assert "Correct config.json" in str(caught.value)
    assert time.monotonic() - start < 5


def test_an_empty_tensor_with_a_long_axis_vouches_for_nothing(root: Path) -> None:
    save_file(
        {EMBEDDING: np.ones((len(TOKENS), WIDTH), np.float32), "x": np.ones((0, 2**40), np.float32)},
        root / "model.safetensors",
    )
    change_json(root / "config.json", num_labels=4_194_304)
    with pytest.raises(CheckpointError, match="num_labels"):
        open_checkpoint(root)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_hidden_layers": 24, "model_type": "albert"},
        {"max_position_embeddings": 131_072},
        {"rope_theta": 1e6, "num_labels": 1000},
        {"layer_norm_eps": 1e-12, "classifier_dropout": None, "num_hidden_layers": True},
    ],
)
def test_what_real_configurations_declare_is_not_refused(root: Path, changes: dict[str, object]) -> None:
    change_json(root / "config.json", **changes)
    open_checkpoint(root)
