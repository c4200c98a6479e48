"""Gemma's factor of the token table is part of the table, so that a lookup in float16 rounds once."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from modern import build_modern

from bge_export.checkpoint.model import load_model
from bge_export.checkpoint.opening import open_checkpoint
from bge_export.graph.embedding_scale import fold_embedding_scale
from bge_export.graph.trace import trace
from bge_export.oracle.sweep import token_table
from bge_export.precision import find_conversion, find_precision
from bge_export.token_tables import open_lookup, row_errors


def test_the_states_are_the_same_bit_for_bit(tmp_path: Path) -> None:
    model = load_model(open_checkpoint(build_modern("gemma3", tmp_path / "gemma3")))
    ids = torch.arange(3, 60)[None]
    before = model(ids).last_hidden_state
    fold_embedding_scale(model)
    assert type(model.get_input_embeddings()) is torch.nn.Embedding
    assert torch.equal(model(ids).last_hidden_state, before)


def test_no_row_of_the_table_is_off_by_more_than_one_rounding_to_float16(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(build_modern("gemma3", tmp_path / "gemma3"))
    model = find_conversion("fp16")(trace(checkpoint, tmp_path, sentence_embedding=False), checkpoint)
    model.ir_version = 8
    onnx.save(model, tmp_path / "fp16.onnx")
    step = find_precision("fp16").table
    assert step is not None

    errors = row_errors(open_lookup(tmp_path / "fp16.onnx", "onnx"), token_table(checkpoint), step)
    assert errors is not None
    # Rounded after each of three steps, the worst row of this table has 0.96; of others it is refused, at 1.02.
    assert np.nanmax(errors) < 0.75


@pytest.mark.parametrize("name", ["qwen3", "t5"])
def test_a_table_without_a_factor_stays(name: str, tmp_path: Path) -> None:
    model = load_model(open_checkpoint(build_modern(name, tmp_path / name)))
    table = model.get_input_embeddings()
    fold_embedding_scale(model)
    assert model.get_input_embeddings() is table
