"""A recipe: which checkpoint becomes which targets, where they are written, and by which limits they are proven.

Every export command parses into a `Recipe`. A TOML file holds the same, field for field:

    targets = ["onnx:int8", "openvino:fp16"]

    [source]
    model = "BAAI/bge-small-en"

    [output]
    folder = "out"
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import tomli_w
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    model_validator,
)

from bge_export.bundle.integrity import refuse_unknown_output
from bge_export.contracts import Pooling, Target
from bge_export.errors import UsageError
from bge_export.files.regular import LIMITS_BYTES
from bge_export.files.single import refuse_path, written_whole
from bge_export.files.toml_files import read_toml
from bge_export.precision.int8_options import Int8Options

DEFAULT_MODEL = "BAAI/bge-small-en"


class Part(BaseModel):
    """Base of a recipe and its parts. Unknown keys and other types are rejected."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=True)


def _target(written: object) -> Target:
    """Return the target that is written like `onnx:int8`."""
    if isinstance(written, Target):
        return written

    name, colon, precision = str(written).partition(":")
    if not (name and colon and precision):
        raise ValueError(f"{written!r} is not a target. Write it as format:precision, for example onnx:int8")
    return Target(name, precision)


AnyPath = Annotated[Path, Field(strict=False)]
"""A path; text in a TOML file."""

TargetName = Annotated[Target, PlainValidator(_target), PlainSerializer(lambda one: f"{one.format}:{one.precision}")]
Targets = Annotated[tuple[TargetName, ...], Field(strict=False)]


class Source(Part):
    """The checkpoint.

    Attributes:
        model: a Hub id, or a local folder.
        revision: the branch, tag or commit of the Hub id.
        pooling: the pooling, if the checkpoint declares none.
        query_prefix: the instruction before queries, if the checkpoint declares no prompts; "" for none. By default the
            one that its authors publish, if the model is one of theirs.
        head: `embedding` to drop another head, such as a reranker's, and embed texts with the encoder. By default the
            checkpoint's own files decide.
    """

    model: str = DEFAULT_MODEL
    revision: str | None = None
    pooling: Pooling | None = None
    query_prefix: str | None = None
    head: Literal["embedding"] | None = None


class Output(Part):
    """The folder that is written.

    Attributes:
        folder: its path; by default the model's own name, in the current folder. A folder that bge-export wrote from
            the same checkpoint is extended.
        overwrite: whether earlier output of bge-export may be replaced: the same targets, or the whole folder if it was
            made from another checkpoint.
    """

    folder: AnyPath | None = None
    overwrite: bool = False


class ProofOptions(Part):
    """How the targets are proven.

    Attributes:
        check: whether parity and gate follow. If False, the manifest records that they were left out.
        thresholds: a file of limits to use instead of the package's own.
    """

    check: bool = True
    thresholds: AnyPath | None = None


class JavaScriptFolder(Part):
    """What a folder for Transformers.js holds besides models and layout: PyTorch weights and a model card.

    Attributes:
        weights: whether the folder includes the PyTorch weights.
        repository: the Hub id that the card's examples name.
        license: the checkpoint's licence, for the card.
    """

    weights: bool = True
    repository: str | None = None
    license: str | None = None


class Recipe(Part):
    """One export.

    Attributes:
        targets: the targets to write.
        source: the checkpoint.
        beside: targets to write too, unless the folder holds them already.
        output: the folder that is written.
        proof: how the targets are proven.
        options: format -> options of its exporter, such as `sentence_embedding`.
        int8: options of int8 quantization, in every format.
        transformersjs: what the folder holds for Transformers.js besides models and layout; None for nothing.
    """

    targets: Targets = Field(min_length=1)
    source: Source = Source()
    beside: Targets = ()
    output: Output = Output()
    proof: ProofOptions = ProofOptions()
    options: dict[str, dict[str, Any]] = {}
    int8: Int8Options | None = None
    transformersjs: JavaScriptFolder | None = None

    @model_validator(mode="after")
    def _options_have_targets(self) -> Self:
        """Reject options that no target would use."""
        every = (*self.targets, *self.beside)
        if self.int8 is not None and all(target.precision != "int8" for target in every):
            raise ValueError("int8: no target is int8. Add one, such as onnx:int8, or leave these options out")

        formats = {target.format for target in every}
        if unused := sorted(set(self.options) - formats):
            raise ValueError(f"options.{unused[0]}: no target is of this format, only: {', '.join(sorted(formats))}")
        return self

    def with_paths(self, changed: Callable[[Path], Path]) -> Self:
        """Return the recipe with each of its paths changed; a model is a path if it is a folder, before or after."""

        def maybe(path: Path | None) -> Path | None:
            return None if path is None else changed(path)

        source, model = self.source, Path(self.source.model)
        if model.is_dir() or changed(model).is_dir():
            source = source.model_copy(update={"model": str(changed(model))})

        int8 = self.int8
        if int8 is not None:
            int8 = int8.model_copy(update={"calibration": maybe(int8.calibration)})

        output = self.output.model_copy(update={"folder": maybe(self.output.folder)})
        proof = self.proof.model_copy(update={"thresholds": maybe(self.proof.thresholds)})
        return self.model_copy(update={"source": source, "output": output, "proof": proof, "int8": int8})


def read_recipe(path: Path) -> Recipe:
    """Read a recipe from a TOML file; its relative paths begin at the file's folder.

    Raises:
        UsageError: the file is missing, not TOML, or not a recipe.
    """
    table = read_toml(path, LIMITS_BYTES, UsageError, "a recipe")
    try:
        return Recipe.model_validate(table).with_paths(path.parent.joinpath)
    except ValidationError as error:
        raise UsageError(f"{path}: {reason_of(error)}. Correct the recipe.") from error


def reason_of(error: ValidationError) -> str:
    """Return why a recipe is not valid, in one line: the first field that is wrong, and what is wrong with it."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    reason = str(first["ctx"]["error"]) if first["type"] == "value_error" else str(first["msg"])
    return f"{where}: {reason}" if where else reason


def recipe_toml(recipe: Recipe) -> str:
    """Return the recipe as TOML, without the values that are defaults; `read_recipe` reads it."""
    table = recipe.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
    return tomli_w.dumps(_without_none(table))


def write_recipe(recipe: Recipe, path: Path) -> None:
    """Write the recipe to a new TOML file; its relative paths begin at the file's folder.

    Raises:
        OutputError: the file exists already, or its folder does not.
    """
    refuse_path(path, "recipe.toml")
    refuse_unknown_output(path)
    with written_whole(path) as file:
        file.write_text(recipe_toml(recipe.with_paths(lambda one: _from(path.parent, one))), "utf-8")


def _from(folder: Path, path: Path) -> Path:
    """Return a path as seen from a folder; an absolute one stays."""
    return path if path.is_absolute() else Path(os.path.relpath(path, folder))


def _without_none(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return a JSON value without missing entries, which TOML cannot hold."""
    if isinstance(value, dict):
        return {key: _without_none(one) for key, one in value.items() if one is not None}
    return value
