"""Every weight of a checkpoint is accounted for: none missing, none left out, none that is no number."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_checkpoint import change_json

from bge_export.checkpoint.model import load_model
from bge_export.checkpoint.opening import open_checkpoint
from bge_export.errors import CheckpointError

Tensors = dict[str, torch.Tensor]


@pytest.fixture
def changed(tiny: Path, tmp_path: Path) -> Callable[..., Path]:
    """The embedded checkpoint with other tensors."""

    def change(edit: Callable[[Tensors], Tensors]) -> Path:
        folder = Path(shutil.copytree(tiny, tmp_path / "changed"))
        tensors = edit(load_file(folder / "model.safetensors"))
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    return change


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["embeddings.word_embeddings.weight", "encoder.layer.1.output.LayerNorm.bias"])
def test_a_single_value_that_is_not_finite_is_refused_by_its_tensor(
    changed: Callable[..., Path], name: str, value: float
) -> None:
    def spoil(tensors: Tensors) -> Tensors:
        tensors[name].view(-1)[-1] = value
        return tensors

    with pytest.raises(CheckpointError, match=f"'{name}' holds 1 values that are not finite"):
        load_model(open_checkpoint(changed(spoil)))


def test_layers_that_the_configuration_does_not_count_are_refused(changed: Callable[..., Path]) -> None:
    folder = changed(lambda tensors: tensors)
    layers = json.loads((folder / "config.json").read_text("utf-8"))["num_hidden_layers"]
    change_json(folder / "config.json", num_hidden_layers=layers - 1)
    with pytest.raises(CheckpointError, match=rf"16 tensors.*'encoder\.layer\.{layers - 1}\."):
        load_model(open_checkpoint(folder))


def test_a_tensor_that_nobody_knows_is_refused(changed: Callable[..., Path]) -> None:
    folder = changed(lambda tensors: tensors | {"adapter.weight": torch.zeros(2)})
    with pytest.raises(CheckpointError, match=r"1 tensors.*'adapter\.weight'"):
        load_model(open_checkpoint(folder))


def test_heads_that_training_left_behind_are_no_fault(changed: Callable[..., Path]) -> None:
    def trained(tensors: Tensors) -> Tensors:
        inner = {f"bert.{name}": tensor for name, tensor in tensors.items()}
        return inner | {
            "bert.embeddings.position_ids": torch.arange(512)[None],
            "bert.pooler.dense.weight": torch.full((64, 64), float("nan")),
            "cls.predictions.bias": torch.zeros(880),
            "cls.seq_relationship.bias": torch.zeros(2),
        }

    assert load_model(open_checkpoint(changed(trained))).config.num_hidden_layers == 3
