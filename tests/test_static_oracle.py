"""The oracle of static embeddings reads tensors and tokens itself, and agrees with what is exported."""

from pathlib import Path

import numpy as np
import pytest
import torch
from static_models import TEXTS, UNKNOWN, WIDTH, expected, write_model2vec, write_static_embedding

from bge_export.checkpoint import static_model
from bge_export.checkpoint.opening import open_checkpoint
from bge_export.checkpoint.static_model import load_static
from bge_export.oracle.running import Eager

KINDS = {
    "divided": {"normalize": True},
    "undivided": {"normalize": False},
    "quantized": {"normalize": False, "quantized": True},
}


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_are_those_of_model2vec(kind: str, tmp_path: Path) -> None:
    folder = write_model2vec(tmp_path / "one", **KINDS[kind])  # type: ignore[arg-type]  # booleans of the kind
    _, vectors = Eager.load(open_checkpoint(folder), 1).embed([(text, text) for text in TEXTS])
    for text, vector in zip(TEXTS, vectors["mean"], strict=True):
        wanted = expected(folder, text, model2vec=True, normalize=KINDS[kind]["normalize"])
        np.testing.assert_allclose(vector, wanted, atol=2e-6 * max(1.0, float(np.linalg.norm(wanted))))


def test_unknown_tokens_count_for_a_static_embedding_of_sentence_transformers(tmp_path: Path) -> None:
    folder = write_static_embedding(tmp_path / "one")
    _, vectors = Eager.load(open_checkpoint(folder), 1).embed([("one", "cat \U0001f389")])
    wanted = expected(folder, "cat \U0001f389", model2vec=False, normalize=False)
    np.testing.assert_allclose(vectors["mean"][0], wanted, atol=1e-6)
    assert np.abs(wanted - expected(folder, "cat", model2vec=False, normalize=False)).max() > 0.1


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float64])
def test_tables_of_other_floats_are_read_as_float32(tmp_path: Path, stored: torch.dtype) -> None:
    from safetensors.torch import load_file
    from safetensors.torch import save_file as save

    folder = write_static_embedding(tmp_path / "one")
    table = load_file(folder / "model.safetensors")["embedding.weight"].to(stored)
    save({"embedding.weight": table}, folder / "model.safetensors")
    checkpoint = open_checkpoint(folder)
    ids = torch.arange(len(table))[None]
    for model in (load_static(checkpoint), Eager.load(checkpoint, 1).model):
        torch.testing.assert_close(model(ids)[0][0], table.float(), atol=0, rtol=0)


def test_the_oracle_and_the_exported_model_give_the_same_states(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(write_model2vec(tmp_path / "one", normalize=False, quantized=True))
    ids = torch.tensor([[5, UNKNOWN, 7, 0], [UNKNOWN, UNKNOWN, 0, 0], [8, 9, 10, 11]])
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 1, 1]])
    exported, own = load_static(checkpoint), Eager.load(checkpoint, 1).model
    there = mask.bool()
    torch.testing.assert_close(exported(ids, mask)[0][there], own(ids, attention_mask=mask)[0][there])
    assert not exported(ids, mask)[0][1].any()


def test_a_wrong_fold_is_not_the_oracles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = open_checkpoint(write_model2vec(tmp_path / "one", quantized=True))
    before = Eager.load(checkpoint, 1).model(torch.tensor([[5]]))[0]
    monkeypatch.setattr(static_model, "folded", lambda table, dropped: np.zeros((table.rows, WIDTH), np.float32))
    assert not load_static(checkpoint)(torch.tensor([[5]]))[0].any()
    torch.testing.assert_close(Eager.load(checkpoint, 1).model(torch.tensor([[5]]))[0], before)
