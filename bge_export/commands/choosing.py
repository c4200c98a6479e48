"""Chooses one artifact of a folder, for commands that are about a single one."""

from collections.abc import Sequence
from pathlib import Path

from bge_export.bundle.integrity import MANIFEST
from bge_export.bundle.manifest import Manifest, read_bundle
from bge_export.contracts import Artifact
from bge_export.errors import UsageError

USUAL_TARGET = "onnx-fp32"


def chosen_target(held: Sequence[str], target: str | None) -> str:
    """Return the target that a user named, by default `USUAL_TARGET`, or the only one.

    Raises:
        UsageError: it is not in the folder, or must be named.
    """
    if target is None and len(held) > 1 and USUAL_TARGET not in held:
        raise UsageError(f"the folder holds {', '.join(held)}. Say with --target which of them is meant.")

    name = target or (USUAL_TARGET if USUAL_TARGET in held else held[0])
    if name not in held:
        raise UsageError(f"{name} is not in the folder, which holds {', '.join(held)}. Name one of these.")
    return name


def chosen_artifact(path: Path, target: str | None) -> tuple[Manifest, Artifact]:
    """Return the manifest of a folder and one of its artifacts, verified.

    Args:
        path: a folder that bge-export wrote, or the model file of an artifact in one.
        target: which artifact of a folder is meant.

    Raises:
        UsageError: the artifact must be named, or is not there.
        ArtifactError: the folder is damaged, or bge-export did not write it.
    """
    if path.is_dir():
        manifest, artifacts = read_bundle(path)
        name = chosen_target([str(one.target) for one in artifacts], target)
        return manifest, next(one for one in artifacts if str(one.target) == name)

    root = next((one for one in path.resolve().parents if (one / MANIFEST).is_file()), None)
    if root is None:
        raise UsageError(f"{path} lies in no folder that bge-export wrote. Give such a folder, or a model file in one.")

    manifest, artifacts = read_bundle(root)
    name = path.resolve().relative_to(root).as_posix()
    for one in artifacts:
        if one.model == name:
            return manifest, one
    raise UsageError(f"{path} is no model file of its folder: {', '.join(one.model for one in artifacts)}.")
