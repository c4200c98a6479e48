"""Local folders: what `open_checkpoint` reads, and everything it refuses, by name."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_checkpoint import (
    EMBEDDING,
    TOKENS,
    WIDTH,
    change_json,
    write_checkpoint,
    write_json,
    write_modules,
    write_pooling,
    write_weights,
)

from bge_export.checkpoint.opening import open_checkpoint
from bge_export.contracts import InputSpec, ModelSpec
from bge_export.errors import CheckpointError, UsageError
from bge_export.files.digest import combined_digest, file_digests, file_sha256, tree_digest
from bge_export.heads.dense import DenseHead, dense_head

NEW_POOLING = {"embedding_dimension": WIDTH, "pooling_mode": "cls", "include_prompt": True}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "tiny")


def refuses(root: Path | str, *parts: str, **options: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(root, **options)  # type: ignore[arg-type]
    for part in parts:
        assert part in str(caught.value)


# What is read


def test_a_checkpoint_says_what_the_model_promises(root: Path) -> None:
    checkpoint = open_checkpoint(root)
    assert checkpoint.spec == ModelSpec(InputSpec(16, {}), {"dense": DenseHead(WIDTH, "cls", normalize=True)})
    assert (checkpoint.source, checkpoint.revision, checkpoint.root) == ("tiny", None, root)
    assert (checkpoint.model_type, checkpoint.weights, checkpoint.token_types) == ("bert", ("model.safetensors",), True)


def test_the_source_of_a_relative_folder_is_its_name(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    assert open_checkpoint(".").source == "tiny"


def test_opening_a_checkpoint_loads_neither_torch_nor_transformers(root: Path) -> None:
    code = (
        "import sys; from bge_export.checkpoint.opening import open_checkpoint; open_checkpoint(sys.argv[1]);"
        "print([m for m in ('torch', 'transformers', 'huggingface_hub') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(root)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("flag", "pooling"),
    [("pooling_mode_cls_token", "cls"), ("pooling_mode_mean_tokens", "mean"), ("pooling_mode_lasttoken", "last")],
)
def test_the_old_schema_of_pooling_is_read(root: Path, flag: str, pooling: str) -> None:
    flags = {"pooling_mode_mean_tokens": False, "pooling_mode_max_tokens": False} | {flag: True}
    write_pooling(root, {"word_embedding_dimension": WIDTH, **flags})
    assert dense_head(open_checkpoint(root).spec).pooling == pooling


@pytest.mark.parametrize(("name", "pooling"), [("cls", "cls"), ("mean", "mean"), ("lasttoken", "last")])
def test_the_new_schema_of_pooling_is_read(root: Path, name: str, pooling: str) -> None:
    write_pooling(root, NEW_POOLING | {"pooling_mode": name})
    write_modules(root, "Transformer", "Pooling", package="sentence_transformers.base.modules.some_file")
    write_json(root / "sentence_bert_config.json", {"transformer_task": "feature-extraction", "modality_config": {}})
    checkpoint = open_checkpoint(root)
    head = dense_head(checkpoint.spec)
    assert (head.pooling, head.normalize, checkpoint.spec.inputs.max_tokens) == (pooling, False, 24)


def test_both_schemas_in_one_file_are_read_where_they_agree(root: Path) -> None:
    write_pooling(root, {"word_embedding_dimension": WIDTH, "pooling_mode": "cls", "pooling_mode_cls_token": True})
    assert dense_head(open_checkpoint(root).spec).pooling == "cls"


def test_without_normalize_module_nothing_is_normalized(root: Path) -> None:
    write_modules(root, "Transformer", "Pooling")
    assert dense_head(open_checkpoint(root).spec).normalize is False


def test_without_modules_the_given_pooling_counts_and_normalizes(root: Path) -> None:
    drop_modules(root)
    head = dense_head(open_checkpoint(root, pooling="mean").spec)
    assert (head.pooling, head.normalize) == ("mean", True)


def test_the_declared_pooling_may_be_given_too(root: Path) -> None:
    assert dense_head(open_checkpoint(root, pooling="cls").spec).pooling == "cls"


def test_the_query_prompt_is_read(root: Path) -> None:
    change_json(root / "config_sentence_transformers.json", prompts={"query": "query: ", "document": ""})
    assert open_checkpoint(root).spec.inputs.prompts == {"query": "query: ", "document": ""}


def test_the_longest_input_is_the_setting_of_sentence_transformers_before_the_tokenizers(root: Path) -> None:
    change_json(root / "sentence_bert_config.json", max_seq_length=28)
    assert open_checkpoint(root).spec.inputs.max_tokens == 28
    change_json(root / "sentence_bert_config.json", max_seq_length=40)
    assert open_checkpoint(root).spec.inputs.max_tokens == 32


def test_without_that_setting_tokenizer_and_positions_limit_the_input(root: Path) -> None:
    (root / "sentence_bert_config.json").unlink()
    assert open_checkpoint(root).spec.inputs.max_tokens == 24
    change_json(root / "tokenizer_config.json", model_max_length=10**30)
    assert open_checkpoint(root).spec.inputs.max_tokens == 32


def test_positions_of_padding_do_not_count(root: Path) -> None:
    (root / "sentence_bert_config.json").unlink()
    (root / "tokenizer_config.json").unlink()
    change_json(root / "config.json", model_type="xlm-roberta", max_position_embeddings=514, pad_token_id=1)
    assert open_checkpoint(root).spec.inputs.max_tokens == 512


def test_distilbert_calls_its_width_dim(root: Path) -> None:
    change_json(root / "config.json", model_type="distilbert", dim=WIDTH, hidden_size=None, type_vocab_size=None)
    checkpoint = open_checkpoint(root)
    assert (dense_head(checkpoint.spec).dim, checkpoint.token_types) == (WIDTH, False)


def test_a_model_type_that_is_not_known_here_is_left_to_the_loader(root: Path) -> None:
    change_json(root / "config.json", model_type="brand-new")
    assert open_checkpoint(root).model_type == "brand-new"


def test_a_vocabulary_alone_is_a_tokenizer(root: Path) -> None:
    (root / "tokenizer.json").unlink()
    assert dense_head(open_checkpoint(root).spec).dim == WIDTH


def test_shards_are_read_through_their_index(root: Path) -> None:
    write_shards(root)
    assert open_checkpoint(root).weights == ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


@pytest.mark.parametrize(
    "name",
    ["config.json", "modules.json", "1_Pooling/config.json", "sentence_bert_config.json", "tokenizer_config.json",
     "config_sentence_transformers.json"],
)  # fmt: skip
def test_the_digest_covers_every_file_that_decides_the_embedding(root: Path, name: str) -> None:
    before = open_checkpoint(root).digest
    path = root / name
    path.write_text(path.read_text("utf-8") + "\n", "utf-8")
    assert open_checkpoint(root).digest != before


def test_the_digest_leaves_other_files_out(root: Path) -> None:
    before = open_checkpoint(root).digest
    (root / "README.md").write_text("words")
    assert open_checkpoint(root).digest == before


def test_digests_depend_on_names_and_content_but_not_on_order(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_bytes(name.encode() * 3_000_000)
    assert tree_digest(tmp_path, ["b", "a", "a"]) == combined_digest(file_digests(tmp_path, ["a", "b"]))
    assert tree_digest(tmp_path, ["a"]) != combined_digest({"b": file_sha256(tmp_path / "a")})


# Which model is meant


@pytest.mark.parametrize("model", ["./nowhere", "/nowhere/at/all", "~/nowhere-at-all", "a/b/c", "a\\b"])
def test_a_path_that_does_not_exist_is_refused(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refuses(model, "no such folder")


def test_a_path_object_is_never_a_hub_id() -> None:
    refuses(Path("nowhere-at-all"), "no such folder")


@pytest.mark.parametrize("model", ["", "a b", "org/", "-x", "a--b", "org/na..me", "x" * 97, "nul\0"])
def test_a_name_that_no_hub_id_has_is_refused(model: str) -> None:
    refuses(model, "neither a folder nor a Hub id")


def test_an_address_is_answered_with_the_form_of_an_id() -> None:
    refuses("https://hub.example/BAAI/bge-small-en", "ORGANISATION/NAME")


def test_a_path_that_is_too_long_is_refused() -> None:
    refuses("/" + "x" * 5000, "File name too long", "5001 characters")


def test_a_revision_of_a_folder_is_a_usage_error(root: Path) -> None:
    with pytest.raises(UsageError, match="local folder"):
        open_checkpoint(root, revision="main")


def test_a_file_instead_of_a_folder_is_refused(root: Path) -> None:
    refuses(root / "config.json", "is a file")


def test_a_file_that_cannot_be_read_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied", "modules.json")

    monkeypatch.setattr("os.open", deny)
    refuses(root, "modules.json", "Permission denied")


# config.json


def test_a_missing_config_is_refused(root: Path) -> None:
    (root / "config.json").unlink()
    refuses(root, "config.json is missing")


@pytest.mark.parametrize(
    ("text", "part"), [("{", "not valid JSON"), ("[]", "not an object"), ("\x80", "not valid JSON")]
)
def test_a_config_that_is_no_json_object_is_refused(root: Path, text: str, part: str) -> None:
    (root / "config.json").write_bytes(text.encode("latin-1"))
    refuses(root, "config.json", part)


def test_a_config_without_model_type_is_refused(root: Path) -> None:
    change_json(root / "config.json", model_type=None)
    refuses(root, "config.json", "model_type")


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_code_of_the_repository_is_never_run(root: Path, name: str) -> None:
    change_json(root / name, auto_map={"AutoModel": "modeling.Model"})
    refuses(root, name, "auto_map", "never")


def test_an_encoder_decoder_is_refused(root: Path) -> None:
    change_json(root / "config.json", is_encoder_decoder=True)
    refuses(root, "encoder-decoder")


def test_a_config_without_width_is_refused(root: Path) -> None:
    change_json(root / "config.json", hidden_size=None)
    refuses(root, "hidden_size")


def test_a_config_without_longest_input_is_refused(root: Path) -> None:
    change_json(root / "config.json", max_position_embeddings=None)
    change_json(root / "tokenizer_config.json", model_max_length=None)
    (root / "sentence_bert_config.json").unlink()
    refuses(root, "longest input")


# sentence-transformers files


@pytest.mark.parametrize("kind", ["CNN", "WeightedLayerPooling"])
def test_a_module_that_artifacts_would_leave_out_is_refused(root: Path, kind: str) -> None:
    write_modules(root, "Transformer", "Pooling", kind, "Normalize")
    refuses(root, "modules.json", kind)


def test_a_module_with_code_of_its_own_is_refused(root: Path) -> None:
    write_modules(root, "Transformer", "Pooling", package="custom_code")
    refuses(root, "custom_code.Transformer")


def test_modules_in_another_order_are_refused(root: Path) -> None:
    write_modules(root, "Transformer", "Normalize", "Pooling")
    refuses(root, "modules.json", "the order Transformer, Pooling")


def test_a_module_outside_the_folder_is_refused(root: Path) -> None:
    modules = json.loads((root / "modules.json").read_text())
    modules[1]["path"] = "../elsewhere"
    write_json(root / "modules.json", modules)
    refuses(root, "../elsewhere", "outside")


def test_a_transformer_in_a_folder_of_its_own_is_refused(root: Path) -> None:
    modules = json.loads((root / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    write_json(root / "modules.json", modules)
    refuses(root, "0_Transformer")


def test_missing_modules_beside_a_pooling_folder_are_refused(root: Path) -> None:
    (root / "modules.json").unlink()
    refuses(root, "modules.json is missing", pooling="cls")


def test_a_missing_pooling_config_is_refused(root: Path) -> None:
    (root / "1_Pooling" / "config.json").unlink()
    refuses(root, "1_Pooling", "is missing")


@pytest.mark.parametrize("mode", ["invented", "min"])
def test_a_pooling_that_is_not_supported_is_refused(root: Path, mode: str) -> None:
    write_pooling(root, NEW_POOLING | {"pooling_mode": mode})
    refuses(root, mode, "cls, mean, lasttoken")


@pytest.mark.parametrize(
    ("flag", "mode", "pooling"),
    [
        ("pooling_mode_max_tokens", "max", "max"),
        ("pooling_mode_weightedmean_tokens", "weightedmean", "weightedmean"),
        ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens", "mean_sqrt_len"),
    ],
)
def test_an_unusual_pooling_is_read_from_flag_and_name_and_given_by_the_graph(
    root: Path, flag: str, mode: str, pooling: str
) -> None:
    for declared in ({flag: True, "pooling_mode_mean_tokens": False}, {"pooling_mode": mode}):
        write_pooling(root, {"word_embedding_dimension": WIDTH, **declared})
        head = dense_head(open_checkpoint(root).spec)
        assert (head.pooling, head.in_graph) == (pooling, True)


@pytest.mark.parametrize(
    "config",
    [{"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, {"pooling_mode": ["cls", "mean"]}],
)
def test_several_poolings_at_once_are_refused(root: Path, config: dict[str, object]) -> None:
    write_pooling(root, config)
    refuses(root, "cls + mean")


def test_a_pooling_that_is_no_name_is_refused(root: Path) -> None:
    write_pooling(root, {"pooling_mode": 3})
    refuses(root, "pooling_mode 3")


@pytest.mark.parametrize("flags", [{"pooling_mode_mean_tokens": True}, {"pooling_mode_cls_token": False}])
def test_a_pooling_that_contradicts_itself_is_refused(root: Path, flags: dict[str, object]) -> None:
    write_pooling(root, NEW_POOLING | flags)
    refuses(root, "contradicts itself")


def test_no_declared_pooling_asks_for_one(root: Path) -> None:
    drop_modules(root)
    refuses(root, "--pooling cls, mean or last")


def test_another_pooling_than_the_declared_one_is_refused(root: Path) -> None:
    refuses(root, "'cls'", "'mean'", pooling="mean")


def test_a_pooling_without_the_prompt_is_refused(root: Path) -> None:
    write_pooling(root, NEW_POOLING | {"include_prompt": False})
    refuses(root, "include_prompt")


def test_a_pooling_of_another_width_is_refused(root: Path) -> None:
    write_pooling(root, NEW_POOLING | {"embedding_dimension": 8})
    refuses(root, "the width 8", f"the hidden size {WIDTH}")


def test_a_task_other_than_token_states_is_refused(root: Path) -> None:
    write_json(root / "sentence_bert_config.json", {"transformer_task": "text-generation"})
    refuses(root, "text-generation")


def test_a_prompt_before_every_text_is_refused(root: Path) -> None:
    change_json(root / "config_sentence_transformers.json", prompts={"all": "text: "}, default_prompt_name="all")
    refuses(root, "default")


def test_prompts_that_are_no_texts_are_refused(root: Path) -> None:
    change_json(root / "config_sentence_transformers.json", prompts={"query": 3})
    refuses(root, "prompts")


# Tokenizer files


def test_a_missing_tokenizer_is_refused(root: Path) -> None:
    (root / "tokenizer.json").unlink()
    (root / "vocab.txt").unlink()
    refuses(root, "tokenizer.json is missing")


@pytest.mark.parametrize(("text", "part"), [("{", "not valid JSON"), ("{}", "no tokenizer model")])
def test_a_broken_tokenizer_is_refused(root: Path, text: str, part: str) -> None:
    (root / "tokenizer.json").write_text(text)
    refuses(root, "tokenizer.json", part)


def test_a_tokenizer_that_lowercases_against_its_settings_is_refused(root: Path) -> None:
    change_json(root / "tokenizer_config.json", do_lower_case=False)
    refuses(root, "tokenizer_config.json", "do_lower_case: false", "lowercases")


def test_a_tokenizer_that_does_not_lowercase_against_the_sentence_settings_is_refused(root: Path) -> None:
    change_json(root / "tokenizer_config.json", do_lower_case=None)
    change_json(root / "tokenizer.json", normalizer={"type": "Sequence", "normalizers": [{"type": "NFC"}]})
    refuses(root, "do_lower_case: true", "does not")


def test_a_lowercasing_part_of_a_normalizer_counts(root: Path) -> None:
    change_json(root / "tokenizer.json", normalizer={"type": "Sequence", "normalizers": [{"type": "Lowercase"}]})
    assert dense_head(open_checkpoint(root).spec).dim == WIDTH


def test_two_vocabularies_name_the_first_id_that_differs(root: Path) -> None:
    lines = list(TOKENS)
    lines[5], lines[6] = lines[6], lines[5]
    (root / "vocab.txt").write_text("".join(f"{line}\n" for line in lines))
    refuses(root, "id 5", "'world' in vocab.txt", "'hello' in tokenizer.json")


def test_a_shorter_vocabulary_names_the_first_id_that_differs(root: Path) -> None:
    (root / "vocab.txt").write_text("".join(f"{token}\n" for token in TOKENS[:-1]))
    refuses(root, "id 7", "None in vocab.txt")


def test_a_vocabulary_that_is_no_text_is_refused(root: Path) -> None:
    (root / "vocab.txt").write_bytes(b"\xff\xfe")
    refuses(root, "vocab.txt", "UTF-8")


@pytest.mark.parametrize("keeps_tokenizer", [True, False])
def test_a_vocabulary_larger_than_the_embedding_table_is_refused(root: Path, keeps_tokenizer: bool) -> None:
    if not keeps_tokenizer:
        (root / "tokenizer.json").unlink()
    write_weights(root / "model.safetensors", {EMBEDDING: (7, WIDTH)})
    refuses(root, "8 ids", "7 rows", EMBEDDING)


def test_an_added_token_beyond_the_embedding_table_is_refused(root: Path) -> None:
    change_json(root / "tokenizer.json", added_tokens=[{"id": 11, "content": "[NEW]"}])
    refuses(root, "the added token '[NEW]' has the id 11", "8 rows")


def test_blank_lines_at_the_end_of_a_vocabulary_are_no_tokens(root: Path) -> None:
    with (root / "vocab.txt").open("a") as vocabulary:
        vocabulary.write("\n \n")
    open_checkpoint(root)
    (root / "tokenizer.json").unlink()
    open_checkpoint(root)


@pytest.mark.parametrize(
    ("setting", "value"), [("strip_accents", True), ("strip_accents", False), ("tokenize_chinese_chars", False)]
)
def test_a_normalizer_that_contradicts_the_settings_is_refused(root: Path, setting: str, value: bool) -> None:
    change_json(root / "tokenizer_config.json", **{setting: value})
    refuses(root, f"{setting}: {str(value).lower()}", "tokenizer.json says")


def test_a_tokenizer_file_that_adds_no_special_tokens_is_refused(root: Path) -> None:
    change_json(root / "tokenizer_config.json", tokenizer_class="BertTokenizerFast")
    refuses(root, "no post-processor", "BertTokenizer")


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("tokenizer_config.json", {"truncation_side": "left"}),
        ("tokenizer.json", {"truncation": {"direction": "Left", "max_length": 8}}),
    ],
)
def test_truncation_on_the_left_is_refused(root: Path, name: str, changes: dict[str, object]) -> None:
    change_json(root / name, **changes)
    refuses(root, name, "truncates long texts on the left")


# Weights


def test_two_sets_of_weights_in_one_folder_are_refused(root: Path) -> None:
    write_weights(root / "model-00001-of-00001.safetensors", {EMBEDDING: (len(TOKENS), WIDTH)})
    write_json(root / "model.safetensors.index.json", {"weight_map": {EMBEDDING: "model-00001-of-00001.safetensors"}})
    refuses(root, "two sets of weights", "model.safetensors", "index.json")


def test_a_table_of_another_width_is_refused(root: Path) -> None:
    write_weights(root / "model.safetensors", {EMBEDDING: (8, 6)})
    refuses(root, "6 wide", f"says {WIDTH}")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.ckpt"])
def test_a_pickle_is_never_loaded(root: Path, name: str) -> None:
    (root / "model.safetensors").rename(root / name)
    refuses(root, name, "pickle", "--allow-pickle")


def test_missing_weights_are_refused(root: Path) -> None:
    (root / "model.safetensors").unlink()
    refuses(root, "no model.safetensors")


def test_truncated_weights_are_refused(root: Path) -> None:
    path = root / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    refuses(root, "model.safetensors", "damaged", "truncated")


@pytest.mark.parametrize("content", [b"", b"abc", struct.pack("<Q", 10**12), struct.pack("<Q", 9) + b"{" * 9])
def test_a_file_that_is_no_safetensors_is_refused(root: Path, content: bytes) -> None:
    (root / "model.safetensors").write_bytes(content)
    refuses(root, "model.safetensors", "damaged", "header")


def test_offsets_that_do_not_fit_the_shape_are_refused(root: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}).encode()
    (root / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    refuses(root, "model.safetensors", "damaged", "invalid shape")


def test_a_git_lfs_pointer_is_refused(root: Path) -> None:
    (root / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n")
    refuses(root, "Git LFS pointer", "git lfs pull")


def test_a_missing_shard_is_refused(root: Path) -> None:
    write_shards(root)
    (root / "model-00002-of-00002.safetensors").unlink()
    refuses(root, "model-00002-of-00002.safetensors", "is missing")


def test_a_tensor_that_is_not_where_the_index_says_is_refused(root: Path) -> None:
    write_shards(root)
    write_weights(root / "model-00002-of-00002.safetensors", {"other": (1,)})
    refuses(root, "model-00002-of-00002.safetensors", "encoder.bias")


@pytest.mark.parametrize("name", ["../other.safetensors", "/etc/passwd", "sub/model.safetensors", "..\\x"])
def test_a_shard_outside_the_folder_is_refused(root: Path, name: str) -> None:
    write_shards(root)
    write_json(root / "model.safetensors.index.json", {"weight_map": {"a": name}})
    refuses(root, "model.safetensors.index.json", "not a file beside it")


def test_a_shard_that_is_a_pickle_is_refused(root: Path) -> None:
    write_shards(root)
    write_json(root / "model.safetensors.index.json", {"weight_map": {"a": "model.bin"}})
    refuses(root, "model.bin", "not loaded")


@pytest.mark.parametrize("index", [{}, {"weight_map": {}}, {"weight_map": {"a": 1}}])
def test_an_index_without_map_is_refused(root: Path, index: dict[str, object]) -> None:
    write_shards(root)
    write_json(root / "model.safetensors.index.json", index)
    refuses(root, "weight_map")


def drop_modules(root: Path) -> None:
    (root / "modules.json").unlink()
    (root / "1_Pooling" / "config.json").unlink()
    (root / "1_Pooling").rmdir()


def write_shards(root: Path) -> None:
    (root / "model.safetensors").unlink()
    shards = {"model-00001-of-00002.safetensors": {EMBEDDING: (len(TOKENS), WIDTH)},
              "model-00002-of-00002.safetensors": {"encoder.bias": (WIDTH,)}}  # fmt: skip
    for name, shapes in shards.items():
        write_weights(root / name, shapes)
    located = {tensor: name for name, shapes in shards.items() for tensor in shapes}
    write_json(root / "model.safetensors.index.json", {"metadata": {}, "weight_map": located})
