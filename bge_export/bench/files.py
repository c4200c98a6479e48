"""Collects the files to benchmark: artifacts of bundles, and bare model files from elsewhere."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bge_export.bundle.manifest import read_bundle
from bge_export.capabilities import ClientRuntime
from bge_export.contracts import Artifact, Target
from bge_export.errors import ArtifactError, CheckpointError, UsageError
from bge_export.files.digest import file_sha256
from bge_export.files.json_files import read_object
from bge_export.foreign.files import KNOWN_INPUTS
from bge_export.formats import ModelFile, find_format, format_of, suffixes_where
from bge_export.heads.dense import UNDECLARED
from bge_export.parity.measure.measurement import RuntimeDevice

SOME_IDS = 500
"""Vocabulary size to assume if no configuration beside a file declares one: every vocabulary is larger."""


@dataclass(frozen=True)
class BenchFile:
    """One artifact to measure.

    Attributes:
        name: its target, or a bare file's name; prefixed with folders if two names would be equal.
        artifact: the artifact that a runtime opens.
        sha256: digest of the model file.
        size_bytes: size of the model file and its external data, without tokenizer and configuration.
        vocabulary: the number of token ids; None if no configuration declares it.
    """

    name: str
    artifact: Artifact
    sha256: str
    size_bytes: int
    vocabulary: int | None

    @property
    def precision(self) -> str:
        """Return the precision of the weights."""
        return self.artifact.target.precision

    @property
    def path(self) -> Path:
        """Return the resolved path of the model file, by which duplicates are found."""
        return (self.artifact.root / self.artifact.model).resolve()


def gather(
    paths: Sequence[Path], against: Path | None, devices: Sequence[RuntimeDevice] = ()
) -> tuple[tuple[BenchFile, ...], BenchFile]:
    """Return every file at `paths`, each once, and the base: `against`, else the first in fp32, else the first.

    If `against` is a folder, the base is its first artifact in fp32; its other artifacts are not measured.

    Args:
        paths: folders and files.
        against: the base, a folder or a file.
        devices: lanes that a user named; a folder's artifacts that none of them reads are left out.

    Raises:
        UsageError: a file is of a kind that cannot be timed, or none of the named lanes reads a folder's artifacts.
        ArtifactError: a required file is missing, or a folder is damaged or differs from its manifest.
    """
    given = [file for path in paths for file in _files_at(path, devices)]
    wanted = None if against is None else _first_fp32(list(_files_at(against, devices)))

    once = {file.path: file for file in ([] if wanted is None else [wanted]) + given}
    files = _named(list(once.values()))
    return files, files[0] if wanted is not None else _first_fp32(files)


def staged(files: Sequence[BenchFile], devices: Sequence[RuntimeDevice], folder: Path) -> tuple[BenchFile, ...]:
    """Return the files; for clients that load only folders, bare files are staged in folders below `folder`.

    Raises:
        UsageError: a named client cannot load a bare file.
    """
    client = next((device.runtime for device in devices if isinstance(device.runtime, ClientRuntime)), None)
    if client is None:
        return tuple(files)

    # A bare file lacks a tokenizer and a configuration: the client may take those that lie near any of the files.
    roots = [file.artifact.root.resolve() for file in files]
    donors = [folder for root in roots for folder in (root, root.parent)]

    moved = []
    for number, file in enumerate(files):
        if file.artifact.spec == UNDECLARED and file.artifact.target.format in client.formats:
            (stage := folder / str(number)).mkdir()
            file = replace(file, artifact=client.stage(file.artifact, donors, stage))
        moved.append(file)
    return tuple(moved)


def _first_fp32(files: Sequence[BenchFile]) -> BenchFile:
    return next((file for file in files if file.precision == "fp32"), files[0])


def _files_at(path: Path, devices: Sequence[RuntimeDevice]) -> Iterator[BenchFile]:
    """Yield the artifacts of a folder, or one bare file."""
    if path.is_dir():
        yield from _artifacts_of(path, devices)

    elif not path.exists():
        known = " or ".join(suffixes_where(lambda one: one.read is not None))
        raise UsageError(f"{path} does not exist. Give a folder that bge-export wrote, or a {known} file.")

    else:
        name = format_of(path)
        read = find_format(name).read if name is not None else None
        if name is None or read is None:
            known = " and ".join(suffixes_where(lambda one: one.read is not None))
            raise UsageError(
                f"{path} cannot be timed by itself: only {known} files can. "
                "Give other formats as the folder that bge-export wrote."
            )
        yield _bare(path, name, read(path))


def _artifacts_of(folder: Path, devices: Sequence[RuntimeDevice]) -> Iterator[BenchFile]:
    manifest, artifacts = read_bundle(folder)
    pairs = list(zip(manifest.models, artifacts, strict=True))
    kept = [pair for pair in pairs if not devices or any(device.reads(pair[1]) for device in devices)]
    if not kept:
        held = ", ".join(str(artifact.target) for artifact in artifacts) or "nothing"
        raise UsageError(f"{folder} holds {held}, and no runtime that was named reads that.")

    for model, artifact in kept:
        size = sum((folder / name).stat().st_size for name in model.files)
        digest = manifest.files[artifact.model]
        yield BenchFile(str(artifact.target), artifact, digest, size, _vocabulary(folder))


def _bare(path: Path, format_name: str, facts: ModelFile) -> BenchFile:
    for name in facts.files:
        if not (path.parent / name).is_file():
            raise ArtifactError(f"{path.parent / name} is missing, which {path.name} needs. Fetch it too.")

    if unknown := [name for name in facts.inputs if name not in KNOWN_INPUTS]:
        raise ArtifactError(f"{path} asks for {unknown[0]!r}. Only models of {', '.join(KNOWN_INPUTS)} can be timed.")

    digest = file_sha256(path)
    artifact = Artifact(
        target=Target(format_name, facts.precision),
        root=path.parent,
        model=path.name,
        files=facts.files,
        digest=digest,
        spec=UNDECLARED,
        inputs=facts.inputs,
        outputs=facts.outputs,
    )

    size = sum((path.parent / name).stat().st_size for name in facts.files)
    near = path.resolve().parent  # as on the Hub, a model may lie in a subfolder: config.json is there or one above
    return BenchFile(path.name, artifact, digest, size, _vocabulary(near) or _vocabulary(near.parent))


def _vocabulary(folder: Path) -> int | None:
    try:
        size = read_object(folder / "config.json").get("vocab_size")
    except CheckpointError:
        return None
    return size if isinstance(size, int) and size > 0 else None


def _named(files: Sequence[BenchFile]) -> tuple[BenchFile, ...]:
    """Return the files, each name prefixed with as many folders as make it unique."""
    parts = [(*file.artifact.root.resolve().parts, file.name) for file in files]

    def name(one: tuple[str, ...], depth: int) -> str:
        return "/".join(one[-depth:])

    named = []
    for file, own in zip(files, parts, strict=True):
        depths = range(1, len(own) + 1)
        unique = (n for n in depths if sum(name(other, n) == name(own, n) for other in parts) == 1)
        named.append(replace(file, name=name(own, next(unique, len(own)))))
    return tuple(named)
