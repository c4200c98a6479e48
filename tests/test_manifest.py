import json
from pathlib import Path, PurePosixPath

import pytest

from bge_export.bundle.integrity import MANIFEST
from bge_export.bundle.manifest import read_bundle
from bge_export.commands import Exported
from bge_export.errors import ArtifactError
from bge_export.files.digest import file_sha256

READS = {"max_tokens": 512, "prompts": {}}


def edit(bundle: Path, **changes: object) -> None:
    path = bundle / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")


def test_a_folder_gives_its_artifacts(tiny_export: Exported) -> None:
    manifest, artifacts = read_bundle(tiny_export.folder)
    assert [str(item.target) for item in artifacts] == ["onnx-fp32", "onnx-fp16"]
    assert artifacts[0].inputs == ("input_ids", "attention_mask", "token_type_ids")
    assert artifacts[0].outputs == ("last_hidden_state", "sentence_embedding")
    assert artifacts[0].digest != artifacts[1].digest
    assert "onnx/model.onnx" in artifacts[0].files
    assert "onnx/model_fp16.onnx" not in artifacts[0].files
    assert {"tokenizer.json", "1_Pooling/config.json"} <= set(artifacts[0].files)
    assert manifest.source.id == "tiny"


def test_the_manifest_names_no_machine(tiny_export: Exported, tiny: Path) -> None:
    text = (tiny_export.folder / MANIFEST).read_text("utf-8")
    assert str(tiny.parent) not in text
    assert str(Path.home()) not in text


@pytest.mark.parametrize("name", ["onnx/model.onnx", "tokenizer.json", "1_Pooling/config.json", "config.json"])
def test_a_changed_file_is_named(bundle: Path, name: str) -> None:
    data = bytearray((bundle / name).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / name).write_bytes(data)
    with pytest.raises(ArtifactError, match=f"{name} is not the file"):
        read_bundle(bundle)


def test_a_truncated_or_missing_file_is_named(bundle: Path) -> None:
    path = bundle / "onnx/model.onnx"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ArtifactError, match=r"model\.onnx is not the file"):
        read_bundle(bundle)
    path.unlink()
    with pytest.raises(ArtifactError, match=r"model\.onnx is missing"):
        read_bundle(bundle)


def test_a_model_that_the_manifest_does_not_know_is_named(bundle: Path) -> None:
    (bundle / "onnx/model_quantized.onnx").write_bytes((bundle / "onnx/model.onnx").read_bytes())
    with pytest.raises(ArtifactError, match=r"model_quantized\.onnx is not in"):
        read_bundle(bundle)


@pytest.mark.parametrize(
    "name",
    [
        "model.gguf",
        "model.h5",
        "model.PT",
        "onnx/MODEL.ONNX",
        "onnx/model.onnx_data_1",
        "model.mlpackage/Data/model.mlmodel",
        "flax_model.msgpack",
        "rust_model.ot",
        "model.tflite",
        "model.pth",
        "last.ckpt",
        "adapter_config.json",
        "added_tokens.json",
        "merges.txt",
        "sentencepiece.bpe.model",
        "sentence_roberta_config.json",
        "openvino/config.json",
        "2_Dense/config.json",
        "Adapter_Config.json",
    ],
)
def test_a_file_that_decides_an_embedding_and_that_the_manifest_does_not_know_is_named(bundle: Path, name: str) -> None:
    (bundle / name).parent.mkdir(parents=True, exist_ok=True)
    (bundle / name).write_text("{}")
    with pytest.raises(ArtifactError, match=f"{PurePosixPath(name).name} is not in"):
        read_bundle(bundle)


def test_a_readme_beside_the_models_is_no_fault(bundle: Path) -> None:
    (bundle / "README.md").write_text("a card")
    assert len(read_bundle(bundle)[1]) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": "other/1"}, "schema"),
        ({"models": "x"}, "models"),
        ({"added": 1}, "added"),
        (
            {"spec": {"inputs": READS, "heads": {"dense": {"dim": 64, "pooling": "max", "normalize": True}}}},
            "pooling",
        ),
        ({"files": {"../outside": "0" * 64}}, "outside"),
        ({"files": {}}, "digest"),
    ],
)
def test_a_manifest_that_says_something_else_is_named(bundle: Path, changes: dict[str, object], message: str) -> None:
    edit(bundle, **changes)
    with pytest.raises(ArtifactError, match=message):
        read_bundle(bundle)


def test_a_folder_without_a_manifest_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="bge-export onnx"):
        read_bundle(tmp_path)
    (tmp_path / MANIFEST).write_text("[1]")
    with pytest.raises(ArtifactError, match="not a valid manifest"):
        read_bundle(tmp_path)


@pytest.mark.parametrize(
    ("name", "change", "what"),
    [
        (
            "1_Pooling/config.json",
            lambda old: {
                **old,
                "pooling_mode_cls_token": False,
                "pooling_mode_mean_tokens": True,
                "pooling_mode": "mean",
            },
            "pooling",
        ),
        ("modules.json", lambda old: old[:2], "normalisation"),
        ("sentence_bert_config.json", lambda old: {**old, "max_seq_length": 128}, "longest input"),
        ("config_sentence_transformers.json", lambda old: {**old, "prompts": {"query": "q: "}}, "prompts"),
    ],
)
def test_pooling_files_that_promise_something_else_are_refused_even_where_the_digests_agree(
    bundle: Path, name: str, change, what: str
) -> None:
    (bundle / name).write_text(json.dumps(change(json.loads((bundle / name).read_text("utf-8")))), "utf-8")
    files = json.loads((bundle / MANIFEST).read_text("utf-8"))["files"]
    edit(bundle, files=files | {name: file_sha256(bundle / name)})
    with pytest.raises(ArtifactError, match=f"declare the {what}"):
        read_bundle(bundle)
