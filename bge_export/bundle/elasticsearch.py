"""Writes what Elasticsearch's importer wants beside eland's TorchScript file: the vocabulary and the configuration.

Elasticsearch tokenises by itself, from the vocabulary as a list in the order of ids, and is told which of its
tokenizers to use, the longest input, and what precedes queries and documents. Both files hold what the folder's other
small files say, so they are compared with the checkpoint as those are.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bge_export.contracts import Checkpoint
from bge_export.errors import CheckpointError
from bge_export.files.json_files import read_object, read_object_if_there
from bge_export.files.regular import TOKENIZER_BYTES
from bge_export.formats.torchscript import ELAND_CONFIG, ELAND_VOCABULARY
from bge_export.heads.dense import dense_head

TOKENIZERS: Mapping[str, str] = {
    "MPNetTokenizer": "mpnet",
    "RobertaTokenizer": "roberta",
    "BartTokenizer": "roberta",
    "XLMRobertaTokenizer": "xlm_roberta",
    "DebertaV2Tokenizer": "deberta_v2",
}
"""Class of transformers -> Elasticsearch's name of the tokenizer; every other one is `bert` there, as in eland."""

LOWERCASING = ("bert", "mpnet", "deberta_v2")
"""Tokenizers that are told whether to lowercase."""


def write_elasticsearch_files(checkpoint: Checkpoint, root: Path) -> None:
    """Write both files into a folder that has the checkpoint's tokenizer already.

    Raises:
        CheckpointError: `tokenizer.json` has no vocabulary.
    """
    tokenizer = read_object(root / "tokenizer.json", TOKENIZER_BYTES)
    settings = read_object_if_there(root / "tokenizer_config.json")

    (root / ELAND_VOCABULARY).parent.mkdir(exist_ok=True)
    _write(root / ELAND_VOCABULARY, _vocabulary(root / "tokenizer.json", tokenizer))
    _write(root / ELAND_CONFIG, _configuration(checkpoint, settings))


def _vocabulary(path: Path, tokenizer: Mapping[str, Any]) -> dict[str, Any]:
    """Return tokens in the order of their ids, with the merges or scores of tokenizers that have them."""
    model = tokenizer.get("model", {})
    given = model.get("vocab")
    if not isinstance(given, dict | list):
        raise CheckpointError(f"{path} holds no vocabulary. Fetch the file again.")

    pairs = [(entry[0], number) for number, entry in enumerate(given)] if isinstance(given, list) else given.items()
    added = [(entry["content"], entry["id"]) for entry in tokenizer.get("added_tokens", ())]
    ids = dict(pairs) | dict(added)
    found: dict[str, Any] = {"vocabulary": sorted(ids, key=lambda token: ids[token])}

    if merges := model.get("merges"):
        found["merges"] = [one if isinstance(one, str) else " ".join(one) for one in merges]
    if isinstance(given, list):
        scores = dict(given)
        found["scores"] = [scores.get(token, 0.0) for token in found["vocabulary"]]
    return found


def _configuration(checkpoint: Checkpoint, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of the request that creates the model, as `PyTorchModel.import_model` of eland sends it."""
    inputs = checkpoint.spec.inputs
    name = TOKENIZERS.get(str(settings.get("tokenizer_class", "")), "bert")

    tokenization: dict[str, Any] = {"max_sequence_length": inputs.max_tokens}
    if name in LOWERCASING and isinstance(settings.get("do_lower_case"), bool):
        tokenization["do_lower_case"] = settings["do_lower_case"]
    if name == "roberta" and isinstance(settings.get("add_prefix_space"), bool):
        tokenization["add_prefix_space"] = settings["add_prefix_space"]

    embedding = {"tokenization": {name: tokenization}, "embedding_size": dense_head(checkpoint.spec).dim}
    prefixes = {"search": inputs.prompts.get("query"), "ingest": inputs.prompts.get("document")}
    given = {use: prefix for use, prefix in prefixes.items() if prefix}

    return {
        "description": "exported by bge-export",  # the same, wherever the checkpoint lies
        "model_type": "pytorch",
        "inference_config": {"text_embedding": embedding},
        "input": {"field_names": ["text_field"]},
        **({"prefix_strings": given} if given else {}),
    }


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=True) + "\n", "utf-8")
