"""A bundle of a few kilobytes whose only model is written by hand, for tests of files that nothing runs."""

import json
from collections.abc import Sequence
from pathlib import Path

from model_files import graph_of, write_onnx
from tiny_checkpoint import write_checkpoint

from bge_export.bundle.integrity import MANIFEST
from bge_export.bundle.layout import write_layout
from bge_export.bundle.manifest import Model, read_manifest, with_contract, write_manifest
from bge_export.checkpoint.opening import open_checkpoint
from bge_export.contracts import Checkpoint
from bge_export.files.digest import file_sha256

MODEL = "onnx/model.onnx"


def write_bundle(root: Path, target: str = "onnx-fp32", *files: str, weights: Sequence[str] = ()) -> Path:
    """Write the layout of a small checkpoint with one target and its manifest; the files must be in `root` already."""
    root.mkdir(parents=True, exist_ok=True)
    checkpoint = checkpoint_of(root)
    write_layout(checkpoint, root)
    if not files:
        write_onnx(root / MODEL, *graph_of("fp32"))

    model = Model(target=target, files=list(files or (MODEL,)), inputs=[], outputs=[], tools={}, options={})
    write_manifest(root, checkpoint, [model], checked=True, weights=weights)
    return root


def checkpoint_of(root: Path) -> Checkpoint:
    """Return the checkpoint that a bundle was made from, which lies beside it."""
    folder = root.with_name(f"{root.name}-checkpoint")
    return open_checkpoint(folder if folder.exists() else write_checkpoint(folder))


def seal(bundle: Path, *, contract: bool = True, **changes: object) -> None:
    """Write changed fields, new digests of all files that exist and the contract, as an attacker would."""
    path = bundle / MANIFEST
    fields = json.loads(path.read_text("utf-8")) | changes
    fields["files"] = {name: file_sha256(bundle / name) for name in fields["files"] if (bundle / name).is_file()}
    path.write_text(json.dumps(fields), "utf-8")

    if contract:
        fields["files"] = dict(with_contract(bundle, read_manifest(bundle)).files)
        path.write_text(json.dumps(fields), "utf-8")
