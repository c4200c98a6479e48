"""The tiny checkpoint with modules after its pooling, and their arithmetic once more, in torch."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tiny_checkpoint import change_json
from transformers import AutoModel, AutoTokenizer

WIDTH = 64
"""Of the tiny checkpoint's states."""


@dataclass(frozen=True)
class Step:
    """One module: its class, and for Dense the width that it gives, its activation and whether it has a bias."""

    kind: Literal["Dense", "LayerNorm", "Normalize"]
    dim: int = WIDTH
    activation: str = "torch.nn.modules.activation.Tanh"
    bias: bool = True


NORMALIZE = Step("Normalize")
LAYER_NORM = Step("LayerNorm")


def dense(dim: int, activation: str = "activation.Tanh", *, bias: bool = True) -> Step:
    return Step("Dense", dim, f"torch.nn.modules.{activation}", bias)


def follow(
    source: Path, folder: Path, steps: Sequence[Step], *, seed: int = 0, dtype: torch.dtype | None = None
) -> Path:
    """Write a copy of a checkpoint whose pooling these modules follow, with seeded weights."""
    shutil.copytree(source, folder)
    random = torch.Generator().manual_seed(seed)
    names, paths, width = ["Transformer", "Pooling"], ["", "1_Pooling"], WIDTH

    for number, step in enumerate(steps, start=2):
        names.append(step.kind)
        paths.append(f"{number}_{step.kind}")
        if step.kind == "Normalize":
            continue
        inside = folder / paths[-1]
        inside.mkdir()
        width = _write(inside, step, width, random, dtype or torch.float32)

    entries = zip(names, paths, strict=True)
    modules = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{name}"}
        for n, (name, path) in enumerate(entries)
    ]
    (folder / "modules.json").write_text(json.dumps(modules), "utf-8")
    return folder


def _write(folder: Path, step: Step, width: int, random: torch.Generator, dtype: torch.dtype) -> int:
    """Write one module; return the width that it gives."""
    if step.kind == "LayerNorm":
        tensors = {"norm.weight": torch.rand(width, generator=random) + 0.5, "norm.bias": _drawn(random, width)}
        config: dict[str, object] = {"dimension": width}
    else:
        tensors = {"linear.weight": _drawn(random, step.dim, width) / width**0.5}
        if step.bias:
            tensors["linear.bias"] = _drawn(random, step.dim) / 4
        config = {"in_features": width, "out_features": step.dim, "bias": step.bias}
        config["activation_function"] = step.activation
        width = step.dim

    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    save_file({name: tensor.to(dtype) for name, tensor in tensors.items()}, folder / "model.safetensors")
    return width


def _drawn(random: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=random)


def truncate(folder: Path, dim: int) -> Path:
    change_json(folder / "config_sentence_transformers.json", truncate_dim=dim)
    return folder


def embedded(
    folder: Path, texts: Sequence[str], pool: Callable[[torch.Tensor], torch.Tensor] = lambda states: states[:, 0]
) -> np.ndarray:
    """Return the embeddings of a folder as its modules say, before `truncate_dim`: [N, D] float32.

    Args:
        folder: the checkpoint.
        texts: N texts.
        pool: its pooling, states [1, S, D] -> [1, D]; CLS by default.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    longest = json.loads((folder / "sentence_bert_config.json").read_text("utf-8"))["max_seq_length"]
    rows = []
    with torch.inference_mode():
        for text in texts:
            tokens = tokenizer(text, truncation=True, max_length=longest, return_tensors="pt")
            vector = pool(model(**tokens).last_hidden_state)
            for module in _modules(folder):
                vector = module(vector)
            rows.append(vector[0].numpy())
    return np.array(rows)


def _modules(folder: Path) -> Iterator[torch.nn.Module]:
    for entry in json.loads((folder / "modules.json").read_text("utf-8"))[2:]:
        kind, inside = entry["type"].rpartition(".")[2], folder / entry["path"]
        if kind == "Normalize":
            yield _Normalize()
            continue

        config = json.loads((inside / "config.json").read_text("utf-8"))
        tensors = {name.partition(".")[2]: one.float() for name, one in load_file(inside / "model.safetensors").items()}
        if kind == "LayerNorm":
            module: torch.nn.Module = torch.nn.LayerNorm(config["dimension"])
            module.load_state_dict(tensors)
            yield module
            continue

        module = torch.nn.Linear(config["in_features"], config["out_features"], bias=config["bias"])
        module.load_state_dict(tensors)
        yield module
        yield getattr(torch.nn, config["activation_function"].rpartition(".")[2])()


class _Normalize(torch.nn.Module):
    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(rows, dim=1)
