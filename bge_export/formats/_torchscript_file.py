"""Loads TorchScript files. They are programs: what reaches outside is refused before torch sees the file."""

import warnings
from pathlib import Path
from typing import Any

from bge_export.errors import ArtifactError, MissingLibrary
from bge_export.formats.contents.torchscript import contents

OWN_DOMAINS = ("aten", "prim")
"""Domains of operators that are torch itself."""

OUTSIDE = frozenset(
    {
        "aten::_print",
        "aten::from_file",
        "aten::save",
        "aten::warn",
        "prim::AddStatValue",
        "prim::IgnoredPythonOp",
        "prim::Print",
        "prim::PythonOp",
        "prim::TimePoint",
        "prim::profile",
        "prim::profile_ivalue",
        "prim::rpc_async",
        "prim::rpc_remote",
        "prim::rpc_sync",
    }
)
"""Operators of torch's own that read or write files, streams, clocks, other machines, or Python itself."""


def load_torchscript(path: Path, device: str) -> Any:  # noqa: ANN401 - torch gives its loaded modules no types
    """Return a loaded file.

    Raises:
        ArtifactError: it is missing or damaged, or an operator of it reaches outside of the model.
        MissingLibrary: torch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingLibrary("torch", "export", "running TorchScript") from error

    refuse_outside(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the docs say that TorchScript is deprecated
            module = torch.jit.load(str(path), map_location=device)  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError, OSError) as error:
        first = str(error).strip().partition("\n")[0]
        raise ArtifactError(f"torch cannot load {path.name} on {device!r}: {first}. Export it again.") from error
    return module


def refuse_outside(path: Path) -> None:
    """Raise ArtifactError if an operator of a file reaches outside of the model; nothing of it is run."""
    if not path.is_file():
        raise ArtifactError(f"{path} is missing. Export the folder again.")

    try:
        operators = contents(path).operators
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} is not a TorchScript file that can be read: {error}. Export it again.") from error

    for name in operators:
        plain = name.partition(" ")[0].partition(".")[0]
        if plain in OUTSIDE or plain.partition("::")[0] not in OWN_DOMAINS:
            raise ArtifactError(
                f"{path} calls {plain}, which reaches outside of the model: it is not loaded. Do not use this file."
            )
