"""Stages a bare model file for a JavaScript client: beside a configuration, under a name that every version knows."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bge_export.contracts import Artifact
from bge_export.errors import UsageError

NAME = "onnx/model_quantized.onnx"
"""A file that every version can name and none mistakes for another, whatever precision it contains."""

NEEDED = ("config.json", "tokenizer.json", "tokenizer_config.json")
"""Files that a client reads before it opens a model."""


def stage_file(artifact: Artifact, donors: Sequence[Path], stage: Path) -> Artifact:
    """Return a bare file as an artifact in a folder that clients can load.

    Args:
        artifact: the file.
        donors: folders to take configuration and tokenizer from, if neither the file's folder nor its parent has them.
        stage: an empty folder, the artifact's new root; gets copies, because the server rejects links that leave it.

    Raises:
        UsageError: the weights are in another file, or no configuration was found.
    """
    if len(artifact.files) > 1:
        raise UsageError(
            f"{artifact.model} has its weights in {artifact.files[1]}, which JavaScript clients find in a whole folder "
            "alone. Give the folder that bge-export wrote."
        )

    near = artifact.root.resolve()
    found = [folder for folder in (near, near.parent, *donors) if all((folder / name).is_file() for name in NEEDED)]
    if not found:
        raise UsageError(
            f"{artifact.model} has no {' and no '.join(NEEDED)} beside it, without which no JavaScript client loads "
            "it. Put them there, or measure a folder that bge-export wrote in the same run."
        )

    for name in NEEDED:
        shutil.copyfile(found[0] / name, stage / name)
    (stage / NAME).parent.mkdir()
    shutil.copyfile(artifact.root / artifact.model, stage / NAME)
    return replace(artifact, root=stage, model=NAME, files=(NAME,))
