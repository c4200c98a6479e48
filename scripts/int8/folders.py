"""Checkpoints as ordinary sentence-transformers folders, each of which appears whole or not at all."""

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from recipes import FineTune
from safetensors.torch import save_file
from transformers import PreTrainedModel

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
TRAINING = "training.json"
"""What a fine-tune's folder says of how it was made."""


@contextmanager
def appearing(destination: Path) -> Iterator[Path]:
    """Give a folder to fill that takes its place when it is whole, and is removed where that fails."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{destination.name}-", dir=destination.parent) as staging:
        filled = Path(staging) / destination.name
        filled.mkdir()
        yield filled
        filled.rename(destination)


def write_fine_tune(
    folder: Path, recipe: FineTune, base: Path, model: PreTrainedModel, losses: Sequence[float]
) -> None:
    """Write all files of a fine-tune into an empty folder; `base` has the tokenizer."""
    for name in TOKENIZER_FILES:
        shutil.copyfile(base / name, folder / name)
    shutil.copyfile(base / "sentence_bert_config.json", folder / "sentence_bert_config.json")
    shutil.copyfile(base / "config_sentence_transformers.json", folder / "config_sentence_transformers.json")

    config = json.loads((base / "config.json").read_text("utf-8"))
    config["num_hidden_layers"] = model.config.num_hidden_layers
    config["torch_dtype"] = recipe.dtype
    _write_json(folder / "config.json", config)

    dtype = torch.bfloat16 if recipe.dtype == "bfloat16" else torch.float32
    weights = {name: tensor.detach().to(dtype).contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    _write_modules(folder, recipe, model.config.hidden_size)
    _write_json(folder / TRAINING, {"recipe": recipe.description, "final_loss": losses[-1], "losses": list(losses)})


def _write_modules(folder: Path, recipe: FineTune, dim: int) -> None:
    """Write the files that tell sentence-transformers how token states become a vector of `dim` numbers."""
    kinds = ["Transformer", "Pooling", *(["Normalize"] if recipe.normalize else [])]
    modules = [
        {
            "idx": number,
            "name": str(number),
            "path": "" if number == 0 else f"{number}_{kind}",
            "type": f"sentence_transformers.models.{kind}",
        }
        for number, kind in enumerate(kinds)
    ]
    _write_json(folder / "modules.json", modules)

    (folder / "1_Pooling").mkdir()
    pooling = {
        "word_embedding_dimension": dim,
        "pooling_mode_cls_token": recipe.pooling == "cls",
        "pooling_mode_mean_tokens": recipe.pooling == "mean",
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
    }
    _write_json(folder / "1_Pooling/config.json", pooling)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")
