"""Small seeded models with token weights and vectors of tokens: BGE-M3, SPLADE, and ColBERT in two libraries' files."""

import json
from pathlib import Path
from typing import Any, Literal

import torch
from architectures import FAMILIES, HIDDEN, MAX_TOKENS, SIZES, build, enlarge
from safetensors.torch import save, save_file
from transformers import BertConfig, BertForMaskedLM

WIDTH = 16
"""M, the width of a token's vector."""


def build_m3(folder: Path, *, pickles: bool = True) -> Path:
    """Write a seeded XLM-R with the two layers that FlagEmbedding saves beside it; return the folder."""
    build("xlm-roberta", folder, "cls")
    draw = torch.Generator().manual_seed(33)
    layers = {
        "sparse_linear": {"weight": torch.randn(1, HIDDEN, generator=draw) * 0.3, "bias": torch.full((1,), 0.1)},
        "colbert_linear": {
            "weight": torch.randn(WIDTH, HIDDEN, generator=draw) * 0.3,
            "bias": torch.randn(WIDTH, generator=draw) * 0.1,
        },
    }
    for name, tensors in layers.items():
        if pickles:
            torch.save(tensors, folder / f"{name}.pt")
        else:
            save_file(tensors, folder / f"{name}.safetensors")
    return folder


def build_splade(folder: Path, **pooling: Any) -> Path:
    """Write a seeded BERT with its language model's head and a SpladePooling; return the folder."""
    build("bert", folder, "cls")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        vocabulary = FAMILIES["bert"].tokenizer().get_vocab_size()
        config = BertConfig(vocab_size=vocabulary, max_position_embeddings=MAX_TOKENS, pad_token_id=0, **SIZES)
        model = BertForMaskedLM(config)
        enlarge(model)

    tensors = {name: tensor.contiguous().clone() for name, tensor in model.state_dict().items()}
    (folder / "model.safetensors").write_bytes(save(tensors, metadata={"format": "pt"}))
    settings = model.config.to_dict() | {"architectures": ["BertForMaskedLM"], "dtype": "float32"}
    _write(folder / "config.json", {key: value for key, value in settings.items() if value is not None})

    _without_pooling(folder)
    _write(
        folder / "1_SpladePooling" / "config.json",
        {"pooling_strategy": "max", "activation_function": "relu", **pooling},
    )
    _modules(
        folder,
        {
            "": "sentence_transformers.sparse_encoder.models.MLMTransformer",
            "1_SpladePooling": "sentence_transformers.sparse_encoder.models.SpladePooling",
        },
    )
    _write(folder / "config_sentence_transformers.json", {"model_type": "SparseEncoder", "prompts": {}})
    return folder


def build_colbert(folder: Path, library: Literal["pylate", "sentence-transformers"] = "pylate") -> Path:
    """Write a seeded BERT with a Dense on token states, in the files of a library; return the folder."""
    build("bert", folder, "cls")
    _without_pooling(folder)
    draw = torch.Generator().manual_seed(3)
    own = "pylate.models.Dense.Dense" if library == "pylate" else "sentence_transformers.base.modules.dense.Dense"
    modules = {"": "sentence_transformers.models.Transformer", "1_Dense": own}
    settings: dict[str, Any] = {
        "in_features": HIDDEN,
        "out_features": WIDTH,
        "bias": False,
        "activation_function": "torch.nn.modules.linear.Identity",
    }

    if library == "pylate":
        declared = {"model_type": "ColBERT", "query_prefix": "[Q] ", "document_prefix": "[D] ", "document_length": 64}
    else:
        declared = {"model_type": "MultiVectorEncoder", "prompts": {"query": "[Q] ", "document": "[D] "}}
        settings |= {"module_input_name": "token_embeddings"}
        place = "sentence_transformers.multi_vector_encoder.modules.multi_vector_mask.MultiVectorMask"
        modules |= {"2_MultiVectorMask": place}
        modules |= {"3_Normalize": "sentence_transformers.base.modules.normalize.Normalize"}

        _write(folder / "3_Normalize" / "config.json", {"module_input_name": "token_embeddings"})

    _modules(folder, modules)
    _write(folder / "1_Dense" / "config.json", settings)
    save_file({"linear.weight": torch.randn(WIDTH, HIDDEN, generator=draw)}, folder / "1_Dense" / "model.safetensors")
    _write(folder / "config_sentence_transformers.json", declared)
    return folder


def _without_pooling(folder: Path) -> None:
    for name in ("1_Pooling/config.json", "2_Normalize/config.json"):
        (folder / name).unlink(missing_ok=True)


def _modules(folder: Path, kinds: dict[str, str]) -> None:
    entries = [{"idx": n, "name": str(n), "path": path, "type": kind} for n, (path, kind) in enumerate(kinds.items())]
    _write(folder / "modules.json", entries)


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
