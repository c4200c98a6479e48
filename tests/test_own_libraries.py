"""sentence-transformers loads the folder of each kind of model as its own checkpoint, with nothing else set."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from architectures import HIDDEN
from numpy.typing import NDArray
from rerankers import build_reranker
from safetensors.torch import load_file
from sentence_transformers import CrossEncoder, MultiVectorEncoder, SentenceTransformer, SparseEncoder
from tiny_checkpoint import change_json, write_json
from token_heads import WIDTH, build_colbert, build_m3, build_splade

from bge_export.bundle.layout import write_layout
from bge_export.bundle.manifest import read_bundle, write_manifest
from bge_export.bundle.origin import write_weights
from bge_export.checkpoint.opening import open_checkpoint
from bge_export.errors import ArtifactError
from bge_export.files.digest import file_sha256
from bge_export.texts.corpus import builtin_corpus

TEXTS = [one.text for one in builtin_corpus().texts[::20]]
NEAR = 1e-5
PAGES = Path(__file__).parents[1] / "docs" / "how-to"


def folder_of(source: Path, out: Path) -> Path:
    """Write all that an export writes beside its models, with the weights; return the folder."""
    checkpoint = open_checkpoint(source, allow_pickle=True)
    write_layout(checkpoint, out)
    weights = write_weights(checkpoint, out)
    write_manifest(out, checkpoint, (), checked=False, weights=weights)
    return out


def furthest(found: Sequence[NDArray[np.float32]], wanted: Sequence[NDArray[np.float32]]) -> float:
    """Return the largest difference of a number, after a look that each text has as many."""
    assert [one.shape for one in found] == [one.shape for one in wanted]
    assert max(float(np.abs(one).max()) for one in wanted) > 0.1
    return max(float(np.abs(one - other).max()) for one, other in zip(found, wanted, strict=True))


def sparse(folder: Path) -> list[NDArray[np.float32]]:
    return [row.to_dense().numpy() for row in SparseEncoder(str(folder), device="cpu").encode(TEXTS)]


def vectors(folder: Path) -> list[NDArray[np.float32]]:
    model = MultiVectorEncoder(str(folder), device="cpu")
    rows = [*model.encode_document(TEXTS), *model.encode_query(TEXTS)]
    return [np.asarray(row) for row in rows]


@pytest.mark.parametrize("pooling", [{}, {"pooling_strategy": "sum", "activation_function": "log1p_relu"}])
def test_sparse_encoder_gives_the_checkpoints_token_weights(tmp_path: Path, pooling: dict[str, str]) -> None:
    source = build_splade(tmp_path / "splade", **pooling)
    folder = folder_of(source, tmp_path / "out")
    assert furthest(sparse(folder), sparse(source)) <= NEAR
    assert read_bundle(folder)[0].spec.heads.sparse is not None


def test_sparse_encoder_reads_the_files_of_current_versions_too(tmp_path: Path) -> None:
    source, own = build_splade(tmp_path / "splade"), tmp_path / "current"
    SparseEncoder(str(source), device="cpu").save_pretrained(str(own))
    assert furthest(sparse(folder_of(own, tmp_path / "out")), sparse(source)) <= NEAR


@pytest.mark.parametrize("library", ["pylate", "sentence-transformers"])
def test_multi_vector_encoder_gives_the_checkpoints_vectors_of_tokens(tmp_path: Path, library: str) -> None:
    source = build_colbert(tmp_path / "colbert", library)  # type: ignore[arg-type]
    folder = folder_of(source, tmp_path / "out")
    assert furthest(vectors(folder), vectors(source)) <= NEAR
    assert read_bundle(folder)[0].spec.heads.multi_vector is not None


def test_what_a_colbert_declares_for_its_client_stays(tmp_path: Path) -> None:
    source = build_colbert(tmp_path / "colbert", "sentence-transformers")
    (source / "2_MultiVectorMask").mkdir()
    write_json(source / "2_MultiVectorMask" / "config.json", {"skiplist_words": ["the", "."]})
    change_json(source / "sentence_bert_config.json", query_length=24, document_length=48)

    folder = folder_of(source, tmp_path / "out")
    assert json.loads((folder / "2_MultiVectorMask" / "config.json").read_text()) == {"skiplist_words": ["the", "."]}
    settings = json.loads((folder / "sentence_bert_config.json").read_text("utf-8"))
    assert (settings["query_length"], settings["document_length"]) == (24, 48)
    assert furthest(vectors(folder), vectors(source)) <= NEAR


def test_a_module_stands_under_a_name_that_every_reader_of_folders_knows(tmp_path: Path) -> None:
    source = build_colbert(tmp_path / "colbert")
    (source / "1_Dense").rename(source / "projection")
    modules = json.loads((source / "modules.json").read_text("utf-8"))
    modules[1]["path"] = "projection"
    write_json(source / "modules.json", modules)

    folder = folder_of(source, tmp_path / "out")
    assert (folder / "1_Dense" / "model.safetensors").is_file()
    read_bundle(folder)
    assert furthest(vectors(folder), vectors(source)) <= NEAR


@pytest.mark.parametrize("activation", [None, "torch.nn.modules.linear.Identity"])
@pytest.mark.parametrize("kind", ["bert", "xlm-roberta"])
def test_cross_encoder_gives_the_checkpoints_scores(tmp_path: Path, kind: str, activation: str | None) -> None:
    source = build_reranker(kind, tmp_path / "reranker")  # type: ignore[arg-type]
    if activation is not None:
        change_json(source / "config.json", sentence_transformers={"activation_fn": activation})

    folder = folder_of(source, tmp_path / "out")
    pairs = [(one.query, one.text) for one in builtin_corpus(pairs=True).texts[::8]]
    found, wanted = (CrossEncoder(str(one), device="cpu").predict(pairs) for one in (folder, source))
    assert furthest([found], [wanted]) <= NEAR
    assert (float(wanted.min()) < 0) == (activation is not None)  # raw logits, or between 0 and 1


def test_sentence_transformer_gives_the_dense_vectors_of_bge_m3(tmp_path: Path) -> None:
    """Without pooling files it would take the mean, and say so only in a warning."""
    source = build_m3(tmp_path / "m3")
    folder = folder_of(source, tmp_path / "out")
    found, wanted = (SentenceTransformer(str(one), device="cpu").encode(TEXTS) for one in (folder, source))
    assert furthest([found], [wanted]) <= NEAR
    assert read_bundle(folder)[0].spec.heads.dense is not None


def test_the_two_layers_of_bge_m3_come_with_the_weights(tmp_path: Path) -> None:
    source = build_m3(tmp_path / "m3")
    folder = folder_of(source, tmp_path / "out")
    manifest, _ = read_bundle(folder)
    assert manifest.weights == ["model.safetensors", "sparse_linear.safetensors", "colbert_linear.safetensors"]

    for name, width in (("sparse_linear", 1), ("colbert_linear", WIDTH)):
        layer = torch.nn.Linear(HIDDEN, width)
        layer.load_state_dict(load_file(folder / f"{name}.safetensors"))
        assert torch.equal(layer.weight, torch.load(source / f"{name}.pt", weights_only=True)["weight"])


def test_the_pages_show_lines_that_load_such_folders(tmp_path: Path) -> None:
    folder_of(build_reranker("bert", tmp_path / "reranker"), tmp_path / "out")
    folder_of(build_splade(tmp_path / "a"), tmp_path / "splade")
    folder_of(build_colbert(tmp_path / "b"), tmp_path / "colbert")

    pages = [(PAGES / name).read_text("utf-8") for name in ("rerankers.md", "token-weights.md")]
    blocks = [block for page in pages for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL)]
    torch_alone = [one for one in blocks if "from sentence_transformers" in one and "backend" not in one]
    assert len(torch_alone) == 3
    program = "\n".join(torch_alone)
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3


def resealed(folder: Path, name: str) -> Path:
    """Write the digest of a changed file into the manifest, as a damaged export would; return the folder."""
    manifest = json.loads((folder / "bge_export.json").read_text("utf-8"))
    if (folder / name).is_file():
        manifest["files"][name] = file_sha256(folder / name)
    else:
        del manifest["files"][name]
    (folder / "bge_export.json").write_text(json.dumps(manifest), "utf-8")
    return folder


def test_modules_that_make_another_head_than_the_manifest_promises_are_refused(tmp_path: Path) -> None:
    splade = folder_of(build_splade(tmp_path / "splade"), tmp_path / "a")
    change_json(splade / "1_SpladePooling" / "config.json", pooling_strategy="sum")
    with pytest.raises(ArtifactError, match=r"pooling='sum'.*promises weights of tokens"):
        read_bundle(resealed(splade, "1_SpladePooling/config.json"))

    colbert = folder_of(build_colbert(tmp_path / "colbert"), tmp_path / "b")
    (colbert / "modules.json").unlink()
    with pytest.raises(ArtifactError, match=r"declare an embedding model, but .* promises vectors of tokens"):
        read_bundle(resealed(colbert, "modules.json"))

    m3 = folder_of(build_m3(tmp_path / "m3"), tmp_path / "c")
    change_json(
        m3 / "1_Pooling" / "config.json",
        pooling_mode="mean",
        pooling_mode_cls_token=False,
        pooling_mode_mean_tokens=True,
    )
    with pytest.raises(ArtifactError, match="declare the pooling 'mean'"):
        read_bundle(resealed(m3, "1_Pooling/config.json"))


def test_a_folder_of_vectors_with_the_modules_of_splade_is_refused(tmp_path: Path) -> None:
    splade = build_splade(tmp_path / "splade")
    folder = folder_of(build_m3(tmp_path / "m3"), tmp_path / "out")
    shutil.rmtree(folder / "1_Pooling")
    shutil.copyfile(splade / "modules.json", folder / "modules.json")
    with pytest.raises(ArtifactError):
        read_bundle(resealed(resealed(folder, "modules.json"), "1_Pooling/config.json"))
