"""Any architecture that transformers builds is traced with its own mask, and the proof decides; others are named."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from exporting import export_model
from safetensors.torch import save_file
from tiny_checkpoint import change_json, write_pooling

from bge_export.checkpoint.opening import open_checkpoint
from bge_export.errors import CheckpointError, ExportError
from bge_export.exporters.onnx import OnnxExporter
from bge_export.graph.trace import trace
from bge_export.oracle.eager import embed_texts
from bge_export.texts.corpus import builtin_corpus

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 880,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
}


def built(tiny: Path, folder: Path, kind: str, pooling: str = "mean_tokens", **settings: object) -> Path:
    """Return a checkpoint of an architecture with seeded weights and the embedded checkpoint's tokenizer."""
    shutil.copytree(tiny, folder)
    config = transformers.AutoConfig.for_model(kind, **{**SIZES, **settings})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.AutoModel.from_config(config)

    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config.to_dict()), "utf-8")

    flags = {"pooling_mode_mean_tokens": False, f"pooling_mode_{pooling}": True}
    write_pooling(folder, {"word_embedding_dimension": 32, **flags})
    change_json(folder / "sentence_bert_config.json", max_seq_length=128)
    change_json(folder / "tokenizer_config.json", tokenizer_class="BertTokenizer")
    return folder


@pytest.mark.parametrize(
    ("kind", "pooling", "settings"),
    [
        ("ernie", "mean_tokens", {}),
        ("modernbert", "cls_token", {"local_attention": 16, "global_attn_every_n_layers": 2}),
        ("qwen3", "lasttoken", {"num_key_value_heads": 2, "head_dim": 8}),
        ("bert", "lasttoken", {"is_decoder": True}),
    ],
)
def test_an_architecture_with_a_mask_of_its_own_is_proven(
    kind: str, pooling: str, settings: dict[str, object], tiny: Path, tmp_path: Path
) -> None:
    checkpoint = built(tiny, tmp_path / kind, kind, pooling, **settings)
    done = export_model(OnnxExporter(), str(checkpoint), tmp_path / "out")
    assert done.proof is not None
    assert [bad.message for bad in done.proof.verdict.failures] == []


def test_an_architecture_that_cannot_be_traced_is_named_with_the_cause_in_one_sentence(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no such operator.\nA page of advice.")

    monkeypatch.setattr("torch.onnx.export", fail)
    with pytest.raises(ExportError, match=r"architecture 'bert': no such operator\. It cannot") as caught:
        trace(open_checkpoint(tiny), tmp_path, sentence_embedding=False)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_whose_vectors_depend_on_the_texts_before_is_refused(tiny: Path, tmp_path: Path) -> None:
    folder = built(
        tiny, tmp_path / "big", "big_bird", block_size=16, num_random_blocks=1, attention_type="block_sparse"
    )
    with pytest.raises(CheckpointError, match=r"depend on the texts before: embedding changed 'attention_type'"):
        embed_texts(open_checkpoint(folder), builtin_corpus(), threads=1)
