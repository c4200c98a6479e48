"""A checkpoint of a few kilobytes, written file by file, for tests that break one of them."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import WordPiece

TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "world", "##s")
EMBEDDING = "embeddings.word_embeddings.weight"
WIDTH = 4


def write_checkpoint(root: Path) -> Path:
    """Write a whole BERT-like checkpoint with CLS pooling and normalisation, in the old schema."""
    root.mkdir(parents=True, exist_ok=True)
    write_json(
        root / "config.json",
        {
            "model_type": "bert", "hidden_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 1,
            "max_position_embeddings": 32, "type_vocab_size": 2, "vocab_size": len(TOKENS), "pad_token_id": 0,
        },
    )  # fmt: skip
    write_tokenizer(root)
    write_weights(root / "model.safetensors", {EMBEDDING: (len(TOKENS), WIDTH), "encoder.bias": (WIDTH,)})
    write_modules(root, "Transformer", "Pooling", "Normalize")
    write_pooling(root, {"word_embedding_dimension": WIDTH, "pooling_mode_cls_token": True,
                         "pooling_mode_mean_tokens": False})  # fmt: skip
    write_json(root / "sentence_bert_config.json", {"max_seq_length": 16, "do_lower_case": True})
    write_json(root / "config_sentence_transformers.json", {"__version__": {"sentence_transformers": "2.2.2"}})
    return root


def write_tokenizer(root: Path) -> None:
    tokenizer = Tokenizer(WordPiece({token: number for number, token in enumerate(TOKENS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.save(str(root / "tokenizer.json"))
    (root / "vocab.txt").write_text("".join(f"{token}\n" for token in TOKENS), "utf-8")
    write_json(root / "tokenizer_config.json", {"do_lower_case": True, "model_max_length": 24})


def write_weights(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    save_file({name: np.ones(shape, np.float32) for name, shape in shapes.items()}, path)


def write_modules(root: Path, *kinds: str, package: str = "sentence_transformers.models") -> None:
    folders = ["" if kind == "Transformer" else f"{index}_{kind}" for index, kind in enumerate(kinds)]
    write_json(
        root / "modules.json",
        [{"idx": i, "name": str(i), "path": folders[i], "type": f"{package}.{kind}"} for i, kind in enumerate(kinds)],
    )


def write_pooling(root: Path, config: Mapping[str, object]) -> None:
    (root / "1_Pooling").mkdir(exist_ok=True)
    write_json(root / "1_Pooling" / "config.json", config)


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), "utf-8")


def change_json(path: Path, **changes: object) -> None:
    """Set keys of a JSON object; None takes a key out."""
    value = json.loads(path.read_text("utf-8")) | changes
    write_json(path, {key: kept for key, kept in value.items() if kept is not None})
