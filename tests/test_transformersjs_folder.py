"""The folder that Transformers.js loads: files under its names, the checkpoint's own weights, and a right card."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from exporting import export_model, export_transformersjs
from noise_limits import noise_limits

from bge_export.bundle.manifest import read_bundle, read_manifest
from bge_export.commands import judge_report
from bge_export.contracts import InputSpec, ModelSpec
from bge_export.errors import ArtifactError, OutputError
from bge_export.exporters import find_exporter
from bge_export.files.digest import file_sha256
from bge_export.heads.dense import DenseHead
from bge_export.publish.card import examples

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def folder(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("transformersjs") / "out"
    limits = noise_limits(out.parent)
    exported = export_transformersjs(str(tiny), out, repository="somebody/tiny", license_name="mit", thresholds=limits)
    assert exported.folder == out
    assert exported.proof.verdict.passed
    return out


def test_files_stand_under_the_clients_names(folder: Path) -> None:
    expected = {"fp32": "model.onnx", "fp16": "model_fp16.onnx", "int8": "model_quantized.onnx"}
    names = {expected[precision] for precision in find_exporter("onnx").precisions if precision in expected}
    assert {path.name for path in (folder / "onnx").iterdir()} == names
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "README.md", "model.safetensors"):
        assert (folder / name).is_file()


def test_the_weights_are_the_checkpoints_and_no_artifact_depends_on_them(folder: Path, tiny: Path) -> None:
    assert file_sha256(folder / "model.safetensors") == file_sha256(tiny / "model.safetensors")
    manifest, artifacts = read_bundle(folder)
    assert manifest.weights == ["model.safetensors"]
    assert all("model.safetensors" not in item.files for item in artifacts)


def test_transformers_loads_the_folder_itself(folder: Path, tiny: Path) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    rows = []
    for source in (folder, tiny):
        tokens = AutoTokenizer.from_pretrained(source)("a happy person", return_tensors="pt")
        with torch.no_grad():
            rows.append(AutoModel.from_pretrained(source)(**tokens).last_hidden_state.numpy())
    np.testing.assert_array_equal(*rows)


def test_other_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / "model.safetensors").write_bytes(b"other")
    with pytest.raises(ArtifactError, match=r"model\.safetensors is not the file that was exported"):
        read_bundle(copy)


def test_without_weights(tiny: Path, tmp_path: Path) -> None:
    folder = export_transformersjs(str(tiny), tmp_path / "out", dtypes=["fp32"], weights=False, check=False).folder
    assert not list(folder.glob("*.safetensors"))
    assert read_manifest(folder).weights == []
    card = (folder / "README.md").read_text("utf-8")
    assert "Not measured" in card
    assert "AutoModel" not in card


def test_every_export_adds_the_weights_where_they_are_asked_for(tiny: Path, tmp_path: Path, bge: Callable) -> None:
    done = bge("onnx", tiny, "-o", tmp_path / "out", "--with-weights", "--no-check")
    assert done.returncode == 0, done.stderr
    assert read_manifest(tmp_path / "out").weights == ["model.safetensors"]
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (tiny / "model.safetensors").read_bytes()

    done = bge("export", tiny, "--to", "onnx:fp32", "--with-weights", "--write-recipe", tmp_path / "recipe.toml")
    assert done.returncode == 0, done.stderr
    assert "weights = true" in (tmp_path / "recipe.toml").read_text("utf-8")


def test_extending_the_folder_keeps_weights_and_card(folder: Path, tiny: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    with pytest.raises(OutputError, match="has onnx-fp32 already"):
        export_transformersjs(str(tiny), copy, dtypes=["fp32"], check=False)
    export_model(find_exporter("torchscript"), str(tiny), copy, check=False)
    assert read_manifest(copy).weights == ["model.safetensors"]

    before, after = ((one / "README.md").read_text("utf-8") for one in (folder, copy))
    assert "torchscript/model.pt" not in before
    assert "| torchscript-fp32 | `torchscript/model.pt` |" in after
    for kept in ("license: mit", "somebody/tiny", "library_name: transformers.js", "AutoModel"):
        assert kept in before
        assert kept in after


def test_a_card_of_another_checkpoint_does_not_lend_its_licence(folder: Path, tiny: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    another = Path(shutil.copytree(tiny, tmp_path / "another"))
    (another / "config.json").write_text((another / "config.json").read_text("utf-8") + "\n", "utf-8")
    export_model(find_exporter("onnx"), str(another), copy, overwrite=True, check=False)
    card = (copy / "README.md").read_text("utf-8")
    assert "# another" in card
    for gone in ("license: mit", "somebody/tiny", "Transformers.js"):
        assert gone in (folder / "README.md").read_text("utf-8")
        assert gone not in card


def test_writing_the_card_again_leaves_the_earlier_folder_alone(folder: Path, tiny: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    before = (copy / "README.md").read_bytes()
    (tmp_path / "linked.md").hardlink_to(copy / "README.md")
    export_transformersjs(str(tiny), copy, dtypes=["fp32"], overwrite=True, check=False)
    assert (tmp_path / "linked.md").read_bytes() == before != (copy / "README.md").read_bytes()


def test_the_card_says_what_was_measured_and_pools_as_the_checkpoint(folder: Path) -> None:
    card = (folder / "README.md").read_text("utf-8")
    assert card.startswith("---\nlibrary_name: transformers.js\n")
    assert "license: mit" in card
    assert "somebody/tiny" in card
    assert "mean" not in card
    assert re.search(r"\| onnx-fp32 \| `onnx/model\.onnx` \| [\d.]+ MB \| `fp32` \|\n", card)
    figures = r"0\.99999\d* \| 0\.99999\d* \| 0\.99999\d* \|"
    assert re.search(rf"\| `onnx/model\.onnx` \| onnxruntime:cpu \| last_hidden_state \| {figures}", card)
    assert "\n\n\n" not in card
    assert len(re.findall(r"pooling: 'cls', normalize: true", card)) == 4


def test_the_documentation_shows_the_same_examples() -> None:

    prompts = {"query": "Represent this sentence for searching relevant passages: "}
    spec = ModelSpec(InputSpec(512, prompts), {"dense": DenseHead(384, "cls", normalize=True)})
    shown = examples(spec, "Supabase/bge-small-en", {"fp32", "fp16", "q8"})
    assert shown in (ROOT / "docs/how-to/javascript.md").read_text("utf-8"), f"the page must hold:\n{shown}"


def test_the_report_judges_the_folder_again(folder: Path, tmp_path: Path) -> None:
    assert judge_report(folder / "parity.json", thresholds=noise_limits(tmp_path)).verdict.passed


def test_a_dtype_that_nothing_writes_is_a_usage_error(tmp_path: Path, bge: Callable) -> None:
    done = bge("transformersjs", "nowhere", "-o", tmp_path / "out", "--dtypes", "fp32,q8")
    assert done.returncode == 2
    assert "--dtypes: there is no 'q8': 'q8' is what clients call int8" in done.stderr
