"""Decides what a checkpoint promises: which heads it has, and the prompts before its texts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bge_export.checkpoint.config_file import CONFIG, vocabulary_size
from bge_export.checkpoint.head_files import OwnHeads, TokenModules, heads_of_modules
from bge_export.checkpoint.m3_files import has_own_layers, heads_of_layers, refuse_other_dense
from bge_export.checkpoint.module_files import layers_of, read_tensors
from bge_export.checkpoint.other_models import is_reranker
from bge_export.checkpoint.pooling_files import PROMPTS, SentenceFiles
from bge_export.checkpoint.prompts import Prompts, choose_prompts
from bge_export.checkpoint.weight_files import WeightFiles
from bge_export.contracts import Head, InputSpec, ModelSpec, Pooling
from bge_export.errors import CheckpointError
from bge_export.heads.dense import DenseHead
from bge_export.heads.score import ScoreHead


@dataclass(frozen=True)
class Wanted:
    """What a caller asks for or allows beside a checkpoint's own declarations.

    Attributes:
        pooling: the pooling of a checkpoint that declares none.
        default_pooling: used like `pooling`, but a declared pooling wins: the pooling that an artifact promises.
        query_prefix: the instruction before queries of a checkpoint that declares no prompts; "" for none.
        known_as: the name by which published models are known, if it is not that of the folder or the Hub id.
        dim: the width of the vectors, of a model whose first components are an embedding by themselves.
        embedding: whether the encoder is meant, without another head that the checkpoint has.
        allow_pickle: whether weights may be read from pickles.
    """

    pooling: Pooling | None = None
    default_pooling: Pooling | None = None
    query_prefix: str | None = None
    known_as: str | None = None
    dim: int | None = None
    embedding: bool = False
    allow_pickle: bool = False


@dataclass(frozen=True)
class Declared:
    """What the files of a checkpoint declare.

    Attributes:
        root: the folder.
        source: the name by which published models are known.
        config: `config.json`.
        width: D, the hidden size.
        max_tokens: the longest input.
        sentence: the sentence-transformers files.
        modules: the modules of a model of token weights or vectors of tokens; None for every other model.
        weights: the weight files.
    """

    root: Path
    source: str
    config: Mapping[str, object]
    width: int
    max_tokens: int
    sentence: SentenceFiles
    modules: TokenModules | None
    weights: WeightFiles


@dataclass(frozen=True)
class FoundSpec:
    """A spec, where its prompts come from, and the weight files of its heads' own layers."""

    spec: ModelSpec
    prompts: Prompts
    head_weights: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def read_spec(declared: Declared, wanted: Wanted) -> FoundSpec:
    """Return what a checkpoint promises.

    Raises:
        CheckpointError: its declarations contradict each other or what was asked for, or are not supported.
    """
    root, sentence = declared.root, declared.sentence
    own = None if wanted.embedding else _own_heads(declared)
    reranker = own is None and not wanted.embedding

    if reranker and is_reranker(root, declared.config, sentence, declared.weights.shapes):
        _refuse_embedding_options(root, sentence, wanted)
        return FoundSpec(
            ModelSpec(InputSpec(declared.max_tokens, {}), {ScoreHead.kind: ScoreHead()}), Prompts({}, "checkpoint")
        )

    heads: dict[str, Head] = dict(own.heads) if own else {}
    if declared.modules is None or own is None:
        heads = {DenseHead.kind: _dense(root, declared.width, sentence, wanted, beside=own), **heads}
    elif wanted.dim is not None:
        _refuse_dim(root)

    prompts = choose_prompts(root / PROMPTS, sentence.prompts, declared.config, declared.source, wanted.query_prefix)
    return FoundSpec(
        ModelSpec(InputSpec(declared.max_tokens, prompts.texts), heads), prompts, own.weights if own else {}
    )


def _own_heads(declared: Declared) -> OwnHeads | None:
    """Return the heads of token weights and vectors of tokens; None if the model has none."""
    root, config, width = declared.root, declared.config, declared.width
    if declared.modules is not None:
        return heads_of_modules(root, declared.modules, config, width)

    if has_own_layers(root):
        refuse_other_dense(root, declared.sentence)
        return heads_of_layers(root, width, vocabulary_size(root / CONFIG, config))
    return None


def _dense(root: Path, width: int, sentence: SentenceFiles, wanted: Wanted, *, beside: OwnHeads | None) -> DenseHead:
    """Return the dense head, after a look at the weights of its layers.

    Args:
        root: the folder.
        width: D, the width of the token states.
        sentence: the sentence-transformers files.
        wanted: the pooling and the width of the vectors that were asked for.
        beside: other heads of the model. Beside them the pooling is the first state, as FlagEmbedding takes it.
    """
    declared = sentence.pooling or wanted.default_pooling or (None if beside is None else "cls")
    pooling = _pooling(root, declared, wanted.pooling)
    if beside is not None:
        if wanted.dim is not None:
            _refuse_dim(root)
        return DenseHead(width, pooling, sentence.normalize)

    whole = layers_of(root, sentence.modules, width)
    most = whole[-1].dim if whole else width
    if wanted.dim is not None and wanted.dim > most:
        raise CheckpointError(
            f"{root} gives vectors of {most} dimensions, not of {wanted.dim}. Ask for at most {most}."
        )

    layers = layers_of(root, sentence.modules, width, wanted.dim or sentence.truncate_dim)
    read_tensors(root, sentence.modules, layers)
    return DenseHead(layers[-1].dim if layers else width, pooling, sentence.normalize, layers)


def _refuse_dim(root: Path) -> None:
    raise CheckpointError(
        f"{root} has heads of token weights or vectors of tokens, whose width is fixed. Leave out --dim; or add --as "
        "embedding to export its vector of a text alone."
    )


def _refuse_embedding_options(root: Path, sentence: SentenceFiles, wanted: Wanted) -> None:
    """Raise CheckpointError if a reranker is given what only embeddings have, or declares prompts."""
    given = {"--pooling": wanted.pooling, "--query-prefix": wanted.query_prefix, "--dim": wanted.dim}
    option = next((name for name, value in given.items() if value is not None), None)
    if option is not None:
        raise CheckpointError(
            f"{root} is a reranker, whose head with one label scores pairs of texts: it has no {option[2:]}. Leave out "
            f"{option}; or add --as embedding to embed texts with its encoder, without that head."
        )

    if sentence.prompts:
        raise CheckpointError(
            f"{root / PROMPTS}: this reranker puts prompts before its texts, which exported rerankers do not support. "
            "Choose a reranker without prompts."
        )


def _pooling(root: Path, declared: Pooling | None, given: Pooling | None) -> Pooling:
    if declared is not None and given is not None and declared != given:
        raise CheckpointError(
            f"{root} declares the pooling {declared!r}, but {given!r} was asked for. Leave --pooling out."
        )

    pooling = declared or given
    if pooling is None:
        raise CheckpointError(
            f"{root} does not declare its pooling (no modules.json with a Pooling module). "
            "Look it up on the model's card and pass --pooling cls, mean or last."
        )

    return pooling
