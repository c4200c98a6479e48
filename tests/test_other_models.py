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

from bge_export.checkpoint.opening import open_checkpoint
from bge_export.errors import CheckpointError
from bge_export.heads.dense import dense_head

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


def test_an_adapter_beside_the_weights_is_refused(root: Path) -> None:
    write_json(root / "adapter_config.json", ADAPTER)
    refuses(root, "adapter_config.json", "LORA of someone/base", "merge_and_unload")


def test_an_adapter_alone_is_refused_as_one_and_not_as_a_folder_without_config(root: Path) -> None:
    write_json(root / "adapter_config.json", ADAPTER)
    (root / "config.json").unlink()
    (root / "model.safetensors").unlink()
    refuses(root, "LORA of someone/base")


@pytest.mark.parametrize("alone", [True, False])
def test_an_adapter_on_the_hub_is_refused(hub: Hub, machine: Machine, alone: bool) -> None:
    hub.files["adapter_config.json"] = b'{"peft_type": "LORA"}'
    if alone:
        del hub.files["config.json"]
    refused(machine.open(), "CheckpointError", "adapter", "merge_and_unload")


@pytest.mark.parametrize("kind", ["StaticEmbedding", "Router", "WordEmbeddings"])
def test_modules_are_read_before_a_config_that_they_do_not_need(root: Path, kind: str) -> None:
    write_modules(root, kind, "Pooling")
    (root / "config.json").unlink()
    refuses(root, "modules.json", kind)


def test_a_transformer_in_a_folder_of_its_own_is_named_before_the_config_that_lies_there(root: Path) -> None:
    change = [{"idx": 0, "name": "0", "path": "0_Transformer", "type": "sentence_transformers.models.Transformer"}]
    write_json(root / "modules.json", change)
    (root / "config.json").unlink()
    refuses(root, "modules.json", "0_Transformer")


@pytest.mark.parametrize(
    ("architecture", "labels", "what"),
    [
        ("BertForSequenceClassification", {"0": "LABEL_0"}, "a reranker"),
        ("BertForSequenceClassification", {"0": "no", "1": "yes"}, "a classifier"),
        ("BertForTokenClassification", {"0": "O"}, "a classifier of tokens"),
        ("BertForQuestionAnswering", None, "marks answers"),
    ],
)
def test_a_head_that_is_no_embedding_is_refused_with_a_pooling_too(
    bare: Path, architecture: str, labels: dict[str, str] | None, what: str
) -> None:
    change_json(bare / "config.json", architectures=[architecture], id2label=labels)
    refuses(bare, architecture, what, pooling="cls")
    refuses(bare, architecture, what)


def test_a_reranker_without_a_list_of_labels_is_known_by_its_head(bare: Path) -> None:
    change_json(bare / "config.json", architectures=["BertForSequenceClassification"])
    write_weights(bare / "model.safetensors", {EMBEDDING: (len(TOKENS), WIDTH), "classifier.weight": (1, WIDTH)})
    refuses(bare, "a reranker", pooling="cls")


def test_a_cross_encoder_of_sentence_transformers_is_refused(root: Path) -> None:
    change_json(root / "config_sentence_transformers.json", model_type="CrossEncoder")
    refuses(root, "CrossEncoder", "a reranker")


@pytest.mark.parametrize("architecture", ["BertForSequenceClassification", "BertForMaskedLM", "BertModel"])
def test_a_declared_pooling_makes_an_embedding_model_whatever_head_is_left(root: Path, architecture: str) -> None:
    change_json(root / "config.json", architectures=[architecture])
    assert dense_head(open_checkpoint(root).promise).pooling == "cls"


def test_a_projection_of_every_token_is_a_colbert_model(root: Path) -> None:
    write_weights(root / "model.safetensors", {EMBEDDING: (len(TOKENS), WIDTH), "linear.weight": (2, WIDTH)})
    refuses(root, "ColBERT", "'linear.weight' [2, 4]")


def test_an_embedding_that_is_cut_is_refused_and_one_of_full_width_is_not(root: Path) -> None:
    change_json(root / "config_sentence_transformers.json", truncate_dim=2)
    refuses(root, "truncate_dim", "2 of 4 dimensions")
    change_json(root / "config_sentence_transformers.json", truncate_dim=WIDTH)
    assert dense_head(open_checkpoint(root).promise).dim == WIDTH


def test_weights_that_are_rounded_on_loading_are_refused(root: Path) -> None:
    change_json(root / "config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True})
    refuses(root, "quantization_config", "bitsandbytes")


def test_a_pooling_file_with_a_width_alone_means_the_mean(root: Path) -> None:
    write_pooling(root, {"word_embedding_dimension": WIDTH})
    assert dense_head(open_checkpoint(root).promise).pooling == "mean"


@pytest.mark.parametrize("flag", ["pooling_mode_cls_token", "pooling_mode_lasttoken"])
def test_a_flag_that_versions_of_sentence_transformers_read_differently_is_refused(root: Path, flag: str) -> None:
    write_pooling(root, {"word_embedding_dimension": WIDTH, flag: True})
    refuses(root, flag, "without pooling_mode_mean_tokens")


def test_a_second_normalize_module_changes_nothing(root: Path) -> None:
    write_modules(root, "Transformer", "Pooling", "Normalize", "Normalize")
    assert dense_head(open_checkpoint(root).promise).normalize
