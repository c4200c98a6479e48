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


@pytest.mark.parametrize(
    ("prefix", "what"),
    [
        ("module.", "DataParallel"),
        ("_orig_mod.", "torch.compile"),
        ("0.auto_model.", "sentence-transformers"),
        ("model.", "a module around the encoder"),
    ],
)
def test_a_prefix_of_all_names_is_named_with_its_cause(changed: Callable[..., Path], prefix: str, what: str) -> None:
    folder = changed(lambda tensors: {f"{prefix}{name}": tensor for name, tensor in tensors.items()})
    with pytest.raises(CheckpointError, match=f"begin with {prefix!r}.*{what}"):
        load_model(open_checkpoint(folder))


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_buffers_that_the_model_computes_may_be_stored(changed: Callable[..., Path], prefix: str) -> None:
    def stored(tensors: Tensors) -> Tensors:
        inner = {f"{prefix}{name}": tensor for name, tensor in tensors.items()}
        return inner | {f"{prefix}embeddings.token_type_ids": torch.zeros(1, 512, dtype=torch.int64)}

    load_model(open_checkpoint(changed(stored)))


@pytest.mark.parametrize("setting", [{"return_dict": False}, {"chunk_size_feed_forward": 4}, {"use_cache": True}])
def test_settings_that_change_how_states_are_returned_change_no_state(
    tiny: Path, changed: Callable[..., Path], setting: dict[str, object]
) -> None:
    folder = changed(lambda tensors: tensors)
    change_json(folder / "config.json", **setting)
    tokens = torch.tensor([[2, 10, 11, 12, 3]])
    found, wanted = (load_model(open_checkpoint(root))(tokens).last_hidden_state for root in (folder, tiny))
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_a_library_that_an_architecture_lacks_is_a_refusal(changed: Callable[..., Path]) -> None:
    folder = changed(lambda tensors: tensors)
    change_json(folder / "config.json", hidden_act="no_such_activation")
    with pytest.raises(CheckpointError, match="transformers cannot load it as 'bert'"):
        load_model(open_checkpoint(folder))
