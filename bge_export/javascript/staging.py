"""A model file by itself, put where a client finds it: beside a configuration, under a name that all know."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bge_export.contracts import Artifact
from bge_export.errors import UsageError

NAME = "onnx/model_quantized.onnx"
"""What every version has a name for, and none takes for another file, whatever its precision is."""

NEEDED = ("config.json", "tokenizer.json", "tokenizer_config.json")
"""What a client reads before it opens a model."""


def stage_file(artifact: Artifact, donors: Sequence[Path], stage: Path) -> Artifact:
    """Return a bare file as an artifact of a folder that clients load.

    Args:
        artifact: the file.
        donors: folders to take configuration and tokenizer of, where none lie beside the file or one folder up.
        stage: an empty folder, which becomes the artifact's; copies, because a server serves no links out of it.

    Raises:
        UsageError: its weights are in another file, or there is no configuration.
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
