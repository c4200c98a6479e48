"""Reads the files of a LoRA adapter, as peft saves them: its settings, and the two factors of each changed matrix."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bge_export.checkpoint.adapter_scope import (
    MERGE_WITH_PEFT,
    of_module,
    refuse_other_module,
    refuse_strange_settings,
)
from bge_export.errors import CheckpointError
from bge_export.files.json_files import positive_integer, read_object
from bge_export.heads.layers import Tensors

SETTINGS = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PICKLE = "adapter_model.bin"

PREFIX = "base_model.model."
"""What peft puts before the name of every module."""

FACTORS: Mapping[str, tuple[str, bool]] = {
    ".lora_A.weight": (".lora_B.weight", False),
    ".lora_embedding_A": (".lora_embedding_B", True),
}
"""Ending of a first factor's name -> that of the second, and whether the product is transposed, as of a table."""

PLAIN_STARTS = (True, False, None, "gaussian", "orthogonal", "eva")
"""Values of `init_lora_weights` that leave the base's own weights as they are."""

UNMERGED: Mapping[str, str] = {
    "fan_in_fan_out": "matrices that are stored the other way round",
    "use_dora": "DoRA, which also scales the columns of each matrix",
    "modules_to_save": "whole modules that were trained beside it",
    "lora_bias": "biases of its factors",
    "use_bdlora": "block-diagonal factors",
    "use_qalora": "factors of pooled inputs",
    "layer_replication": "layers that are used several times",
    "trainable_token_indices": "single rows of the token table",
    "alora_invocation_tokens": "tokens that switch it on",
    "arrow_config": "a choice between several adapters",
    "target_parameters": "parameters that are no matrices of modules",
}
"""Setting that is on -> what the adapter has besides two factors a matrix."""


@dataclass(frozen=True)
class Change:
    """What an adapter adds to one matrix: `scale` times the product of two factors.

    Attributes:
        module: the name of its module, as in the model that the adapter was trained on.
        first, second: the names of the factors' tensors, A and B.
        scale: α/r, or α/√r of a rank-stabilised adapter.
        transposed: whether the product is that of a table, stored the other way round.
    """

    module: str
    first: str
    second: str
    scale: float
    transposed: bool


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter.

    Attributes:
        base: the Hub id or the folder of the model that it was trained on; None if it names none.
        revision: the Hub revision of that model.
        changes: one for each matrix.
        ranks: the ranks that occur, in rising order.
    """

    base: str | None
    revision: str | None
    changes: tuple[Change, ...]
    ranks: tuple[int, ...]


def read_adapter(root: Path, tensors: Tensors) -> Adapter:
    """Read the settings of an adapter, and find the factors among its tensors.

    Raises:
        CheckpointError: it is of another kind than LoRA, or has more than two factors a matrix, or is damaged.
    """
    path = root / SETTINGS
    settings = read_object(path)
    refuse_strange_settings(path, settings)
    _refuse_unmerged(path, settings)

    changes, left, ranks = [], set(tensors), set()
    for name in sorted(tensors):
        ending = next((one for one in FACTORS if name.endswith(one)), None)
        if ending is None:
            continue

        second, transposed = name.removesuffix(ending) + FACTORS[ending][0], FACTORS[ending][1]
        module = name.removesuffix(ending).removeprefix(PREFIX)
        refuse_other_module(path, settings, module, table=transposed)
        if tensors[name].ndim != 2:
            raise CheckpointError(
                f"{root / WEIGHTS}: {name!r} is {list(tensors[name].shape)}, not a matrix. {MERGE_WITH_PEFT}"
            )

        rank = _rank(path, settings, module, tensors[name].shape[0])
        if second not in tensors or tensors[second].ndim != 2 or tensors[second].shape[1] != rank:
            raise CheckpointError(f"{root / WEIGHTS}: {name!r} lacks a second factor of rank {rank}. Fetch it again.")

        changes.append(Change(module, name, second, _scale(path, settings, module, rank), transposed))
        left -= {name, second}
        ranks.add(rank)

    if left:
        raise CheckpointError(
            f"{root / WEIGHTS} holds {sorted(left)[0]!r} besides the two factors of each matrix, which cannot be "
            f"merged. {MERGE_WITH_PEFT}"
        )
    if not changes:
        raise CheckpointError(f"{root / WEIGHTS} holds no factors of a LoRA adapter. Fetch it again.")

    base, revision = settings.get("base_model_name_or_path"), settings.get("revision")
    return Adapter(
        base if isinstance(base, str) and base else None,
        revision if isinstance(revision, str) and revision else None,
        tuple(changes),
        tuple(sorted(ranks)),
    )


def _refuse_unmerged(path: Path, settings: Mapping[str, object]) -> None:
    """Raise CheckpointError for an adapter that is not a plain LoRA."""
    kind, start = settings.get("peft_type"), settings.get("init_lora_weights", True)
    why = None
    if kind != "LORA":
        why = f"of the kind {kind}"
    elif settings.get("bias", "none") != "none":
        why = f"with trained biases (bias: {settings['bias']!r})"
    elif any(settings.get(name) for name in UNMERGED):
        why = "with " + next(f"{what} ({name})" for name, what in UNMERGED.items() if settings.get(name))
    elif start not in PLAIN_STARTS:
        why = f"that began by changing the base's own weights (init_lora_weights: {start!r})"

    if why is not None:
        raise CheckpointError(
            f"{path}: an adapter {why}; only LoRA with two factors a matrix is merged here. Merge it with peft "
            "(merge_and_unload, then save_pretrained) and give the merged folder."
        )


def _rank(path: Path, settings: Mapping[str, object], module: str, stored: int) -> int:
    """Return the rank of a module's factors, which settings and tensors must agree on."""
    declared = positive_integer(of_module(path, settings, "rank_pattern", module, settings.get("r")))
    if declared != stored:
        raise CheckpointError(
            f"{path} gives {module!r} the rank {declared}, its factors have {stored}. Fetch the adapter again."
        )
    return stored


def _scale(path: Path, settings: Mapping[str, object], module: str, rank: int) -> float:
    alpha = of_module(path, settings, "alpha_pattern", module, settings.get("lora_alpha"))
    if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not math.isfinite(alpha):
        raise CheckpointError(f"{path}: lora_alpha of {module!r} is {alpha!r}, not a number. Fetch the adapter again.")
    return alpha / (math.sqrt(rank) if settings.get("use_rslora") is True else rank)
