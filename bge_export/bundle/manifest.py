"""The manifest of a bundle, `bge_export.json`: its source, spec, models, and the sha256 of every file."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from bge_export.bundle import contract
from bge_export.bundle.contract import CONTRACT, Contract, contract_of, outputs_of, refuse_other_contract
from bge_export.bundle.declared import refuse_other_spec
from bge_export.bundle.elasticsearch import write_elasticsearch_files
from bge_export.bundle.integrity import (
    ABOUT_MODELS,
    MANIFEST,
    files_below,
    refuse_changed,
    refuse_names,
)
from bge_export.checkpoint.tested import TESTED
from bge_export.contracts import Artifact, Checkpoint, PromptOrigin, Side, Target
from bge_export.errors import ArtifactError
from bge_export.files.digest import combined_digest, file_sha256, tree_digest
from bge_export.files.json_files import parse
from bge_export.files.reading import first_fault, reading
from bge_export.files.regular import SETTINGS_BYTES, read_regular_text
from bge_export.files.spec import SpecRecord
from bge_export.formats.torchscript import ELAND_FILE


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Source(_Record):
    """The checkpoint that the artifacts were exported from.

    Attributes:
        id: its Hub id, or the name of its folder.
        revision: the Hub commit; None for a folder.
        digest: sha256 over its files.
        model_type: its architecture.
        prompts_from: where the spec's prompts come from; manifests of earlier versions hold what files declared.
        padding_side: where the checkpoint's own tokenizer pads; a folder pads there only if the last token is pooled.
        tested: whether the architecture is in the tested list (`checkpoint.tested`).
        pickles: the pickles that the weights came from. Manifests of other checkpoints do not name them.
        adapter: which adapter was merged into the weights before the export; absent if none was.
    """

    id: str
    revision: str | None
    digest: str
    model_type: str
    prompts_from: PromptOrigin = "checkpoint"
    padding_side: Side = "right"
    tested: bool = True
    pickles: list[str] = Field(default_factory=list)
    adapter: str | None = None

    @model_serializer(mode="wrap")
    def _named(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Return the fields, with pickles and an adapter only where there are any."""
        fields: dict[str, Any] = serialize(self)
        return {name: value for name, value in fields.items() if name not in ("pickles", "adapter") or value}


class Model(_Record):
    """One exported model, with the tool versions and exporter options that produced it."""

    target: str = Field(pattern=r"^[^-@:\s/]+-[^@:\s/]+$")
    files: list[str] = Field(min_length=1)
    inputs: list[str]
    outputs: list[str]
    tools: dict[str, str]
    options: dict[str, Any]


class Manifest(_Record):
    """The content of `bge_export.json`. It holds no time, user or machine, so the same input gives the same bytes.

    Attributes:
        source: the checkpoint.
        spec: what the models read and give.
        models: the exported models.
        weights: files of the checkpoint's own weights, if the folder includes them; no artifact depends on them.
        files: every file of the folder -> its sha256.
        checked: whether the export ended with parity and gate; False with `--no-check`.
    """

    schema_: Literal["bge_export.manifest/1"]
    source: Source
    spec: SpecRecord
    models: list[Model]
    weights: list[str]
    files: dict[str, str]
    checked: bool


SCHEMA: Literal["bge_export.manifest/1"] = "bge_export.manifest/1"


def write_manifest(
    root: Path, checkpoint: Checkpoint, models: Sequence[Model], *, checked: bool, weights: Sequence[str] = ()
) -> None:
    """Record every file below `root` with its digest; `weights` names the files of the checkpoint's own weights.

    What belongs beside a model of the folder is written first, and the contract.
    """
    if any(ELAND_FILE in model.files for model in models):
        write_elasticsearch_files(checkpoint, root)

    manifest = Manifest(
        schema_=SCHEMA,
        source=Source(
            id=checkpoint.source,
            revision=checkpoint.revision,
            digest=checkpoint.digest,
            model_type=checkpoint.model_type,
            prompts_from=checkpoint.prompts_from,
            padding_side=checkpoint.padding_side,
            tested=checkpoint.model_type in TESTED,
            pickles=list(checkpoint.pickles),
            adapter=checkpoint.adapter,
        ),
        spec=SpecRecord.of(checkpoint.spec),
        models=list(models),
        weights=list(weights),
        files={name: file_sha256(root / name) for name in files_below(root) if name != CONTRACT},
        checked=checked,
    )
    manifest = with_contract(root, manifest)

    fields = manifest.model_dump()
    text = json.dumps({"schema": fields.pop("schema_"), **fields}, indent=2, ensure_ascii=False)
    (root / MANIFEST).write_text(text + "\n", "utf-8")


def with_contract(root: Path, manifest: Manifest) -> Manifest:
    """Write the contract that a manifest and the folder's tokenizer make, and return the manifest that lists it.

    A model with another head has none: the contract describes one vector a text.
    """
    if not manifest.spec.only_dense:
        return manifest

    (root / CONTRACT).write_bytes(_contract(root, manifest).as_bytes())
    digests = manifest.files | {CONTRACT: file_sha256(root / CONTRACT)}
    return manifest.model_copy(update={"files": {name: digests[name] for name in sorted(digests)}})


def _contract(root: Path, manifest: Manifest) -> Contract:
    """Return the contract of a folder with this manifest."""
    files = [
        contract.File(
            target=model.target,
            file=model.files[0],
            sha256={name: manifest.files[name] for name in model.files},
            inputs=model.inputs,
            outputs=outputs_of(model.outputs),
        )
        for model in manifest.models
    ]

    source = manifest.source
    checkpoint = contract.Model(id=source.id, revision=source.revision, digest=source.digest)
    return contract_of(root, checkpoint, manifest.spec, files, manifest.files)


def read_manifest(root: Path) -> Manifest:
    """Read and validate `bge_export.json`.

    Raises:
        ArtifactError: the folder or the file is missing, or the file is not a valid manifest.
    """
    path, advice = root / MANIFEST, "Export the folder again."
    missing = (
        f"{root} holds no {MANIFEST}: bge-export did not write it. Write one with: bge-export onnx MODEL -o FOLDER"
    )

    try:
        with reading(path, ArtifactError, advice=advice, missing=missing):
            fields = parse(read_regular_text(path, SETTINGS_BYTES))
        if not isinstance(fields, dict):
            raise ValueError("it holds no JSON object")
        return Manifest(schema_=fields.pop("schema", None), **fields)
    except ValidationError as error:
        raise ArtifactError(f"{path}: {first_fault(error)}. {advice}") from error
    except (ValueError, TypeError) as error:
        raise ArtifactError(f"{path} is not a valid manifest: {error}. {advice}") from error


def read_bundle(root: Path, *, verify: bool = True) -> tuple[Manifest, tuple[Artifact, ...]]:
    """Return the manifest and every artifact of a folder, after checking each file's bytes against the manifest.

    Args:
        root: the folder.
        verify: False only to inspect files that are known to differ from the manifest.

    Raises:
        ArtifactError: a file is missing, added, or differs from the manifest.
    """
    manifest = read_manifest(root)
    spec = manifest.spec.to_spec()

    models = {name for model in manifest.models for name in model.files}
    own = {*manifest.weights, *models}
    refuse_names(root, manifest.files, models, manifest.weights)
    if verify:
        refuse_changed(root, manifest.files)
        refuse_other_spec(root, spec)
        refuse_other_contract(root, _contract(root, manifest) if spec.only_dense else None)

    # Tokenizer and configuration belong to every artifact; a model's files only to that model.
    shared = [name for name in manifest.files if name not in own and name not in ABOUT_MODELS]
    artifacts = []
    for model in manifest.models:
        format_, _, precision = model.target.partition("-")
        files = tuple(sorted({*model.files, *shared}))
        artifacts.append(
            Artifact(
                target=Target(format_, precision),
                root=root,
                model=model.files[0],
                files=files,
                digest=combined_digest({name: manifest.files[name] for name in files}),
                spec=spec,
                inputs=tuple(model.inputs),
                outputs=tuple(model.outputs),
            )
        )

    return manifest, tuple(artifacts)


def refuse_other_bytes(artifact: Artifact) -> None:
    """Raise ArtifactError unless the files of an artifact are still those that its digest is of."""
    try:
        found = tree_digest(artifact.root, artifact.files)
    except OSError as error:
        raise ArtifactError(f"{error.filename} cannot be read any more: {error.strerror}. Measure again.") from error

    if found != artifact.digest:
        raise ArtifactError(
            f"the files of {artifact.root / artifact.model} changed while they were measured. "
            "Let nothing write into the folder, and measure again."
        )
