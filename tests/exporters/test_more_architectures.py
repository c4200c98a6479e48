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

from bge_export.bundle.layout import write_layout
from bge_export.checkpoint.opening import open_checkpoint
from bge_export.commands.same_tokens import refuse_other_tokens
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

    tensors = {name: tensor.clone().contiguous() for name, tensor in model.state_dict().items()}
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
        (
            "deberta",
            "mean_tokens",
            {"relative_attention": True, "max_relative_positions": 24, "pos_att_type": ["c2p", "p2c"]},
        ),
        ("t5", "mean_tokens", {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}),
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


def test_a_checkpoint_whose_vectors_depend_on_padding_is_refused_before_anything_is_measured(
    tiny: Path, tmp_path: Path
) -> None:
    settings = {"conv_kernel_size": 3, "embedding_size": 32, "initializer_range": 0.5}
    folder = built(tiny, tmp_path / "model", "convbert", **settings)
    with pytest.raises(CheckpointError, match="the architecture 'convbert' gives a text another vector") as caught:
        embed_texts(open_checkpoint(folder), builtin_corpus(), threads=1)
    assert "\n" not in str(caught.value)


def test_a_model_that_fails_on_a_text_is_refused_with_the_text(tiny: Path, tmp_path: Path) -> None:
    """Nyströmformer takes only lengths that its segments divide."""
    folder = built(tiny, tmp_path / "model", "nystromformer", num_landmarks=4, segment_means_seq_len=64)
    with pytest.raises(CheckpointError, match=r"the model fails on the text '.*' of \d+ tokens: shape") as caught:
        embed_texts(open_checkpoint(folder), builtin_corpus(), threads=1)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_that_transformers_builds_otherwise_is_refused_before_anything_is_traced(
    tiny: Path, tmp_path: Path
) -> None:
    checkpoint = open_checkpoint(tiny)
    write_layout(checkpoint, tmp_path / "out")
    refuse_other_tokens(checkpoint, tmp_path / "out", builtin_corpus())

    normalizer = json.loads((tmp_path / "out/tokenizer.json").read_text("utf-8"))["normalizer"]
    change_json(tmp_path / "out/tokenizer.json", normalizer={**normalizer, "lowercase": not normalizer["lowercase"]})
    with pytest.raises(CheckpointError, match=r"makes other token ids of \d+ of 149 texts than tokenizer\.json"):
        refuse_other_tokens(checkpoint, tmp_path / "out", builtin_corpus())


def test_a_prompt_that_is_null_is_none(tiny: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "checkpoint"))
    change_json(folder / "config_sentence_transformers.json", prompts={"query": None, "document": "text: "})
    checkpoint = open_checkpoint(folder)
    assert not checkpoint.spec.inputs.prompts.get("query")

    write_layout(checkpoint, tmp_path / "out")
    written = json.loads((tmp_path / "out/config_sentence_transformers.json").read_text("utf-8"))
    assert written["prompts"] == {"query": "", "document": "text: "}
