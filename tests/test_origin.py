"""Small files and weights of a folder are those of its checkpoint, byte for byte, however well they are sealed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from bundles import checkpoint_of, seal, write_bundle
from tiny_checkpoint import change_json, write_weights

from bge_export.bundle.integrity import MANIFEST
from bge_export.bundle.layout import TRUNCATION
from bge_export.bundle.manifest import read_bundle, read_manifest
from bge_export.bundle.origin import files_of, other_files
from bge_export.checkpoint.opening import open_checkpoint
from bge_export.cli import run
from bge_export.commands.extension import kept_from

WEIGHTS = "model.safetensors"
PADDING = {
    "strategy": "BatchLongest",
    "direction": "Left",
    "pad_to_multiple_of": None,
    "pad_id": 0,
    "pad_type_id": 0,
    "pad_token": "[PAD]",
}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A folder with the checkpoint's weights."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    shutil.copyfile(checkpoint_of(folder).root / WEIGHTS, folder / WEIGHTS)
    return write_bundle(folder, weights=[WEIGHTS])


def test_a_folder_of_the_checkpoint_holds_its_files(bundle: Path) -> None:
    assert other_files(read_bundle(bundle)[0], files_of(checkpoint_of(bundle))) == ()


def test_the_weights_may_be_left_out(bundle: Path) -> None:
    (bundle / WEIGHTS).unlink()
    seal(bundle, weights=[])
    assert other_files(read_bundle(bundle)[0], files_of(checkpoint_of(bundle))) == ()


def add(bundle: Path, name: str) -> None:
    (bundle / name).write_text("{}")
    listed = json.loads((bundle / MANIFEST).read_text("utf-8"))["files"]
    seal(bundle, files={**listed, name: ""})


CHANGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "config": ("config.json", lambda root: change_json(root / "config.json", hidden_act="relu")),
    "truncation": (
        "tokenizer.json",
        lambda root: change_json(root / "tokenizer.json", truncation={**TRUNCATION, "max_length": 8}),
    ),
    "padding": ("tokenizer.json", lambda root: change_json(root / "tokenizer.json", padding=PADDING)),
    "side": (
        "tokenizer_config.json",
        lambda root: change_json(root / "tokenizer_config.json", padding_side="left"),
    ),
    "prompts": (
        "config_sentence_transformers.json",
        lambda root: change_json(root / "config_sentence_transformers.json", prompts={"clustering": "passage: "}),
    ),
    "similarity": (
        "config_sentence_transformers.json",
        lambda root: change_json(root / "config_sentence_transformers.json", similarity_fn_name="dot"),
    ),
    "added tokens": ("added_tokens.json", lambda root: add(root, "added_tokens.json")),
    "vocabulary": ("vocab.txt", lambda root: add(root, "vocab.txt")),
    "missing": ("special_tokens_map.json", lambda root: (root / "special_tokens_map.json").unlink()),
    "weights": (WEIGHTS, lambda root: write_weights(root / WEIGHTS, {"other": (2, 2)})),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_file_is_named_though_the_folder_was_sealed_again(bundle: Path, change: str) -> None:
    name, make = CHANGES[change]
    make(bundle)
    seal(bundle)
    manifest, artifacts = read_bundle(bundle)
    assert len(artifacts) == 1, "the folder agrees with its own manifest"
    assert other_files(manifest, files_of(checkpoint_of(bundle))) == (name,)


def test_an_extension_takes_the_weights_from_the_checkpoint(bundle: Path, tmp_path: Path) -> None:
    checkpoint = checkpoint_of(bundle)
    write_weights(bundle / WEIGHTS, {"other": (2, 2)})
    seal(bundle)
    kept = kept_from(bundle, checkpoint, ["onnx-fp16"], overwrite=False)
    kept.carry_models(tmp_path / "new", checkpoint)
    assert (tmp_path / "new" / WEIGHTS).read_bytes() == (checkpoint.root / WEIGHTS).read_bytes()
    assert (tmp_path / "new/onnx/model.onnx").is_file()


def test_weights_that_the_checkpoint_does_not_have_are_not_kept(bundle: Path) -> None:
    shutil.copyfile(bundle / WEIGHTS, bundle / "other.safetensors")
    listed = read_manifest(bundle).files
    seal(bundle, files={**listed, "other.safetensors": ""}, weights=[WEIGHTS, "other.safetensors"])
    assert kept_from(bundle, checkpoint_of(bundle), [], overwrite=False).weights == (WEIGHTS,)


@pytest.mark.parametrize("reference", ["checkpoint", "reference.npz"])
def test_gate_and_parity_hold_a_folder_to_the_checkpoint_or_to_its_vectors(
    bundle_of_tiny: Path, tiny: Path, tmp_path: Path, reference: str, capfd: pytest.CaptureFixture[str]
) -> None:
    given = str(tiny)
    if reference == "reference.npz":
        given = str(tmp_path / reference)
        assert run(["reference", str(tiny), "-o", given]) == 0

    gate = ["gate", str(bundle_of_tiny / "parity.json"), "--reference", given]
    assert run(gate) == 0

    prompts = {**open_checkpoint(tiny).spec.inputs.prompts, "clustering": "passage: "}
    change_json(bundle_of_tiny / "config_sentence_transformers.json", prompts=prompts)
    seal(bundle_of_tiny)
    assert run(["parity", str(bundle_of_tiny), "--reference", given, "--runtime", "onnxruntime"]) == 1
    assert "config_sentence_transformers.json is not the file that an export of tiny writes" in capfd.readouterr().out
    assert run(gate[:2]) == 1, "the report remembers it"
    capfd.readouterr()

    assert run([*gate[:2], "--require-reference", "checkpoint"]) == 1
    assert ("other-reference" in capfd.readouterr().out) == (reference == "reference.npz")


EXCHANGED = dict(CHANGES.values())
"""Small file, or the weights -> another one in its place."""


@pytest.mark.parametrize(
    ("name", "kind"), [*((name, "its own report") for name in EXCHANGED), (WEIGHTS, "a merged one")]
)
def test_a_file_that_is_exchanged_after_the_proof_is_refused_without_the_checkpoint(
    tiny: Path, bundle_of_tiny: Path, tmp_path: Path, name: str, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copyfile(tiny / WEIGHTS, bundle_of_tiny / WEIGHTS)
    listed = read_manifest(bundle_of_tiny).files
    seal(bundle_of_tiny, files={**listed, WEIGHTS: ""}, weights=[WEIGHTS])
    report = bundle_of_tiny / "parity.json"
    gate = ["gate", str(report)]
    if kind == "a merged one":
        shutil.copyfile(report, tmp_path / "other.json")
        gate = ["merge", str(report), str(tmp_path / "other.json"), "-o", str(tmp_path / "both.json")]
    assert run(gate) == 0

    EXCHANGED[name](bundle_of_tiny)
    seal(bundle_of_tiny)
    capfd.readouterr()
    assert run(gate) == 1
    assert f"{name} is not the file that an export of tiny writes" in capfd.readouterr().out


@pytest.fixture
def bundle_of_tiny(tiny_export, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_export.folder, tmp_path / "tiny-bundle"))


def test_gate_says_that_there_is_no_folder_to_compare(tiny_export, tiny: Path, tmp_path: Path) -> None:
    report = shutil.copyfile(tiny_export.folder / "parity.json", tmp_path / "alone.json")
    assert run(["gate", str(report), "--reference", str(tiny)]) == 2
