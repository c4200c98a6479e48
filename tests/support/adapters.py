"""LoRA adapters of the tiny checkpoint, as peft saves them, and what they are merged."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

QUERY = "encoder.layer.0.attention.self.query"
VALUE = "encoder.layer.1.attention.self.value"
TABLE = "embeddings.word_embeddings"

SETTINGS: Mapping[str, Any] = {
    "peft_type": "LORA",
    "task_type": "FEATURE_EXTRACTION",
    "base_model_name_or_path": None,
    "revision": None,
    "r": 4,
    "lora_alpha": 6,
    "rank_pattern": {},
    "alpha_pattern": {},
    "use_rslora": False,
    "use_dora": False,
    "bias": "none",
    "modules_to_save": None,
    "fan_in_fan_out": False,
    "init_lora_weights": True,
    "target_modules": ["query", "value"],
}


def write_adapter(
    folder: Path, base: Path, modules: Mapping[str, int], *, seed: int = 0, prefix: str = "", **changes: Any
) -> Path:
    """Write an adapter into a folder.

    Args:
        folder: where; made if it is not there.
        base: the checkpoint that it is of.
        modules: name of each changed module -> its rank.
        seed: the seed of the factors.
        prefix: what the model that it was trained on puts before names.
        changes: settings in place of `SETTINGS`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    random, weights = np.random.default_rng(seed), load_file(base / "model.safetensors")
    tensors = {}
    for module, rank in modules.items():
        rows, columns = weights[f"{module}.weight"].shape
        table = module == TABLE
        first, second = ("lora_embedding_A", "lora_embedding_B") if table else ("lora_A.weight", "lora_B.weight")
        shapes = ((rank, rows), (columns, rank)) if table else ((rank, columns), (rows, rank))
        for name, shape in zip((first, second), shapes, strict=True):
            drawn = random.standard_normal(shape).astype(np.float32) / 4
            tensors[f"base_model.model.{prefix}{module}.{name}"] = drawn

    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({**SETTINGS, **changes}), "utf-8")
    return folder


def merged(base: Path, adapter: Path, scales: Mapping[str, float]) -> dict[str, np.ndarray]:
    """Return the weights of a base with an adapter, given the scale of each module."""
    weights, factors = load_file(base / "model.safetensors"), load_file(adapter / "adapter_model.safetensors")
    for name, first in factors.items():
        found = re.fullmatch(r"base_model\.model\.(?:bert\.)?(.+)\.lora_(A\.weight|embedding_A)", name)
        if found is None:
            continue
        second = factors[name.replace("lora_A", "lora_B").replace("embedding_A", "embedding_B")]
        change = scales[found[1]] * (second.astype(np.float64) @ first.astype(np.float64))
        weight = weights[f"{found[1]}.weight"]
        weights[f"{found[1]}.weight"] = (weight + (change.T if "embedding" in found[2] else change)).astype(np.float32)
    return weights
