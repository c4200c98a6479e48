"""Static embeddings as files: what is read of them, and what is refused in one sentence."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from static_models import (
    MODULE,
    NORMALIZE,
    UNKNOWN,
    WIDTH,
    change_tensors,
    table,
    words,
    write_json,
    write_model2vec,
    write_modules,
    write_static_embedding,
)
from tiny_checkpoint import change_json

from bge_export.checkpoint.opening import open_checkpoint
from bge_export.checkpoint.static_tokenizer import read_static_tokenizer
from bge_export.errors import CheckpointError
from bge_export.heads.dense import dense_head


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_model2vec(tmp_path / "checkpoint", quantized=True)


def refuses(folder: Path, *parts: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize("inside", ["", "0_StaticEmbedding"])
def test_a_static_embedding_needs_no_config(tmp_path: Path, inside: str) -> None:
    checkpoint = open_checkpoint(write_static_embedding(tmp_path / "one", NORMALIZE, inside=inside, truncation=300))
    head = dense_head(checkpoint.spec)
    assert (head.dim, head.pooling, head.normalize) == (WIDTH, "mean", True)
    assert checkpoint.spec.inputs.max_tokens == 300
    assert checkpoint.spec.inputs.prompts == {"query": "the ", "document": ""}


def test_a_model_that_reads_everything_says_where_the_folder_cuts(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(write_static_embedding(tmp_path / "one"))
    assert checkpoint.spec.inputs.max_tokens == 32_768
    assert any("cuts them after 32768 tokens" in note for note in checkpoint.notes)


@pytest.mark.parametrize(
    ("declared", "longest"), [({}, 512), ({"max_length": 100}, 100), ({"max_length": None}, 32_768)]
)
def test_model2vec_says_how_many_tokens_it_reads(tmp_path: Path, declared: dict[str, object], longest: int) -> None:
    checkpoint = open_checkpoint(write_model2vec(tmp_path / "one", **declared))
    assert checkpoint.spec.inputs.max_tokens == longest


@pytest.mark.parametrize("declared", [{}, {"model_type": "model2vec"}])
def test_a_folder_of_model2vec_without_modules_is_known_by_its_tensors(
    tmp_path: Path, declared: dict[str, object]
) -> None:
    for normalize in (True, False):
        folder = write_model2vec(tmp_path / str(normalize), normalize=normalize, modules=False, **declared)
        assert dense_head(open_checkpoint(folder).spec).normalize is normalize


@pytest.mark.parametrize("changed", ["model.safetensors", "tokenizer.json", "config.json"])
def test_the_digest_covers_every_file(root: Path, tmp_path: Path, changed: str) -> None:
    other = Path(shutil.copytree(root, tmp_path / "other"))
    if changed == "model.safetensors":
        change_tensors(other, {"weights": np.ones(len(words()), dtype=np.float32)})
    elif changed == "tokenizer.json":
        change_json(other / changed, added_tokens=[])
    else:
        change_json(other / changed, max_length=77)
    assert open_checkpoint(other).digest != open_checkpoint(root).digest
    assert open_checkpoint(root).digest == open_checkpoint(root).digest


def test_a_table_with_too_few_rows_is_refused(tmp_path: Path) -> None:
    folder = write_static_embedding(tmp_path / "one")
    save_file({"embedding.weight": table(rows=40)}, folder / "model.safetensors")
    refuses(folder, "vectors of 40 tokens", f"{len(words())} ids")


@pytest.mark.parametrize("name", ["weights", "mapping"])
def test_a_number_for_each_token_is_needed(root: Path, name: str) -> None:
    change_tensors(root, {name: np.zeros(7, dtype=np.int64 if name == "mapping" else np.float32)})
    refuses(root, "need one number each")


@pytest.mark.parametrize("row", [-1, 30])
def test_a_row_that_the_table_lacks_is_refused(root: Path, row: int) -> None:
    mapping = np.zeros(len(words()), dtype=np.int64)
    mapping[5] = row
    change_tensors(root, {"mapping": mapping})
    refuses(root, "'mapping' names rows", "has 30")


def test_a_mapping_of_fractions_is_refused(root: Path) -> None:
    change_tensors(root, {"mapping": np.zeros(len(words()), dtype=np.float32)})
    refuses(root, "'mapping' names rows")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(root: Path, value: float) -> None:
    weights = np.ones(len(words()), dtype=np.float32)
    weights[3] = value
    change_tensors(root, {"weights": weights})
    refuses(root, "'weights'", "not finite")


def test_other_tensors_are_refused(root: Path) -> None:
    change_tensors(root, {"embedding.weight": table()})
    refuses(root, "holds the tensors", "model2vec's 'embeddings'")


def test_a_table_that_is_no_matrix_is_refused(root: Path) -> None:
    change_tensors(root, {"embeddings": np.zeros(5, dtype=np.float32)})
    refuses(root, "not a vector for each token")


def test_two_statements_on_the_norm_are_refused(root: Path) -> None:
    change_json(root / "config.json", normalize=False)
    refuses(root, "says normalize: false", "a Normalize")


@pytest.mark.parametrize("declared", [0, "long", True])
def test_a_length_that_is_no_number_is_refused(root: Path, declared: object) -> None:
    change_json(root / "config.json", max_length=declared)
    refuses(root, "max_length")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(root: Path, name: str) -> None:
    (root / name).unlink()
    refuses(root, f"{name} is missing")


@pytest.mark.parametrize("after", [MODULE, "sentence_transformers.models.Router"])
def test_other_modules_after_it_are_named(root: Path, after: str) -> None:
    write_modules(root, MODULE, after)
    refuses(root, "modules.json", "after one StaticEmbedding", after.rpartition(".")[2])


@pytest.mark.parametrize("folder", ["../other", "/etc"])
def test_a_folder_outside_is_refused(root: Path, folder: str) -> None:
    write_modules(root, MODULE, inside=folder)
    refuses(root, "outside the checkpoint")


def test_a_tokenizer_without_any_special_or_unknown_token_cannot_fill_a_batch(tmp_path: Path) -> None:
    folder = write_static_embedding(tmp_path / "one")
    vocabulary = {f"w{number}": number for number in range(10)}
    write_json(folder / "tokenizer.json", {"model": {"type": "BPE", "vocab": vocabulary, "merges": []}})
    refuses(folder, "no token to fill batches with")


@pytest.mark.parametrize("tensors", [{"embeddings": 1e300}, {"embeddings": 1e30, "weights": 1e30}])
def test_values_that_float32_cannot_hold_are_refused(tmp_path: Path, tensors: dict[str, float]) -> None:
    root = write_model2vec(tmp_path / "one")
    shapes = {"embeddings": (len(words()), WIDTH), "weights": (len(words()),)}
    change_tensors(root, {name: np.full(shapes[name], value) for name, value in tensors.items()})
    refuses(root, "not finite")


def test_an_empty_mapping_is_refused(root: Path) -> None:
    change_tensors(root, {"mapping": np.zeros(0, np.int64), "weights": None})
    refuses(root, "mapping")


@pytest.mark.parametrize("declared", [1, "true"])
def test_a_normalisation_that_is_neither_true_nor_false_is_refused(tmp_path: Path, declared: object) -> None:
    root = write_model2vec(tmp_path / "one", modules=False)
    change_json(root / "config.json", normalize=declared)
    refuses(root, "normalize")


def change_model(root: Path, **changes: object) -> None:
    """Change what a folder's tokenizer says of its model."""
    model = json.loads((root / "tokenizer.json").read_text("utf-8"))["model"]
    change_json(root / "tokenizer.json", model=model | changes)


def test_no_word_is_dropped_where_the_tokenizer_has_no_unknown_token(root: Path) -> None:
    vocabulary = {"None": 4} | {word: number for number, word in enumerate(words()) if number != 4}
    change_model(root, type="BPE", vocab=vocabulary, merges=[], unk_token=None)
    assert read_static_tokenizer(root / "tokenizer.json").unknown is None


def test_the_id_of_an_unknown_token_counts_in_unigram_models_alone(root: Path) -> None:
    change_model(root, unk_id=7)
    assert read_static_tokenizer(root / "tokenizer.json").unknown == UNKNOWN


@pytest.mark.parametrize("number", [-1, 10**9, True, "1"])
def test_an_unknown_token_outside_the_vocabulary_is_refused(root: Path, number: object) -> None:
    change_model(root, type="Unigram", vocab=[[word, 0.0] for word in words()], unk_id=number)
    refuses(root, "unk_id")
