"""What looks like a text encoder and is another model, or an encoder with something beside it, is refused by name."""

from pathlib import Path

import pytest
from hub_machine import Machine, refused
from hub_server import Hub
from tiny_checkpoint import (
    EMBEDDING,
    TOKENS,
    WIDTH,
    change_json,
    write_checkpoint,
    write_json,
    write_modules,
    write_pooling,
    write_weights,
)

from bge_export.checkpoint.opening import open_checkpoint, open_encoder
from bge_export.errors import CheckpointError
from bge_export.heads.dense import dense_head
from bge_export.heads.score import ScoreHead

ADAPTER = {"peft_type": "LORA", "base_model_name_or_path": "someone/base", "r": 8}
WITHOUT_MODULES = ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "tiny")


@pytest.fixture
def bare(root: Path) -> Path:
    """A checkpoint without sentence-transformers files, for which --pooling is given."""
    for name in WITHOUT_MODULES:
        (root / name).unlink()
    (root / "1_Pooling" / "config.json").unlink()
    (root / "1_Pooling").rmdir()
    return root


def refuses(root: Path, *parts: str, **options: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(root, **options)  # type: ignore[arg-type]
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize("alone", [True, False])
def test_an_adapter_whose_weights_are_missing_is_refused_as_one(root: Path, alone: bool) -> None:
    write_json(root / "adapter_config.json", ADAPTER)
    if alone:
        (root / "config.json").unlink()
        (root / "model.safetensors").unlink()
    refuses(root, "adapter_config.json", "adapter_model.safetensors, are missing")
    (root / "adapter_model.bin").write_bytes(b"")
    refuses(root, "adapter_model.bin is a pickle")


@pytest.mark.parametrize("alone", [True, False])
def test_the_adapter_of_a_model_on_the_hub_is_fetched_with_it(hub: Hub, machine: Machine, alone: bool) -> None:
    hub.files["adapter_config.json"] = b'{"peft_type": "LORA"}'
    if alone:
        del hub.files["config.json"]
    refused(machine.open(), "CheckpointError", "adapter_model.safetensors", "damaged")


@pytest.mark.parametrize("kind", ["Router", "WordEmbeddings"])
def test_modules_are_read_before_a_config_that_they_do_not_need(root: Path, kind: str) -> None:
    write_modules(root, kind, "Pooling")
    (root / "config.json").unlink()
    refuses(root, "modules.json", kind)


def test_a_transformer_in_a_folder_of_its_own_is_named_before_the_config_that_lies_there(root: Path) -> None:
    change = [{"idx": 0, "name": "0", "path": "0_Transformer", "type": "sentence_transformers.models.Transformer"}]
    write_json(root / "modules.json", change)
    (root / "config.json").unlink()
    refuses(root, "modules.json", "0_Transformer")


RERANKER = {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "LABEL_0"}}


@pytest.mark.parametrize(
    ("architecture", "labels", "what"),
    [
        ("BertForSequenceClassification", {"0": "no", "1": "yes"}, "it has 2 labels, and a reranker has one"),
        ("BertForTokenClassification", {"0": "O"}, "a classifier of tokens"),
        ("BertForQuestionAnswering", None, "marks answers"),
        ("BertForMaskedLM", None, "fills in masked words"),
        ("BertForPreTraining", None, "the heads of its training"),
        ("BertLMHeadModel", None, "continues texts"),
    ],
)
def test_another_head_is_refused_by_its_name_with_a_pooling_too(
    bare: Path, architecture: str, labels: dict[str, str] | None, what: str
) -> None:
    change_json(bare / "config.json", architectures=[architecture], id2label=labels)
    refuses(bare, architecture, what, "--as embedding", pooling="cls")
    refuses(bare, architecture, what, "--as embedding")
    assert dense_head(open_encoder(bare, pooling="cls").spec).pooling == "cls"


def test_a_masked_language_model_is_told_how_a_splade_gets_its_module(bare: Path) -> None:
    """Nothing in its files tells one that was trained as a SPLADE from any other, so none is taken for it."""
    change_json(bare / "config.json", architectures=["BertForMaskedLM"])
    refuses(bare, "SparseEncoder(MODEL).save_pretrained(FOLDER)")
    change_json(bare / "config.json", architectures=["BertForQuestionAnswering"])
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(bare)
    assert "SparseEncoder" not in str(caught.value)


def test_one_label_makes_a_reranker_that_reads_pairs(bare: Path) -> None:
    change_json(bare / "config.json", **RERANKER)
    spec = open_checkpoint(bare).spec
    assert spec.is_reranker
    assert spec.heads == {"score": ScoreHead(1)}


@pytest.mark.parametrize(
    ("option", "name"), [({"pooling": "cls"}, "--pooling"), ({"query_prefix": "q"}, "--query-prefix")]
)
def test_a_reranker_is_not_embedded_because_of_an_option_of_embeddings(
    bare: Path, option: dict[str, str], name: str
) -> None:
    change_json(bare / "config.json", **RERANKER)
    refuses(bare, "is a reranker", f"Leave out {name}", "--as embedding", **option)


def test_a_reranker_is_embedded_where_that_is_asked_for(bare: Path) -> None:
    change_json(bare / "config.json", **RERANKER)
    spec = open_encoder(bare, pooling="mean").spec
    assert not spec.is_reranker
    assert dense_head(spec).pooling == "mean"


def test_a_reranker_whose_label_only_the_weights_tell_is_refused_as_transformers_gives_it_two(bare: Path) -> None:
    change_json(bare / "config.json", architectures=["BertForSequenceClassification"])
    write_weights(bare / "model.safetensors", {EMBEDDING: (len(TOKENS), WIDTH), "classifier.weight": (1, WIDTH)})
    refuses(bare, "reranker", "id2label")


@pytest.mark.parametrize(
    ("tensor", "what"),
    [
        ("classifier.weight", "a classifier or a reranker"),
        ("classifier.out_proj.weight", "a classifier or a reranker"),
        ("score.weight", "a classifier or a reranker"),
        ("qa_outputs.weight", "marks answers"),
    ],
)
@pytest.mark.parametrize("architectures", [["BertModel"], None])
def test_the_weights_of_a_head_that_nothing_names_are_refused(
    bare: Path, tensor: str, what: str, architectures: list[str] | None
) -> None:
    change_json(bare / "config.json", architectures=architectures)
    write_weights(bare / "model.safetensors", {EMBEDDING: (len(TOKENS), WIDTH), tensor: (1, WIDTH)})
    refuses(bare, tensor, what, "--as embedding", pooling="cls")
    assert not open_encoder(bare, pooling="cls").spec.is_reranker


@pytest.mark.parametrize("tensor", ["cls.predictions.bias", "lm_head.bias"])
def test_the_head_of_a_language_model_is_refused_unless_the_architecture_is_an_encoders(
    bare: Path, tensor: str
) -> None:
    write_weights(bare / "model.safetensors", {EMBEDDING: (len(TOKENS), WIDTH), tensor: (len(TOKENS),)})
    refuses(bare, tensor, "language model", pooling="cls")
    change_json(bare / "config.json", architectures=["BertModel"])
    assert not open_checkpoint(bare, pooling="cls").spec.is_reranker


def test_files_that_declare_a_cross_encoder_of_another_architecture_are_refused(root: Path) -> None:
    change_json(root / "config_sentence_transformers.json", model_type="CrossEncoder")
    refuses(root, "CrossEncoder", "a reranker", "architectures")


@pytest.mark.parametrize("settings", [{"model_type": "CrossEncoder"}, {}])
def test_the_files_of_a_cross_encoder_since_5_4_are_those_of_a_reranker(bare: Path, settings: dict[str, str]) -> None:
    change_json(bare / "config.json", **RERANKER)
    write_modules(bare, "Transformer")
    write_json(bare / "config_sentence_transformers.json", {**settings, "activation_fn": "torch.nn.Identity"})
    write_json(bare / "sentence_bert_config.json", {"transformer_task": "sequence-classification"})
    assert open_checkpoint(bare).spec.is_reranker


def test_a_reranker_that_puts_prompts_before_its_texts_is_refused(bare: Path) -> None:
    change_json(bare / "config.json", **RERANKER)
    write_json(bare / "config_sentence_transformers.json", {"prompts": {"query": "rank: "}})
    refuses(bare, "prompts")


@pytest.mark.parametrize("architecture", ["BertForSequenceClassification", "BertForMaskedLM", "BertModel"])
def test_a_declared_pooling_makes_an_embedding_model_whatever_head_is_left(root: Path, architecture: str) -> None:
    change_json(root / "config.json", architectures=[architecture])
    assert dense_head(open_checkpoint(root).spec).pooling == "cls"


def test_a_projection_of_every_token_is_a_colbert_model(root: Path) -> None:
    write_weights(root / "model.safetensors", {EMBEDDING: (len(TOKENS), WIDTH), "linear.weight": (2, WIDTH)})
    refuses(root, "ColBERT", "'linear.weight' [2, 4]")


def test_an_embedding_is_as_wide_as_truncate_dim_says(root: Path) -> None:
    change_json(root / "config_sentence_transformers.json", truncate_dim=2)
    assert dense_head(open_checkpoint(root).spec).dim == 2
    change_json(root / "config_sentence_transformers.json", truncate_dim=WIDTH)
    assert dense_head(open_checkpoint(root).spec).dim == WIDTH


def test_weights_that_are_rounded_on_loading_are_refused(root: Path) -> None:
    change_json(root / "config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True})
    refuses(root, "quantization_config", "bitsandbytes")


def test_a_pooling_file_with_a_width_alone_means_the_mean(root: Path) -> None:
    write_pooling(root, {"word_embedding_dimension": WIDTH})
    assert dense_head(open_checkpoint(root).spec).pooling == "mean"


@pytest.mark.parametrize("flag", ["pooling_mode_cls_token", "pooling_mode_lasttoken"])
def test_a_flag_that_versions_of_sentence_transformers_read_differently_is_refused(root: Path, flag: str) -> None:
    write_pooling(root, {"word_embedding_dimension": WIDTH, flag: True})
    refuses(root, flag, "without pooling_mode_mean_tokens")


def test_a_second_normalize_module_changes_nothing(root: Path) -> None:
    write_modules(root, "Transformer", "Pooling", "Normalize", "Normalize")
    assert dense_head(open_checkpoint(root).spec).normalize
