"""Reads `config.json` of a checkpoint, and refuses architectures that cannot be exported."""

from collections.abc import Mapping
from pathlib import Path

from bge_export.checkpoint.other_models import ENCODER_HALVES
from bge_export.errors import CheckpointError
from bge_export.files.json_files import positive_integer, read_object

CONFIG = "config.json"
WIDTHS = ("hidden_size", "dim", "d_model", "n_embd", "emb_dim")
"""Keys of `config.json` that hold the width of the token states, the usual one first."""


def read_config(path: Path) -> dict[str, object]:
    """Return `config.json` of an encoder whose code is part of transformers."""
    config = read_object(path)
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or not model_type:
        raise CheckpointError(f"{path} names no model_type. Give a checkpoint saved by transformers.")

    if config.get("auto_map"):
        raise CheckpointError(
            f"{path} asks to run code from the repository (auto_map), which bge-export never does. "
            "Choose a checkpoint whose architecture transformers knows."
        )
    if config.get("is_encoder_decoder") is True and model_type not in ENCODER_HALVES:
        raise CheckpointError(
            f"{path} describes an encoder-decoder ({model_type}), which is not supported. "
            "Choose a model of an encoder or of a decoder alone."
        )

    quantized = config.get("quantization_config")
    if quantized:
        method = quantized.get("quant_method") if isinstance(quantized, dict) else None
        raise CheckpointError(
            f"{path} declares quantized weights (quantization_config, {method or 'no method named'}). "
            "Choose the checkpoint before its quantization; if the weights are stored in full, remove the key."
        )

    return config


def hidden_size(path: Path, config: Mapping[str, object]) -> int:
    """Return D, the hidden size; some architectures name it differently (DistilBERT: `dim`)."""
    named = (positive_integer(config.get(name)) for name in WIDTHS)
    width = next((width for width in named if width is not None), None)
    if width is None:
        raise CheckpointError(f"{path} gives no hidden_size for {config.get('model_type')!r}. Correct config.json.")
    return width


def vocabulary_size(path: Path, config: Mapping[str, object]) -> int:
    """Return V, the number of token ids."""
    rows = positive_integer(config.get("vocab_size"))
    if rows is None:
        raise CheckpointError(f"{path} gives no vocab_size. Correct config.json.")
    return rows
