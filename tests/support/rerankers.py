"""Small seeded rerankers, as `architectures` makes embedding models: BERT (MiniLM's cross-encoders) and XLM-R (bge)."""

import json
from pathlib import Path
from typing import Literal

import torch
from architectures import FAMILIES, MAX_TOKENS, OFFSET_SIZES, SIZES, enlarge
from safetensors.torch import save
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedModel,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

Kind = Literal["bert", "xlm-roberta"]


def build_reranker(kind: Kind, folder: Path, labels: int = 1) -> Path:
    """Write a seeded `*ForSequenceClassification` into a folder, without sentence-transformers files; return it."""
    folder.mkdir(parents=True, exist_ok=True)
    family = FAMILIES[kind]
    tokenizer = family.tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))

    special = dict(family.special)
    _write(folder / "special_tokens_map.json", special)
    _write(folder / "tokenizer_config.json", {**special, **family.settings, "model_max_length": MAX_TOKENS})

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(["bert", "xlm-roberta"].index(kind))
        model = _model(kind, tokenizer.get_vocab_size(), labels)
        enlarge(model)

    config = model.config.to_dict() | {"architectures": [type(model).__name__], "dtype": "float32"}
    config["id2label"] = {str(number): f"LABEL_{number}" for number in range(labels)}
    _write(folder / "config.json", {key: value for key, value in config.items() if value is not None})
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    (folder / "model.safetensors").write_bytes(save(tensors, metadata={"format": "pt"}))
    return folder


def _model(kind: Kind, vocabulary: int, labels: int) -> PreTrainedModel:
    if kind == "bert":
        config = BertConfig(
            vocab_size=vocabulary, max_position_embeddings=MAX_TOKENS, pad_token_id=0, num_labels=labels, **SIZES
        )
        return BertForSequenceClassification(config)

    sizes = XLMRobertaConfig(
        vocab_size=vocabulary, type_vocab_size=1, layer_norm_eps=1e-5, num_labels=labels, **OFFSET_SIZES
    )
    return XLMRobertaForSequenceClassification(sizes)


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
