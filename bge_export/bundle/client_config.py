"""Writes the `config.json` of a bundle: the checkpoint's own, or one of a static model that every client can load."""

import json
import shutil
from pathlib import Path

from bge_export.checkpoint.config_file import CONFIG
from bge_export.checkpoint.static_folder import STATIC
from bge_export.contracts import Checkpoint
from bge_export.files.json_files import read_object

CLIENT_TYPE = "bert"
"""The `model_type` of a static model's folder. Clients know no static models; they feed a BERT ids and a mask, read its
token states and pool them, which is all that a static model needs."""


def write_config(checkpoint: Checkpoint, root: Path) -> None:
    """Write `config.json` into `root`."""
    if checkpoint.model_type != STATIC:
        shutil.copyfile(checkpoint.root / CONFIG, root / CONFIG)
        return

    own = read_object(checkpoint.root / CONFIG)
    config = {
        "architectures": ["BertModel"],
        "model_type": CLIENT_TYPE,
        "hidden_size": own["hidden_size"],
        "intermediate_size": own["hidden_size"],
        "num_attention_heads": 1,
        "num_hidden_layers": 0,
        "max_position_embeddings": own["max_position_embeddings"],
        "type_vocab_size": 1,
        "vocab_size": own["vocab_size"],
    }
    (root / CONFIG).write_text(json.dumps(config, indent=2) + "\n", "utf-8")
