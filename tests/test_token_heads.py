"""What the files of SPLADE and ColBERT models declare: read as the libraries that wrote them do, or refused by name."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from adapters import QUERY, write_adapter
from architectures import HIDDEN
from safetensors.torch import save_file
from tiny_checkpoint import change_json, write_json
from token_heads import WIDTH, build_colbert, build_m3, build_splade

from bge_export.checkpoint.opening import open_checkpoint, open_encoder
from bge_export.errors import CheckpointError, UsageError
from bge_export.heads.dense import dense_head
from bge_export.heads.multi_vector import MultiVectorHead
from bge_export.heads.sparse import SparseHead
from bge_export.oracle.answers import Arithmetic

Build = Callable[[Path], Path]


def refuses(root: Path, *parts: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(root)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize("library", ["pylate", "sentence-transformers"])
def test_colbert_is_read_as_either_library_saves_it(tmp_path: Path, library: str) -> None:
    spec = open_checkpoint(build_colbert(tmp_path / "colbert", library)).spec  # type: ignore[arg-type]
    assert spec.heads == {"multi_vector": MultiVectorHead(WIDTH, skipped=0, normalize=True)}
    assert spec.inputs.prompts == {"query": "[Q] ", "document": "[D] "}


def test_a_norm_that_reads_the_vector_of_a_text_divides_none_of_tokens(tmp_path: Path) -> None:
    root = build_colbert(tmp_path / "colbert", "sentence-transformers")
    (root / "3_Normalize" / "config.json").unlink()
    assert open_checkpoint(root).spec.heads == {"multi_vector": MultiVectorHead(WIDTH, skipped=0, normalize=False)}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"activation_function": "torch.nn.modules.activation.Tanh"}, "the activation Tanh"),
        ({"use_residual": True}, "use_residual"),
        ({"module_input_name": "sentence_embedding"}, "reads 'sentence_embedding'"),
    ],
)
def test_a_dense_that_does_more_than_project_tokens_is_refused(
    tmp_path: Path, changes: dict[str, object], named: str
) -> None:
    root = build_colbert(tmp_path / "colbert", "sentence-transformers")
    change_json(root / "1_Dense" / "config.json", **changes)
    refuses(root, "1_Dense", named, "--as embedding")


def test_a_projection_of_another_width_or_without_weights_is_refused(tmp_path: Path) -> None:
    root = build_colbert(tmp_path / "colbert")
    (root / "1_Dense" / "model.safetensors").unlink()
    refuses(root, "1_Dense/model.safetensors is missing", "--allow-pickle")


def test_splade_is_read_with_its_pooling_and_its_activation(tmp_path: Path) -> None:
    root = build_splade(tmp_path / "splade", pooling_strategy="sum", activation_function="log1p_relu")
    (head,) = open_checkpoint(root).spec.heads.values()
    assert isinstance(head, SparseHead)
    assert (head.per, head.pooling, head.log_twice, head.unused) == ("vocabulary", "sum", True, ())


def test_splade_without_a_language_model_or_with_an_unknown_pooling_is_refused(tmp_path: Path) -> None:
    root = build_splade(tmp_path / "splade", pooling_strategy="mean")
    refuses(root, "SpladePooling", "'mean'")

    change_json(root / "config.json", architectures=["BertModel"])
    refuses(root, "SpladePooling", "*ForMaskedLM")


@pytest.mark.parametrize("build", [build_splade, build_colbert])
def test_a_module_of_another_library_is_refused_whatever_its_name(tmp_path: Path, build: Build) -> None:
    root = build(tmp_path / "model")
    modules = json.loads((root / "modules.json").read_text("utf-8"))
    modules[1]["type"] = "own." + modules[1]["type"].rpartition(".")[2]
    write_json(root / "modules.json", modules)
    refuses(root, modules[1]["type"], "neither sentence-transformers nor PyLate", "--as embedding")


def test_modules_in_another_order_are_refused(tmp_path: Path) -> None:
    root = build_splade(tmp_path / "splade")
    kinds = ("SpladePooling", "MLMTransformer")
    entries = [
        {"idx": n, "name": str(n), "path": "", "type": f"sentence_transformers.sparse_encoder.models.{kind}"}
        for n, kind in enumerate(kinds)
    ]
    write_json(root / "modules.json", entries)
    refuses(root, "modules.json", "the order Transformer and SpladePooling")


@pytest.mark.parametrize("build", [build_splade, build_colbert])
def test_as_embedding_leaves_the_encoder_alone(tmp_path: Path, build: object) -> None:
    root = build(tmp_path / "model")  # type: ignore[operator]
    assert open_encoder(root, pooling="mean").spec.only_dense


def test_a_pooling_beside_the_heads_of_bge_m3_must_be_flagembeddings(tmp_path: Path) -> None:
    root = build_m3(tmp_path / "m3", pickles=False)
    assert set(open_checkpoint(root).spec.heads) == {"dense", "sparse", "multi_vector"}

    change_json(root / "1_Pooling" / "config.json", pooling_mode_cls_token=False, pooling_mode_mean_tokens=True)
    change_json(root / "1_Pooling" / "config.json", pooling_mode=None)
    refuses(root, "pooling 'mean'", "--as embedding")


def test_nothing_may_follow_the_pooling_beside_the_heads_of_bge_m3_but_the_norm(tmp_path: Path) -> None:
    root = build_m3(tmp_path / "m3", pickles=False)
    write_json(root / "config_sentence_transformers.json", {"truncate_dim": 8})
    refuses(root, "truncate_dim", "--as embedding")

    (root / "config_sentence_transformers.json").unlink()
    (root / "2_LayerNorm").mkdir()
    write_json(root / "2_LayerNorm" / "config.json", {"dimension": HIDDEN})
    tensors = {"norm.weight": torch.ones(HIDDEN), "norm.bias": torch.zeros(HIDDEN)}
    save_file(tensors, root / "2_LayerNorm" / "model.safetensors")
    entries = json.loads((root / "modules.json").read_text("utf-8"))
    entries.insert(2, {"idx": 2, "name": "2", "path": "2_LayerNorm", "type": "sentence_transformers.models.LayerNorm"})
    write_json(root / "modules.json", entries)
    refuses(root, "LayerNorm", "--as embedding")
    assert open_encoder(root).spec.only_dense


@pytest.mark.parametrize("beside", [True, False])
def test_an_adapter_leaves_bge_m3_its_three_heads(tmp_path: Path, beside: bool) -> None:
    base = build_m3(tmp_path / "m3", pickles=False)
    folder = write_adapter(base if beside else tmp_path / "a", base, {QUERY: 4}, base_model_name_or_path=str(base))
    checkpoint = open_checkpoint(folder)
    assert checkpoint.adapter is not None
    assert set(checkpoint.spec.heads) == {"dense", "sparse", "multi_vector"}

    for name in ("sparse_linear.safetensors", "colbert_linear.safetensors"):
        assert (checkpoint.root / name).read_bytes() == (base / name).read_bytes()


def test_an_adapter_of_bge_m3_with_pickled_heads_needs_leave_to_read_them(tmp_path: Path) -> None:
    base = build_m3(tmp_path / "m3")
    folder = write_adapter(tmp_path / "a", base, {QUERY: 4}, base_model_name_or_path=str(base))
    refuses(folder, "sparse_linear.pt", "--allow-pickle")

    checkpoint = open_checkpoint(folder, allow_pickle=True)
    assert set(checkpoint.spec.heads) == {"dense", "sparse", "multi_vector"}
    assert set(checkpoint.pickles) == {"sparse_linear.pt", "colbert_linear.pt"}


def test_heads_that_were_changed_since_are_merged_again(tmp_path: Path) -> None:
    base = build_m3(tmp_path / "m3", pickles=False)
    folder = write_adapter(tmp_path / "a", base, {QUERY: 4}, base_model_name_or_path=str(base))
    before = open_checkpoint(folder).digest

    save_file({"weight": torch.ones(1, HIDDEN), "bias": torch.zeros(1)}, base / "sparse_linear.safetensors")
    assert open_checkpoint(folder).digest != before


def test_who_knows_vectors_alone_refuses_such_a_model_by_its_heads(tmp_path: Path) -> None:
    spec = open_checkpoint(build_m3(tmp_path / "m3", pickles=False)).spec
    with pytest.raises(UsageError, match="dense, sparse, multi_vector"):
        dense_head(spec)


def test_the_oracles_arithmetic_is_that_of_the_formulas(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(build_m3(tmp_path / "m3", pickles=False))
    own = Arithmetic.load(checkpoint)
    states = torch.randn(5, 32, generator=torch.Generator().manual_seed(1))
    tokens, whole = own.of(states, torch.ones(5, dtype=torch.bool))

    (weight, bias), (projection, shift) = (own.layers[kind][0] for kind in ("sparse", "multi_vector"))
    assert bias is not None
    assert shift is not None
    expected = np.maximum(states.numpy() @ weight.numpy().T + bias.numpy(), 0)
    vectors = states.numpy()[1:] @ projection.numpy().T + shift.numpy()
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

    np.testing.assert_allclose(tokens[:, :1], expected, atol=1e-6)
    np.testing.assert_allclose(tokens[1:, 1:], vectors, atol=1e-6)
    assert not tokens[0, 1:].any()
    np.testing.assert_allclose(whole, states[0].numpy() / np.linalg.norm(states[0].numpy()), atol=1e-6)


def test_the_largest_weight_of_each_id_is_kept_and_none_of_special_tokens() -> None:
    head = SparseHead("token", 10, unused=(0, 2))
    weights = np.array([9.0, 0.5, 0.7, 0.0, 0.2, 8.0], dtype=np.float32)
    assert head.by_id(weights, (0, 5, 5, 6, 7, 2)) == pytest.approx({5: 0.7, 7: 0.2})
