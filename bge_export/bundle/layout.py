"""Writes the configuration, tokenizer and pooling files that make a bundle a loadable model folder.

The layout follows the conventions of the Hub's sentence-transformers, Transformers.js and text-embeddings-inference
readers, old and new. Pooling is written as booleans *and* as a string, because some readers know only one of them.
`tokenizer.json` truncates texts at the longest input, because some clients do nothing but read that file, and a longer
text crashes the model. Padding is removed from it: clients that apply it unasked would embed the padding.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from bge_export.bundle.client_config import write_config
from bge_export.bundle.head_layout import write_token_modules
from bge_export.checkpoint.head_files import read_token_modules
from bge_export.checkpoint.module_files import WEIGHTS, stored_layer
from bge_export.checkpoint.pooling_files import MODULES, PROMPTS, SUPPORTED, TRANSFORMER_SETTINGS, read_sentence_files
from bge_export.checkpoint.static_folder import STATIC
from bge_export.checkpoint.tokenizer_settings import lowers
from bge_export.checkpoint.weighted_head import layer_tensors
from bge_export.contracts import Checkpoint
from bge_export.errors import CheckpointError, MissingLibrary
from bge_export.files.json_files import read_object_if_there
from bge_export.files.panics import panics_as_errors
from bge_export.files.regular import TOKENIZER_BYTES, read_regular_text
from bge_export.heads.dense import DenseHead, dense_head
from bge_export.heads.layers import NAMES, module_folders

COPIED = (
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "added_tokens.json",
    "special_tokens_map.json",
)

TOKENIZER_CLASSES: Mapping[str, str] = {
    "bert": "BertTokenizer",
    "distilbert": "DistilBertTokenizer",
    "mpnet": "MPNetTokenizer",
    "roberta": "RobertaTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
}
"""Classes that all consumers know; older ones reject `TokenizersBackend`, the class that transformers 5 saves."""

TRUNCATION: Mapping[str, object] = {"direction": "Right", "max_length": 0, "strategy": "LongestFirst", "stride": 0}
"""The truncation of `tokenizer.json`, as `tokenizers` writes it; its length is that of the longest input."""

SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")

NORMALIZER_SETTINGS: Mapping[str, str] = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
"""Key of `tokenizer_config.json` -> field of a BertNormalizer in `tokenizer.json`."""

POOLING_FLAGS: Mapping[str, str] = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "mean_sqrt_len": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "last": "pooling_mode_lasttoken",
}


def write_layout(checkpoint: Checkpoint, root: Path) -> None:
    """Write configuration, tokenizer and pooling files of `checkpoint` into `root`.

    Raises:
        CheckpointError: the checkpoint's tokenizer cannot be turned into `tokenizer.json`.
    """
    root.mkdir(parents=True, exist_ok=True)

    write_config(checkpoint, root)
    for name in COPIED:
        if (checkpoint.root / name).is_file():
            shutil.copyfile(checkpoint.root / name, root / name)

    tokenizer = _write_tokenizer(checkpoint, root)
    if checkpoint.spec.is_reranker:
        _copy_reranker_settings(checkpoint, root)
        return

    modules = None if checkpoint.spec.only_dense else read_token_modules(checkpoint.root)
    if modules is not None:
        write_token_modules(checkpoint, modules, root)
        return

    # BGE-M3's dense head is one like every other to sentence-transformers, which takes the mean where none is declared.
    _write_pooling(_as_dense(checkpoint), root, lowered=lowers(tokenizer.get("normalizer")))


def _as_dense(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint with nothing but its dense head."""
    spec = checkpoint.spec
    return replace(checkpoint, spec=replace(spec, heads={DenseHead.kind: spec.heads[DenseHead.kind]}))


def _write_tokenizer(checkpoint: Checkpoint, root: Path) -> dict[str, Any]:
    """Write the files of the tokenizer; return the content of `tokenizer.json`."""
    source = checkpoint.root / "tokenizer.json"
    text = read_regular_text(source, TOKENIZER_BYTES) if source.is_file() else _convert_tokenizer(checkpoint)
    truncation = {**TRUNCATION, "max_length": checkpoint.spec.inputs.max_tokens}
    tokenizer: dict[str, Any] = json.loads(text) | {"truncation": truncation, "padding": None}
    if checkpoint.model_type == STATIC:
        tokenizer["post_processor"] = None  # it would add special tokens, which static models read none of
    (root / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), "utf-8")

    # Older consumers must recognise the tokenizer class.
    config = _read(checkpoint.root / "tokenizer_config.json")
    declared = str(config.get("tokenizer_class", ""))
    known = TOKENIZER_CLASSES.get(checkpoint.model_type)
    if known and declared.removesuffix("Fast") not in TOKENIZER_CLASSES.values():
        declared = known

    config |= {
        "tokenizer_class": declared.removesuffix("Fast"),
        "model_max_length": checkpoint.spec.inputs.max_tokens,
    }
    config |= _normalizer_settings(tokenizer.get("normalizer"))

    # Padded on the left, the first state of a batch is that of a padding token; the last token is found on either side.
    if checkpoint.padding_side == "left":
        config["padding_side"] = "left" if _reads_last(checkpoint) else "right"

    # These describe how the checkpoint was saved or loaded, not the tokenizer.
    for key in ("name_or_path", "backend", "is_local", "auto_map"):
        config.pop(key, None)
    _write(root / "tokenizer_config.json", config)

    if not (root / "special_tokens_map.json").is_file():
        _write(root / "special_tokens_map.json", {k: config[k] for k in SPECIAL_TOKENS if config.get(k)})

    return tokenizer


def _reads_last(checkpoint: Checkpoint) -> bool:
    """Return whether the model answers from the state of the last token; classifiers of encoders read the first."""
    return checkpoint.spec.only_dense and dense_head(checkpoint.spec).pooling == "last"


def _copy_reranker_settings(checkpoint: Checkpoint, root: Path) -> None:
    """Copy the files of sentence-transformers that a reranker has since version 5.4, such as that of its activation.

    Before, `config.json` held them; a folder without either is loaded as any model with a classifier.
    """
    for name in (MODULES, PROMPTS, *TRANSFORMER_SETTINGS):
        if (checkpoint.root / name).is_file():
            shutil.copyfile(checkpoint.root / name, root / name)


def _normalizer_settings(normalizer: object) -> dict[str, Any]:
    """Return the settings of `tokenizer_config.json` that describe BERT's normalizer.

    transformers builds the normalizer of `BertTokenizer` from these settings, with defaults that lowercase, and ignores
    the normalizer in `tokenizer.json`.
    """
    if not isinstance(normalizer, dict) or normalizer.get("type") != "BertNormalizer":
        return {}
    return {setting: normalizer[field] for setting, field in NORMALIZER_SETTINGS.items() if field in normalizer}


def _convert_tokenizer(checkpoint: Checkpoint) -> str:
    """Return the `tokenizer.json` that transformers builds for a checkpoint that has only a vocabulary."""
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise MissingLibrary("transformers", "export", "building tokenizer.json from a vocabulary") from error

    try:
        with panics_as_errors():
            tokenizer = AutoTokenizer.from_pretrained(checkpoint.root, trust_remote_code=False, local_files_only=True)
            return str(tokenizer.backend_tokenizer.to_str())
    except Exception as error:
        raise CheckpointError(
            f"{checkpoint.source}: no tokenizer.json, and transformers cannot build one: {error}. "
            "Save the checkpoint's tokenizer with transformers and try again."
        ) from error


def _write_pooling(checkpoint: Checkpoint, root: Path, *, lowered: bool) -> None:
    """Write the files of sentence-transformers; `lowered` says whether the tokenizer lowercases by itself."""
    spec, head = checkpoint.spec, dense_head(checkpoint.spec)
    _write_modules(checkpoint, root)

    # The pooling as booleans and as a string: some readers know only one of them.
    (root / "1_Pooling").mkdir()
    flags = {flag: mode == head.pooling for mode, flag in POOLING_FLAGS.items()}
    string = next(mode for mode, pooling in SUPPORTED.items() if pooling == head.pooling)
    pooling = {"word_embedding_dimension": head.state_dim, **flags, "include_prompt": True, "pooling_mode": string}
    _write(root / "1_Pooling" / "config.json", pooling)

    # Some versions of sentence-transformers lowercase before the tokenizer, by other rules, and special tokens too.
    lower = read_sentence_files(checkpoint.root).lower_case and not lowered
    _write(root / "sentence_bert_config.json", {"max_seq_length": spec.inputs.max_tokens, "do_lower_case": lower})

    declared = _read(checkpoint.root / "config_sentence_transformers.json")
    declared.setdefault("__version__", {})
    if any(layer.kind == "truncate" for layer in head.layers):
        declared["truncate_dim"] = None  # a module does it
    if declared.get("prompts"):
        # Servers that read prompts as text cannot load a folder with a prompt that is null.
        declared["prompts"] = {name: text for name, text in declared["prompts"].items() if text is not None}
    if spec.inputs.prompts:
        declared["prompts"] = {**declared.get("prompts", {}), **spec.inputs.prompts}
    _write(root / "config_sentence_transformers.json", declared)


def _write_modules(checkpoint: Checkpoint, root: Path) -> None:
    """Write `modules.json`, and the modules that follow pooling with their weights.

    A truncated vector is the product of a matrix: with `truncate_dim`, sentence-transformers would cut after the last
    division by the norm, other libraries not at all.
    """
    head = dense_head(checkpoint.spec)
    following = list(zip(head.layers, module_folders(head.layers), layer_tensors(checkpoint), strict=True))
    classes = {"truncate": "Dense"}
    names = ["Transformer", "Pooling", *(classes.get(layer.kind, NAMES[layer.kind]) for layer, _, _ in following)]
    paths = ["", "1_Pooling", *(folder for _, folder, _ in following)]
    if head.normalize:
        paths.append(f"{len(names)}_Normalize")
        names.append("Normalize")

    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{name}"}
        for index, (name, path) in enumerate(zip(names, paths, strict=True))
    ]
    _write(root / "modules.json", modules)

    for layer, folder, tensors in following:
        if layer.kind != "normalize":
            (root / folder).mkdir()
            config, weights = stored_layer(layer, tensors)
            _write(root / folder / "config.json", config)
            (root / folder / WEIGHTS).write_bytes(weights)


def _read(path: Path) -> dict[str, Any]:
    return read_object_if_there(path)


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")
