"""A recipe: which checkpoint becomes which targets, where they are written, and by which limits they are proven.

Every export command parses into a `Recipe`, and `build` reads one. A TOML file holds the same, field for field:

    targets = ["onnx:int8", "openvino:fp16"]

    [source]
    model = "BAAI/bge-small-en"

    [output]
    folder = "out"
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, Field, PlainSerializer, PlainValidator, model_validator

from bge_export.build.part import AnyPath, Part
from bge_export.build.release import Card, Evaluation, OwnTexts, Publishing
from bge_export.contracts import Pooling, Target
from bge_export.precision.int8_options import Int8Options

DEFAULT_MODEL = "BAAI/bge-small-en"
AnyPart = TypeVar("AnyPart", bound=BaseModel)


def _target(written: object) -> Target:
    """Return the target that is written like `onnx:int8`."""
    if isinstance(written, Target):
        return written

    name, colon, precision = str(written).partition(":")
    if not (name and colon and precision):
        raise ValueError(f"{written!r} is not a target. Write it as format:precision, for example onnx:int8")
    return Target(name, precision)


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
        dim: the width of the vectors, for a model whose first components are an embedding by themselves (matryoshka).
            By default what the checkpoint declares, else the whole vector.
        head: `embedding` to drop another head, such as a reranker's, and embed texts with the encoder. By default the
            checkpoint's own files decide.
        allow_pickle: whether weights may be read from pickles, by a process of their own.
    """

    model: str = DEFAULT_MODEL
    revision: str | None = None
    pooling: Pooling | None = None
    query_prefix: str | None = None
    dim: Annotated[int | None, Field(gt=0)] = None
    head: Literal["embedding"] | None = None
    allow_pickle: bool = False


class Output(Part):
    """The folder that is written.

    Attributes:
        folder: its path; by default the model's own name, in the current folder. A folder that bge-export wrote from
            the same checkpoint is extended.
        overwrite: whether earlier output of bge-export may be replaced: the same targets, or the whole folder if it was
            made from another checkpoint.
        weights: whether the folder includes the PyTorch weights, for libraries that run those.
    """

    folder: AnyPath | None = None
    overwrite: bool = False
    weights: bool = False


class ProofOptions(Part):
    """How the targets are proven.

    Attributes:
        check: whether parity and gate follow. If False, the manifest records that they were left out.
        thresholds: a file of limits to use instead of the package's own.
        require: further `runtime:device` or `target@runtime:device` that must be measured; a build measures them.
    """

    check: bool = True
    thresholds: AnyPath | None = None
    require: Annotated[tuple[str, ...], Field(strict=False)] = ()


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
        texts: texts of your own to measure besides; only a build does this, and what follows.
        evaluation: the tasks to score.
        card: the model card; None for none, unless the folder is for Transformers.js or is published.
        publish: where the folder is published, if the build is asked to.
    """

    targets: Targets = Field(min_length=1)
    source: Source = Source()
    beside: Targets = ()
    output: Output = Output()
    proof: ProofOptions = ProofOptions()
    options: dict[str, dict[str, Any]] = Field(default_factory=dict)
    int8: Int8Options | None = None
    transformersjs: JavaScriptFolder | None = None
    texts: OwnTexts | None = None
    evaluation: Evaluation | None = None
    card: Card | None = None
    publish: Publishing | None = None

    @property
    def for_build(self) -> tuple[str, ...]:
        """Return the keys of the recipe that only a build follows."""
        parts = {"texts": self.texts, "evaluation": self.evaluation, "card": self.card, "publish": self.publish}
        given = [name for name, part in parts.items() if part is not None]
        return (*(["proof.require"] if self.proof.require else []), *given)

    @property
    def with_weights(self) -> bool:
        """Return whether the folder includes the PyTorch weights."""
        return self.output.weights or (self.transformersjs is not None and self.transformersjs.weights)

    @property
    def every_target(self) -> tuple[Target, ...]:
        """Return all targets of a folder that holds nothing else, each once."""
        return tuple(dict.fromkeys((*self.beside, *self.targets)))

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

        def copied(part: AnyPart, **fields: object) -> AnyPart:
            return part.model_copy(update=fields)

        source, model = self.source, Path(self.source.model)
        if model.is_dir() or changed(model).is_dir():
            source = copied(source, model=str(changed(model)))

        int8, texts, evaluation = self.int8, self.texts, self.evaluation
        output = copied(self.output, folder=maybe(self.output.folder))
        proof = copied(self.proof, thresholds=maybe(self.proof.thresholds))

        return copied(
            self,
            source=source,
            output=output,
            proof=proof,
            int8=int8 and copied(int8, calibration=maybe(int8.calibration)),
            texts=texts and copied(texts, file=changed(texts.file)),
            evaluation=evaluation and copied(evaluation, pairs=tuple(map(changed, evaluation.pairs))),
        )
