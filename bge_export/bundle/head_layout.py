"""Writes the modules of a SPLADE or ColBERT model, as sentence-transformers and PyLate read them from a folder.

SparseEncoder, MultiVectorEncoder and PyLate run the checkpoint's own weights, where the folder holds those too. What
is declared for them, such as prefixes, lengths and the words that are skipped, is kept as it is.
"""

import json
import shutil
from pathlib import Path

from bge_export.checkpoint.head_files import TokenModules
from bge_export.checkpoint.pooling_files import MODULES, PROMPTS, TRANSFORMER_SETTINGS
from bge_export.checkpoint.weight_files import SINGLE
from bge_export.contracts import Checkpoint
from bge_export.files.json_files import read_object, read_object_if_there


def write_token_modules(checkpoint: Checkpoint, modules: TokenModules, root: Path) -> None:
    """Write `modules.json`, the settings of each module, and the weights of those that have some.

    Args:
        checkpoint: a SPLADE or ColBERT model.
        modules: what its files declare.
        root: the folder, which exists.
    """
    entries = []
    for index, (declared, folder) in enumerate(modules.entries):
        own = f"{index}_{declared.rpartition('.')[2]}" if index else ""
        entries.append({"idx": index, "name": str(index), "path": own, "type": declared})
        if index:
            _write_module(checkpoint.root / folder, root / own, weighs=folder in modules.layers)
    _write(root / MODULES, entries)

    for name in TRANSFORMER_SETTINGS:
        if (checkpoint.root / name).is_file():
            _write(root / name, read_object(checkpoint.root / name))

    declared_prompts = read_object_if_there(checkpoint.root / PROMPTS)
    if checkpoint.spec.inputs.prompts != modules.sentence.prompts:  # given by the user: the files declare none
        declared_prompts["prompts"] = dict(checkpoint.spec.inputs.prompts)
    _write(root / PROMPTS, declared_prompts)


def _write_module(source: Path, folder: Path, *, weighs: bool) -> None:
    """Write one module's settings, and its weights; libraries look for a folder even where it has neither."""
    folder.mkdir()
    _write(folder / "config.json", read_object_if_there(source / "config.json"))
    if weighs:
        shutil.copyfile(source / SINGLE, folder / SINGLE)


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")
