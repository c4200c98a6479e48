"""A bundle holds what an export wrote, and documents; whatever else lies in it is refused by name."""

import json
import os
import re
from pathlib import Path

import pytest
from bundles import MODEL, checkpoint_of, seal, write_bundle

from bge_export.bundle.integrity import MANIFEST, refuse_unknown_output
from bge_export.bundle.manifest import read_bundle
from bge_export.commands.extension import kept_from
from bge_export.errors import ArtifactError, OutputError

UNKNOWN = (
    "model.hdf5",
    "model.torchscript",
    "vectors.npz",
    "onnx/model.zip",
    "model.tar.gz",
    "handler.so",
    "modeling_bert.py",
    "notes",
    "docs/notes.txt",
    "Makefile",
    ".hidden",
    ".DS_Store",
    "onnx/parity.json",
    "LICENSE.onnx",
    "README.md.bin",
    "model.png.onnx",
    ".cache/models/model.bin",
    "onnx/.git/config",
)
DOCUMENTS = (
    "README.md",
    "onnx/README.md",
    "LICENSE",
    "LICENSE.txt",
    "LICENSE-1.0.txt",
    "LICENSE.apache-2.0.md",
    "COPYING.LESSER",
    "README_zh.md",
    "LICENCE-APACHE",
    "NOTICE.md",
    ".gitattributes",
    ".gitignore",
    "images/frontier.png",
    "images/Photo.JPG",
    "logo.svg",
    "parity.json",
    "parity-gpu.json",
    "parity.html",
    "bge_export.limits.toml",
    ".git/config",
    ".git/objects/ab/cd",
    ".cache/huggingface/download/model.onnx.metadata",
)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


def put(bundle: Path, name: str) -> None:
    (bundle / name).parent.mkdir(parents=True, exist_ok=True)
    (bundle / name).write_bytes(b"?")


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_file_of_no_known_kind_is_refused_by_name(bundle: Path, name: str) -> None:
    put(bundle, name)
    with pytest.raises(ArtifactError, match=f"{re.escape(name)} is not in {MANIFEST}.*Remove it"):
        read_bundle(bundle)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_and_reports_may_lie_beside_the_models(bundle: Path, name: str) -> None:
    put(bundle, name)
    assert len(read_bundle(bundle)[1]) == 1


@pytest.mark.parametrize("where", ["nowhere", "images", "..", "../other.png", "README.md"])
@pytest.mark.parametrize("name", ["picture.png", "onnx/link.onnx", "folder"])
def test_a_link_is_refused_wherever_it_leads(bundle: Path, name: str, where: str) -> None:
    (bundle / "images").mkdir()
    (bundle.parent / "other.png").touch()
    put(bundle, "README.md")
    (bundle / name).symlink_to(bundle / where)
    with pytest.raises(ArtifactError, match=f"{re.escape(name)} is a link"):
        read_bundle(bundle)


def test_a_listed_file_that_became_a_link_is_refused(bundle: Path) -> None:
    outside = bundle.parent / "model.onnx"
    (bundle / MODEL).rename(outside)
    (bundle / MODEL).symlink_to(outside)
    with pytest.raises(ArtifactError, match=r"model\.onnx is a link"):
        read_bundle(bundle)


def test_a_pipe_is_refused_without_being_opened(bundle: Path) -> None:
    os.mkfifo(bundle / "picture.png")
    with pytest.raises(ArtifactError, match=r"picture\.png is a pipe, socket or device"):
        read_bundle(bundle)


def test_a_manifest_lists_nothing_of_what_others_keep_in_the_folder(bundle: Path) -> None:
    put(bundle, ".git/model.onnx")
    seal(bundle, contract=False, files={".git/model.onnx": ""})
    with pytest.raises(ArtifactError, match=r"names '\.git/model\.onnx'"):
        read_bundle(bundle)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["notes.txt", "onnx/model.zip"])
def test_an_export_says_before_it_starts_what_the_gate_would_refuse(bundle: Path, name: str, overwrite: bool) -> None:
    put(bundle, name)
    with pytest.raises(OutputError, match=f"{re.escape(name)} is not in .*Remove it.*--output"):
        kept_from(bundle, checkpoint_of(bundle), ["onnx-fp16"], overwrite=overwrite)


def test_an_export_keeps_documents(bundle: Path) -> None:
    put(bundle, "README.md")
    assert kept_from(bundle, checkpoint_of(bundle), ["onnx-fp16"], overwrite=False).models


@pytest.mark.parametrize("name", ["onnx/model_quantized.onnx", "onnx/notes.txt", "model.bin", "adapter_config.json"])
def test_a_file_that_the_manifest_lists_for_no_target_is_refused(bundle: Path, name: str) -> None:
    put(bundle, name)
    listed = json.loads((bundle / MANIFEST).read_text("utf-8"))["files"]
    seal(bundle, files={**listed, name: ""})
    with pytest.raises(ArtifactError, match=f"lists '{re.escape(name)}' for no target"):
        read_bundle(bundle)


@pytest.mark.parametrize("name", ["added_tokens.json", "onnx/tokenizer.json", "sentence_roberta_config.json"])
def test_settings_are_of_the_whole_folder_and_of_no_model(bundle: Path, name: str) -> None:
    put(bundle, name)
    manifest = json.loads((bundle / MANIFEST).read_text("utf-8"))
    manifest["models"][0]["files"].append(name)
    seal(bundle, models=manifest["models"], files={**manifest["files"], name: ""})
    with pytest.raises(ArtifactError, match=f"lists '{re.escape(name)}' as a file of a model"):
        read_bundle(bundle)


@pytest.mark.parametrize("name", ["merged.json", "reference.npz", "recipe.toml", "cuda.json"])
def test_the_tool_writes_no_file_that_its_gate_refuses(bundle: Path, name: str) -> None:
    with pytest.raises(OutputError, match=f"{re.escape(name)} would be an unknown file"):
        refuse_unknown_output(bundle / name)
    refuse_unknown_output(bundle.parent / name)


@pytest.mark.parametrize("name", ["parity.json", "parity-cuda.json", "bench.json"])
def test_reports_may_be_written_beside_the_models(bundle: Path, name: str) -> None:
    refuse_unknown_output(bundle / name)


@pytest.mark.parametrize("name", ["onnx/model_quantized.onnx", "pytorch_model.bin", "tokenizer.json"])
def test_the_checkpoints_weights_are_safetensors_and_their_index(bundle: Path, name: str) -> None:
    put(bundle, name)
    listed = json.loads((bundle / MANIFEST).read_text("utf-8"))["files"]
    seal(bundle, contract=False, files={**listed, name: ""}, weights=[name])
    with pytest.raises(ArtifactError, match=f"lists '{re.escape(name)}' as weights"):
        read_bundle(bundle)


def test_weights_of_the_checkpoint_belong_to_no_artifact(bundle: Path) -> None:
    names = ["model-00001-of-00001.safetensors", "model.safetensors.index.json"]
    for name in names:
        put(bundle, name)
    listed = json.loads((bundle / MANIFEST).read_text("utf-8"))["files"]
    seal(bundle, files={**listed, **dict.fromkeys(names, "")}, weights=names)
    assert not set(names) & set(read_bundle(bundle)[1][0].files)
