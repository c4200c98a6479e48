"""Finds the model files at a path that bge-export did not write, and what each of them says of itself."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bge_export.contracts import Artifact, ModelSpec, Target
from bge_export.errors import ArtifactError, UsageError
from bge_export.files.digest import file_sha256
from bge_export.formats import ModelFile, find_format, format_of, formats, read_contents
from bge_export.formats.contents import Contents
from bge_export.parity.gate.contents import weights_of

KNOWN_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
"""Inputs that a `TokenBatch` can feed."""

NO_MODELS = ("openvino_tokenizer.xml", "openvino_detokenizer.xml")
"""Files of a model's format that hold no model of texts."""

UNPACKED = {"MatMulNBits 4": "q4", "MatMulBnb4 4": "bnb4"}
"""Operator that unpacks weights, and their bits -> the precision whose limits they are judged by, with float32
arithmetic."""


@dataclass(frozen=True)
class ForeignFile:
    """One model file that others wrote.

    Attributes:
        name: relative to the path that was given; the file's own name if that is the path.
        artifact: what a runtime opens. Its spec is the checkpoint's, its outputs are the file's own.
        sha256: of the model file.
    """

    name: str
    artifact: Artifact
    sha256: str

    @property
    def path(self) -> Path:
        """Return the model file."""
        return self.artifact.root / self.artifact.model


def model_files_at(path: Path) -> tuple[Path, ...]:
    """Return the model files at a path: the file itself, or all of a folder, sorted.

    Raises:
        UsageError: there are none.
    """
    known = ", ".join(one.suffixes[0] for one in formats().values())
    if not path.exists():
        raise UsageError(f"{path} does not exist. Give a model file ({known}), or a folder that holds some.")

    if path.is_file():
        if format_of(path) is None:
            raise UsageError(f"{path} is no model file that can be measured: {known}. Give one of these, or a folder.")
        return (path,)

    every = (one for one in path.rglob("*") if not any(part.startswith(".") for part in one.relative_to(path).parts))
    found = [one for one in every if one.is_file() and format_of(one) is not None and one.name not in NO_MODELS]
    if not found:
        raise UsageError(f"{path} holds no model file that can be measured ({known}). Give the folder that does.")
    return tuple(sorted(found))


def read_foreign(path: Path, given: Path, spec: ModelSpec) -> ForeignFile:
    """Return one model file.

    Args:
        path: the file.
        given: the path that the user gave: the file, or a folder above it.
        spec: the checkpoint's, which a file without a manifest does not say.

    Raises:
        ArtifactError: it is not of its format, needs a file that is missing, or has an input that no text fills.
        MissingLibrary: the format's library is not installed.
    """
    format_name = str(format_of(path))
    facts = _facts(path, format_name)

    for name in facts.files:
        if not (path.parent / name).is_file():
            raise ArtifactError(f"{path.parent / name} is missing, which {path.name} needs. Fetch it too.")
    if unknown := [name for name in facts.inputs if name not in KNOWN_INPUTS]:
        raise ArtifactError(
            f"{path} asks for {unknown[0]!r}. Only models of {', '.join(KNOWN_INPUTS)} can be measured. Give another."
        )

    digest = file_sha256(path)
    artifact = Artifact(
        target=Target(format_name, facts.precision),
        root=path.parent,
        model=path.name,
        files=facts.files,
        digest=digest,
        spec=spec,
        inputs=facts.inputs,
        outputs=facts.outputs,
    )

    contents = read_contents(artifact)
    if contents is not None:
        precision = precision_of(contents, facts.precision)
        artifact = Artifact(**{**vars(artifact), "target": Target(format_name, precision)})
    name = path.name if path == given else path.relative_to(given).as_posix()
    return ForeignFile(name, artifact, digest)


def _facts(path: Path, format_name: str) -> ModelFile:
    """Return what a file says of itself; TorchScript says it only when it is opened."""
    read = find_format(format_name).read
    if read is not None:
        return read(path)

    from bge_export.foreign.torchscript import read as read_torchscript

    return read_torchscript(path)


def precision_of(contents: Contents, stored: str) -> str:
    """Return the precision by whose limits a file is judged, from how most of its weights are stored and used.

    A few weights in fewer bits, or one operator that rounds, do not give a file the wider limits of such precisions.

    Args:
        contents: what the file holds.
        stored: the narrowest type of its weights.
    """
    held = weights_of(contents, tables=False)
    for operator, precision in UNPACKED.items():
        if 2 * held[operator] > held.total():
            return f"{precision}f16" if precision == "q4" and _mostly_half(contents.weights) else precision

    working = contents.operators - contents.idle
    if stored != "int8" or working["DynamicQuantizeLinear"] <= working["QuantizeLinear"]:
        return stored

    # Ranges are taken over each batch: a text's vector depends on its neighbours, and the limits say how far.
    return "uint8" if contents.weights["uint8"] > contents.weights["int8"] else "int8-dynamic"


def _mostly_half(weights: Mapping[str, int]) -> bool:
    floats = Counter({kind: weights.get(kind, 0) for kind in ("float16", "float32")})
    return floats["float16"] > floats["float32"]
