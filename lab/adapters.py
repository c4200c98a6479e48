"""Compares merged LoRA adapters with peft's own merge, in an environment that has peft beside bge-export.

    python lab/adapters.py parity_fixtures/tiny

Each case is an adapter that peft makes of the checkpoint, with drawn factors, and saves; its `merge_and_unload` gives
the right weights.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModel

from bge_export.checkpoint.opening import open_checkpoint

CASES: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "rank-stabilised": {"use_rslora": True},
    "rank pattern": {"rank_pattern": {"query": 2}},
    "alpha pattern": {"alpha_pattern": {r"layer\.0\.attention\.self\.query": 32, "value": 5}},
    "anchored pattern": {"rank_pattern": {r"^encoder\.layer\.1.*value": 3}},
    "both patterns, rank-stabilised": {
        "rank_pattern": {"query": 2, "layer.1.attention.self.value": 7},
        "alpha_pattern": {"value": 3},
        "use_rslora": True,
    },
    "token table": {"target_modules": ["word_embeddings", "query"]},
    "all linear layers": {"target_modules": "all-linear"},
    "orthogonal start": {"init_lora_weights": "orthogonal"},
}
"""Name -> settings of the adapter besides rank and targets."""

MOST = 1e-6


def main(base: Path) -> int:
    """Print the largest difference of a weight in each case; return 1 if one is too large."""
    failed = 0
    for name, settings in CASES.items():
        with TemporaryDirectory() as folder:
            torch.manual_seed(0)
            model = get_peft_model(AutoModel.from_pretrained(base), LoraConfig(**_settings(settings)))
            for parameter_name, parameter in model.named_parameters():
                if "lora_" in parameter_name:
                    torch.nn.init.normal_(parameter, std=0.2)

            model.save_pretrained(folder)
            right = model.merge_and_unload().state_dict()
            found = load_file(open_checkpoint(folder, pooling=None).root / "model.safetensors")
            worst = max(float((right[key] - tensor).abs().max()) for key, tensor in found.items() if key in right)
            failed += not worst <= MOST
            print(f"{name}: {len(found.keys() & right.keys())} tensors, largest difference {worst:.1e}")
    return int(failed > 0)


def _settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    plain = {"r": 4, "lora_alpha": 6, "target_modules": ["query", "value"], "task_type": "FEATURE_EXTRACTION"}
    return {**plain, **settings}


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
