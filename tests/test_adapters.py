"""LoRA adapters are merged into their base, α/r · B A more in each matrix, or refused by name."""

import json
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adapters import QUERY, TABLE, VALUE, merged, write_adapter
from exporting import export_recipe
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch
from tiny_checkpoint import change_json

from bge_export.bundle.manifest import read_manifest
from bge_export.checkpoint.model import load_model
from bge_export.checkpoint.opening import open_checkpoint
from bge_export.commands import check_parity
from bge_export.commands.measuring import open_reference
from bge_export.errors import CheckpointError, UsageError

PLAIN = {QUERY: 1.5, VALUE: 1.5}
"""α/r of the settings that `write_adapter` writes."""

KINDS: Mapping[str, tuple[dict[str, int], dict[str, Any], dict[str, float]]] = {
    "plain": ({QUERY: 4, VALUE: 4}, {}, PLAIN),
    "rank-stabilised": ({QUERY: 4, VALUE: 4}, {"use_rslora": True}, {QUERY: 3.0, VALUE: 3.0}),
    "rank pattern": ({QUERY: 2, VALUE: 4}, {"rank_pattern": {"query": 2}}, {QUERY: 3.0, VALUE: 1.5}),
    "alpha pattern": (
        {QUERY: 4, VALUE: 4},
        {"alpha_pattern": {r"layer\.0\.attention\.self\.query": 16}, "rank_pattern": {"unused": 8}},
        {QUERY: 4.0, VALUE: 1.5},
    ),
    "both patterns, rank-stabilised": (
        {QUERY: 9, VALUE: 4},
        {"use_rslora": True, "rank_pattern": {"^encoder.*query": 9}, "alpha_pattern": {"query": 6}},
        {QUERY: 2.0, VALUE: 3.0},
    ),
    "token table": ({TABLE: 4}, {"target_modules": ["word_embeddings"]}, {TABLE: 1.5}),
    "a pattern of targets": ({QUERY: 4, VALUE: 4}, {"target_modules": r".*\.layer\.\d+\..*(query|value)"}, PLAIN),
    "all linear modules": ({QUERY: 4, VALUE: 4}, {"target_modules": "all-linear"}, PLAIN),
    "some layers": (
        {QUERY: 4, VALUE: 4},
        {"layers_to_transform": [0, 1], "layers_pattern": "layer", "exclude_modules": ["key"]},
        PLAIN,
    ),
}
"""Ranks of the modules, settings of the adapter, and the scale of each module."""


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_is_merged_into_every_matrix_that_it_changes(
    kind: str, alone: bool, tiny: Path, tmp_path: Path
) -> None:
    modules, changes, scales = KINDS[kind]
    folder = tmp_path / "adapter"
    if not alone:
        shutil.copytree(tiny, folder)
    write_adapter(folder, tiny, modules, **changes, base_model_name_or_path=str(tiny) if alone else "else/where")

    checkpoint = open_checkpoint(folder)
    expected = merged(tiny, folder, scales)
    found = load_file(checkpoint.root / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_allclose(found[name], tensor, atol=1e-6)
    assert any(np.abs(found[f"{name}.weight"] - load_file(tiny / "model.safetensors")[f"{name}.weight"]).max() > 0.1
               for name in modules)  # fmt: skip

    assert checkpoint.source == "adapter"
    assert checkpoint.adapter == checkpoint.notes[0].rstrip(".")
    assert (
        f"on {len(modules)} matrices, merged into {'tiny' if alone else 'the weights beside it'}" in checkpoint.notes[0]
    )
    load_model(checkpoint)


def test_names_may_have_the_prefix_of_a_head(tiny: Path, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "a", tiny, {QUERY: 4}, prefix="bert.", base_model_name_or_path=str(tiny))
    found = load_file(open_checkpoint(folder).root / "model.safetensors")
    np.testing.assert_allclose(found[f"{QUERY}.weight"], merged(tiny, folder, PLAIN)[f"{QUERY}.weight"], atol=1e-6)


def test_a_base_in_bfloat16_is_merged_in_float32(tiny: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny, tmp_path / "base"))
    halved = {name: torch.from_numpy(one).bfloat16() for name, one in load_file(tiny / "model.safetensors").items()}
    folder = write_adapter(tmp_path / "a", tiny, {QUERY: 4}, base_model_name_or_path=str(base))
    save_torch(halved, base / "model.safetensors", metadata={"format": "pt"})

    found = load_file(open_checkpoint(folder).root / "model.safetensors")
    added = merged(tiny, folder, PLAIN)[f"{QUERY}.weight"] - load_file(tiny / "model.safetensors")[f"{QUERY}.weight"]
    np.testing.assert_allclose(found[f"{QUERY}.weight"], halved[f"{QUERY}.weight"].float().numpy() + added, atol=1e-6)


def test_the_digest_is_that_of_base_and_adapter(tiny: Path, tmp_path: Path) -> None:
    def opened(name: str, **options: Any) -> str:
        folder = write_adapter(tmp_path / name, tiny, {QUERY: 4}, base_model_name_or_path=str(tiny), **options)
        return open_checkpoint(folder).digest

    plain = opened("one")
    assert plain == open_checkpoint(tmp_path / "one").digest
    assert len({plain, opened("two", seed=1), opened("three", lora_alpha=7), open_checkpoint(tiny).digest}) == 4


def test_an_adapter_is_exported_proven_and_named_by_the_manifest(bge, tiny: Path, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "mine", tiny, {QUERY: 4, VALUE: 4}, base_model_name_or_path=str(tiny))
    exported = export_recipe(folder, tmp_path / "out", ["onnx:fp32"])
    assert exported.proof is not None
    assert [bad.message for bad in exported.proof.verdict.failures] == []

    source = read_manifest(exported.folder).source
    assert (source.id, source.adapter) == ("mine", "LoRA of rank 4 on 2 matrices, merged into tiny")
    assert "LoRA of rank 4" in bge("inspect", exported.folder).stdout
    assert check_parity(exported.folder, str(folder)).verdict.passed

    manifest = read_manifest(exported.folder)
    silent = manifest.model_copy(update={"source": source.model_copy(update={"adapter": None})})
    with pytest.raises(UsageError, match=r"adapter .*: none, .* has: LoRA of rank 4"):
        open_reference(str(folder), None, silent)
    assert bge("parity", exported.folder, "--reference", tiny).returncode == 2


def test_a_manifest_without_adapter_does_not_speak_of_one(tiny_export) -> None:
    assert "adapter" not in json.loads((tiny_export.folder / "bge_export.json").read_text("utf-8"))["source"]


def changed(**settings: Any) -> Callable[[Path], None]:
    return lambda folder: change_json(folder / "adapter_config.json", **settings)


def stored(**tensors: np.ndarray) -> Callable[[Path], None]:
    def add(folder: Path) -> None:
        path = folder / "adapter_model.safetensors"
        save_file({**load_file(path), **{name: one.astype(np.float32) for name, one in tensors.items()}}, path)

    return add


REFUSED: Mapping[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "DoRA": (changed(use_dora=True), ("DoRA", "use_dora")),
    "biases": (changed(bias="lora_only"), ("biases", "'lora_only'")),
    "modules to save": (changed(modules_to_save=["classifier"]), ("whole modules", "modules_to_save")),
    "another kind": (changed(peft_type="PROMPT_TUNING"), ("PROMPT_TUNING",)),
    "PiSSA": (changed(init_lora_weights="pissa"), ("'pissa'", "base's own weights")),
    "a bias in the weights": (stored(**{"base_model.model.encoder.bias": np.ones(2)}), ("encoder.bias", "besides")),
    "a magnitude": (
        stored(**{f"base_model.model.{QUERY}.lora_magnitude_vector": np.ones(64)}),
        ("lora_magnitude_vector", "besides"),
    ),
    "another rank": (changed(r=8), ("rank 8", "have 4")),
    "no alpha": (changed(lora_alpha=None), ("lora_alpha",)),
    "no base": (changed(base_model_name_or_path=None), ("names no base",)),
    "a base that is not there": (
        changed(base_model_name_or_path="./nowhere"),
        ("adapter of ./nowhere", "no such folder"),
    ),
    "no second factor": (stored(**{f"base_model.model.{VALUE}.lora_A.weight": np.ones((4, 64))}), ("second factor",)),
    "an unknown module": (
        stored(
            **{
                "base_model.model.other.query.lora_A.weight": np.ones((4, 64)),
                "base_model.model.other.query.lora_B.weight": np.ones((64, 4)),
            }
        ),
        ("'other.query'", "another model"),
    ),
    "another width": (
        stored(
            **{
                f"base_model.model.{VALUE}.lora_A.weight": np.ones((4, 32)),
                f"base_model.model.{VALUE}.lora_B.weight": np.ones((64, 4)),
            }
        ),
        ("[64, 64]", "[64, 32]"),
    ),
    "not finite": (
        stored(**{f"base_model.model.{QUERY}.lora_B.weight": np.full((64, 4), math.inf)}),
        ("not finite", QUERY),
    ),
    "the other way round": (changed(fan_in_fan_out=True), ("fan_in_fan_out",)),
    "a number as a switch": (changed(use_rslora=1), ("use_rslora is 1", "true or false")),
    "other targets": (changed(target_modules=["key"]), (QUERY, "target_modules")),
    "a pattern of other targets": (changed(target_modules=r"self\.query"), (QUERY, "target_modules")),
    "no targets": (changed(target_modules=None), ("target_modules is None",)),
    "other layers": (changed(layers_to_transform=[1]), (QUERY, "layers_to_transform")),
    "one other layer": (changed(layers_to_transform=1, layers_pattern=["layer"]), (QUERY, "layers_to_transform")),
    "a list of layers that it lacks": (changed(layers_to_transform=[0], layers_pattern="h"), (QUERY,)),
    "layers beside a pattern": (changed(layers_to_transform=[0], target_modules=".*query"), ("belong together",)),
    "excluded": (changed(exclude_modules=["query"]), (QUERY, "exclude_modules")),
    "excluded by a pattern": (changed(exclude_modules=".*query"), (QUERY, "exclude_modules")),
    "no pattern": (changed(alpha_pattern={"(": 3}), ("alpha_pattern", "no regular expression")),
    "no pattern of ranks": (changed(rank_pattern={"[": 3}), ("rank_pattern", "no regular expression")),
    "a pattern that never ends": (changed(alpha_pattern={"([a-z0-9._]+)+!": 3}), ("alpha_pattern", "never end")),
    "a pattern of many repeats": (changed(rank_pattern={".*" * 20 + "!": 3}), ("rank_pattern", "too long")),
    "a long pattern": (changed(target_modules="a|" * 101), ("202 characters",)),
    "a factor that is no matrix": (
        stored(**{f"base_model.model.{QUERY}.lora_A.weight": np.ones((4, 64, 1))}),
        ("[4, 64, 1]", "not a matrix"),
    ),
    "a factor without dimensions": (
        stored(**{f"base_model.model.{QUERY}.lora_A.weight": np.ones(())}),
        ("not a matrix",),
    ),
    "two changes of one matrix": (
        stored(
            **{
                f"base_model.model.bert.{QUERY}.lora_A.weight": np.ones((4, 64)),
                f"base_model.model.bert.{QUERY}.lora_B.weight": np.ones((64, 4)),
            }
        ),
        (f"'bert.{QUERY}'", "twice"),
    ),
    "a damaged file": (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"x") and None, ("damaged",)),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_merged_is_refused_by_name_in_one_sentence(kind: str, tiny: Path, tmp_path: Path) -> None:
    change, words = REFUSED[kind]
    folder = write_adapter(tmp_path / "mine", tiny, {QUERY: 4}, base_model_name_or_path=str(tiny))
    change(folder)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)
