"""The files that are measured: the artifacts of folders that bge-export wrote, and model files that others did."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bge_export.bench.bare import BareFile, read_onnx, read_openvino
from bge_export.bundle.manifest import read_bundle
from bge_export.capabilities import ClientRuntime
from bge_export.contracts import Artifact, EmbeddingSpec, Target
from bge_export.errors import ArtifactError, CheckpointError, UsageError
from bge_export.files.digest import file_sha256
from bge_export.files.json_files import read_object
from bge_export.parity.measure.compare import Place

READERS = {".onnx": ("onnx", read_onnx), ".xml": ("openvino", read_openvino)}
"""Suffix of a bare file -> its format, and what reads its ends."""

SOME_IDS = 500
"""Ids that every vocabulary has, where no configuration beside a file says how many there are."""

KNOWN_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
"""What a `TokenBatch` feeds."""

TAKEN_AS = EmbeddingSpec(dim=0, max_tokens=0, pooling="cls", normalize=True, query_prefix="")
"""A bare file promises nothing. It is timed with the pooling that costs least; its width and length are not known."""


@dataclass(frozen=True)
class BenchFile:
    """One artifact to measure.

    Attributes:
        name: its target, or a bare file's name; with folders in front where two would have the same.
        artifact: what a runtime opens.
        sha256: of the model file.
        size_bytes: of the model file and its external data; tokenizer and configuration are not counted.
        vocabulary: how many token ids it has, None where no configuration says.
    """

    name: str
    artifact: Artifact
    sha256: str
    size_bytes: int
    vocabulary: int | None

    @property
    def precision(self) -> str:
        """Return the precision of its weights."""
        return self.artifact.target.precision

    @property
    def place(self) -> Path:
        """Return where its model file really lies, which tells whether two are one."""
        return (self.artifact.root / self.artifact.model).resolve()


def gather(
    paths: Sequence[Path], against: Path | None, places: Sequence[Place] = ()
) -> tuple[tuple[BenchFile, ...], BenchFile]:
    """Return every file at `paths`, each once, and the base: `against`, else the first in fp32, else the first.

    Of a folder given as `against` the base is its first artifact in fp32; the others are not measured.

    Args:
        paths: folders and files.
        against: the base, a folder or a file.
        places: what a user named; a folder's artifacts that none of them reads are left out.

    Raises:
        UsageError: a file is of a kind that cannot be timed, or a folder has nothing that these read.
        ArtifactError: a file is missing that another needs, or a folder is damaged or not what its manifest says.
    """
    given = [file for path in paths for file in _files_at(path, places)]
    wanted = None if against is None else _first_fp32(list(_files_at(against, places)))
    once = {file.place: file for file in ([] if wanted is None else [wanted]) + given}
    files = _named(list(once.values()))
    return files, files[0] if wanted is not None else _first_fp32(files)


def staged(files: Sequence[BenchFile], places: Sequence[Place], folder: Path) -> tuple[BenchFile, ...]:
    """Return the files, of which bare ones are put into folders below `folder` for clients that load nothing else.

    Raises:
        UsageError: a bare file cannot be loaded by a client that was named.
    """
    client = next((place.runtime for place in places if isinstance(place.runtime, ClientRuntime)), None)
    if client is None:
        return tuple(files)
    roots = [file.artifact.root.resolve() for file in files]
    donors = [folder for root in roots for folder in (root, root.parent)]
    moved = []
    for number, file in enumerate(files):
        if file.artifact.spec == TAKEN_AS and file.artifact.target.format in client.formats:
            (stage := folder / str(number)).mkdir()
            file = replace(file, artifact=client.stage(file.artifact, donors, stage))
        moved.append(file)
    return tuple(moved)


def _first_fp32(files: Sequence[BenchFile]) -> BenchFile:
    return next((file for file in files if file.precision == "fp32"), files[0])


def _files_at(path: Path, places: Sequence[Place]) -> Iterator[BenchFile]:
    """Yield the artifacts of a folder, or one bare file."""
    if path.is_dir():
        yield from _artifacts_of(path, places)
    elif not path.exists():
        raise UsageError(f"{path} does not exist. Give a folder that bge-export wrote, an .onnx or an .xml file.")
    elif path.suffix not in READERS:
        raise UsageError(
            f"{path} cannot be timed by itself: only {' and '.join(READERS)} files can. "
            "Give other formats as the folder that bge-export wrote."
        )
    else:
        format_name, read = READERS[path.suffix]
        yield _bare(path, format_name, read(path))


def _artifacts_of(folder: Path, places: Sequence[Place]) -> Iterator[BenchFile]:
    manifest, artifacts = read_bundle(folder)
    pairs = list(zip(manifest.models, artifacts, strict=True))
    kept = [pair for pair in pairs if not places or any(place.reads(pair[1]) for place in places)]
    if not kept:
        held = ", ".join(str(artifact.target) for artifact in artifacts) or "nothing"
        raise UsageError(f"{folder} holds {held}, and no runtime that was named reads that.")
    for model, artifact in kept:
        size = sum((folder / name).stat().st_size for name in model.files)
        digest = manifest.files[artifact.model]
        yield BenchFile(str(artifact.target), artifact, digest, size, _vocabulary(folder))


def _bare(path: Path, format_name: str, facts: BareFile) -> BenchFile:
    for name in facts.files:
        if not (path.parent / name).is_file():
            raise ArtifactError(f"{path.parent / name} is missing, which {path.name} needs. Fetch it too.")
    if unknown := [name for name in facts.inputs if name not in KNOWN_INPUTS]:
        raise ArtifactError(f"{path} asks for {unknown[0]!r}. Only models of {', '.join(KNOWN_INPUTS)} can be timed.")
    digest = file_sha256(path)
    artifact = Artifact(
        target=Target(format_name, facts.precision), root=path.parent, model=path.name, files=facts.files,
        digest=digest, spec=TAKEN_AS, inputs=facts.inputs, outputs=facts.outputs,
    )  # fmt: skip
    size = sum((path.parent / name).stat().st_size for name in facts.files)
    near = path.resolve().parent
    return BenchFile(path.name, artifact, digest, size, _vocabulary(near) or _vocabulary(near.parent))


def _vocabulary(folder: Path) -> int | None:
    try:
        size = read_object(folder / "config.json").get("vocab_size")
    except CheckpointError:
        return None
    return size if isinstance(size, int) and size > 0 else None


def _named(files: Sequence[BenchFile]) -> tuple[BenchFile, ...]:
    """Return the files, with as many folders before a name as tell it from the others'."""
    parts = [(*file.artifact.root.resolve().parts, file.name) for file in files]

    def name(one: tuple[str, ...], depth: int) -> str:
        return "/".join(one[-depth:])

    named = []
    for file, own in zip(files, parts, strict=True):
        depths = range(1, len(own) + 1)
        unique = (n for n in depths if sum(name(other, n) == name(own, n) for other in parts) == 1)
        named.append(replace(file, name=name(own, next(unique, len(own)))))
    return tuple(named)
