"""Modules after pooling: what is read of them, and what is refused by its name in one sentence."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from following import LAYER_NORM, NORMALIZE, dense, follow, truncate
from safetensors.numpy import save_file
from tiny_checkpoint import change_json

from bge_export.checkpoint.module_files import stored_layer
from bge_export.checkpoint.opening import open_checkpoint
from bge_export.contracts import LAST_HIDDEN_STATE
from bge_export.errors import BgeExportError, CheckpointError
from bge_export.heads.dense import DenseHead, dense_head
from bge_export.heads.layers import ACTIVATIONS, Layer, apply_layers


def layers_of(folder: Path, dim: int | None = None) -> tuple[Layer, ...]:
    return dense_head(open_checkpoint(folder, dim=dim).spec).layers


def refuses(folder: Path, *words: str, dim: int | None = None) -> None:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder, dim=dim)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)


def test_modules_are_read_in_their_order_and_the_last_divisions_are_one(tiny: Path, tmp_path: Path) -> None:
    steps = (NORMALIZE, dense(16), LAYER_NORM, NORMALIZE, NORMALIZE)
    head = dense_head(open_checkpoint(follow(tiny, tmp_path / "one", steps)).spec)
    assert [(one.kind, one.reads, one.dim, one.activation) for one in head.layers] == [
        ("normalize", 64, 64, "identity"),
        ("dense", 64, 16, "tanh"),
        ("layernorm", 16, 16, "identity"),
    ]
    assert (head.dim, head.state_dim, head.normalize) == (16, 64, True)


def test_a_plain_checkpoint_has_no_layers(tiny: Path) -> None:
    head = dense_head(open_checkpoint(tiny).spec)
    assert (head.layers, head.in_graph, head.state_dim) == ((), False, head.dim)


def test_a_dense_module_without_activation_has_that_of_the_library(tiny: Path, tmp_path: Path) -> None:
    folder = follow(tiny, tmp_path / "one", (dense(16),))
    change_json(folder / "2_Dense/config.json", activation_function=None)
    assert layers_of(folder)[0].activation == "tanh"


def test_the_weights_of_modules_are_part_of_the_digest(tiny: Path, tmp_path: Path) -> None:
    digests = {
        open_checkpoint(follow(tiny, tmp_path / str(seed), (dense(16), NORMALIZE), seed=seed)).digest
        for seed in range(2)
    }
    assert len(digests) == 2


def test_a_width_is_cut_by_the_file_and_by_the_call_which_wins(tiny: Path, tmp_path: Path) -> None:
    folder = truncate(follow(tiny, tmp_path / "one", (dense(32), NORMALIZE)), 16)
    assert layers_of(folder)[-1] == Layer("truncate", 32, 16)
    assert layers_of(folder, 8)[-1] == Layer("truncate", 32, 8)
    assert layers_of(folder, 32)[-1].kind == "dense"
    refuses(folder, "32 dimensions", "33", dim=33)
    assert layers_of(truncate(folder, 99))[-1].kind == "dense"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"activation_function": "custom_st.Swish"}, ("custom_st.Swish", "Identity, Tanh")),
        ({"activation_function": "torch.nn.modules.activation.Softmax"}, ("Softmax",)),
        ({"in_features": 32}, ("reads vectors of 32", "gives 64")),
        ({"out_features": "16"}, ("out_features", "'16'")),
        ({"bias": False}, ("linear.bias", "needs")),
        ({"out_features": 8}, ("linear.weight", "[8, 64]")),
        ({"module_input_name": "token_embeddings"}, ("module_input_name", "token_embeddings")),
    ],
)
def test_a_dense_module_of_another_kind_is_refused(
    changes: dict[str, object], words: tuple[str, ...], tiny: Path, tmp_path: Path
) -> None:
    folder = follow(tiny, tmp_path / "one", (dense(16), NORMALIZE))
    change_json(folder / "2_Dense/config.json", **changes)
    refuses(folder, "2_Dense", *words)


def test_weights_that_are_missing_damaged_or_not_finite_are_refused(tiny: Path, tmp_path: Path) -> None:
    folder = follow(tiny, tmp_path / "one", (LAYER_NORM,))
    path = folder / "2_LayerNorm/model.safetensors"
    bias = np.full(64, np.nan, dtype=np.float32)
    save_file({"norm.weight": np.ones(64, dtype=np.float32), "norm.bias": bias}, path)
    refuses(folder, "norm.bias", "not finite")
    path.write_bytes(path.read_bytes()[:-3])
    refuses(folder, str(path), "damaged")
    path.unlink()
    refuses(folder, str(path), "pickle")


def test_a_module_that_says_it_truncates_must_do_nothing_else(tiny: Path, tmp_path: Path) -> None:
    folder = follow(tiny, tmp_path / "one", (NORMALIZE,))
    config, weights = stored_layer(Layer("truncate", 64, 8), {})
    (folder / "3_Truncate").mkdir()
    (folder / "3_Truncate/config.json").write_text(json.dumps(config), "utf-8")
    (folder / "3_Truncate/model.safetensors").write_bytes(weights)
    modules = json.loads((folder / "modules.json").read_text("utf-8"))
    modules.append({"idx": 3, "name": "3", "path": "3_Truncate", "type": "sentence_transformers.models.Dense"})
    (folder / "modules.json").write_text(json.dumps(modules), "utf-8")
    assert layers_of(folder) == (Layer("normalize", 64, 64), Layer("truncate", 64, 8))

    save_file({"linear.weight": np.ones((8, 64), dtype=np.float32)}, folder / "3_Truncate/model.safetensors")
    refuses(folder, "3_Truncate", "first 8 components")


def test_states_without_the_weights_of_their_layers_give_no_vector() -> None:
    head = DenseHead(2, "cls", normalize=True, layers=(Layer("layernorm", 2, 2),))
    states = np.ones((1, 1, 2), dtype=np.float32)
    with pytest.raises(BgeExportError, match="with_weights"):
        head.rows({LAST_HIDDEN_STATE: states}, np.ones((1, 1), dtype=np.int64))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_numpy_and_torch_give_the_same_for_every_activation(name: str) -> None:
    layer = Layer("dense", 8, 5, name)
    random = np.random.default_rng(0)
    weights = {
        "linear.weight": random.standard_normal((5, 8)).astype(np.float32),
        "linear.bias": random.standard_normal(5).astype(np.float32),
    }
    rows = 3 * random.standard_normal((64, 8)).astype(np.float32)
    head = DenseHead(5, "cls", normalize=False, layers=(layer,))
    in_torch = head.module([weights])(torch.from_numpy(rows[:, None]), torch.ones(64, 1)).detach().numpy()
    np.testing.assert_allclose(apply_layers(rows, [layer], [weights]), in_torch, atol=1e-5)


def test_layers_are_written_as_people_read_them() -> None:
    assert str(Layer("dense", 8, 5, "tanh")) == "Dense 8 to 5 with tanh"
    assert str(Layer("truncate", 8, 5)) == "the first 5 of 8"
