"""Writes a static embedding as a plain checkpoint into a temporary folder, which everything else reads.

It is then an encoder whose token states are rows of its table, with mean pooling, and what follows the mean follows a
pooling. The table's tensors and the tokenizer are copied byte for byte, so that the checkpoint's digest covers them.
"""

import atexit
import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import mkdtemp

from bge_export.checkpoint.config_file import CONFIG
from bge_export.checkpoint.pooling_files import MODULES, PROMPTS, TRANSFORMER_SETTINGS
from bge_export.checkpoint.static_files import StaticFiles, read_static_files
from bge_export.checkpoint.tokenizer_settings import SETTINGS, TOKENIZER
from bge_export.checkpoint.weight_files import SINGLE
from bge_export.files.digest import tree_digest

STATIC = "static-embedding"
"""The `model_type` of the plain checkpoint; transformers has no such class."""

DROPPED, DIVIDED = "dropped_id", "divided"
"""Keys of its `config.json`: the unknown token, if the mean leaves it out, and whether the mean is divided at once."""

_written: dict[str, Path] = {}
"""Digest of a static model and its folder -> the folder of this process that holds it as a plain checkpoint."""


def as_plain_checkpoint(root: Path) -> tuple[Path, tuple[str, ...]] | None:
    """Return the folder of a static model as a plain checkpoint, and what users should know; None for other models.

    Raises:
        CheckpointError: its files are missing or malformed, or contradict each other.
    """
    found = read_static_files(root)
    if found is None:
        return None

    files = _files(root, found)
    small = json.dumps([_config(found), _modules(found)]).encode()
    digests = [tree_digest(path.parent, (path.name,)) for path in files.values()]
    key = "-".join((*digests, hashlib.sha256(small).hexdigest(), str(root.resolve())))
    if key not in _written:
        _written[key] = _write(files, found)
    return _written[key], _notes(found)


def _files(root: Path, found: StaticFiles) -> Mapping[str, Path]:
    """Return name in the plain checkpoint -> the file that is copied there."""
    files = {SINGLE: found.weights, TOKENIZER: found.tokenizer.path}
    if (root / PROMPTS).is_file():
        files[PROMPTS] = root / PROMPTS

    for _, folder in found.following:
        for name in (CONFIG, SINGLE):
            if (root / folder / name).is_file():
                files[f"{folder}/{name}"] = root / folder / name
    return files


def _write(files: Mapping[str, Path], found: StaticFiles) -> Path:
    """Return a new folder with the plain checkpoint, which is removed when the process ends."""
    root = Path(mkdtemp(prefix="bge_export-static-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)

    for name, source in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, root / name)

    # The tokenizer's other files are not read by either library.
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": found.max_tokens,
        "model_input_names": ["input_ids", "attention_mask"],
        "pad_token": found.tokenizer.pad,
        "clean_up_tokenization_spaces": False,
    }
    written: dict[str, object] = {
        CONFIG: _config(found),
        MODULES: _modules(found),
        SETTINGS: settings,
        TRANSFORMER_SETTINGS[0]: {"max_seq_length": found.max_tokens, "do_lower_case": False},
        "1_Pooling/config.json": {"embedding_dimension": found.dim, "pooling_mode": "mean", "include_prompt": True},
    }
    for name, content in written.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(json.dumps(content, indent=2), "utf-8")
    return root


def _config(found: StaticFiles) -> dict[str, object]:
    return {
        "model_type": STATIC,
        "hidden_size": found.dim,
        "vocab_size": found.rows,
        "max_position_embeddings": found.max_tokens,
        DROPPED: found.dropped,
        DIVIDED: found.divided,
    }


def _modules(found: StaticFiles) -> list[dict[str, object]]:
    own = "sentence_transformers.models"
    entries = [(f"{own}.Transformer", ""), (f"{own}.Pooling", "1_Pooling"), *found.following]
    return [
        {"idx": number, "name": str(number), "path": path, "type": kind} for number, (kind, path) in enumerate(entries)
    ]


def _notes(found: StaticFiles) -> tuple[str, ...]:
    """Return what users should know of a static model, one sentence each."""
    notes = [
        "A text without tokens, such as an empty one, has a mean of zero, which has no direction: clients that divide "
        "by its norm without a guard, as Transformers.js does, give NaN."
    ]
    if found.unbounded:
        notes.append(
            f"The model reads texts of any length; the folder's tokenizer cuts them after {found.max_tokens} tokens."
        )

    if found.dropped is not None:
        notes.append(
            "Unknown tokens are left out of the mean, as model2vec does; sentence-transformers averages them too."
        )
    return tuple(notes)
