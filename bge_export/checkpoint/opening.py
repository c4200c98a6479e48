"""Opens a folder or a Hub id as a `Checkpoint`: checks every file, derives the embedding, loads no weights.

`bge_export.checkpoint.model` checks later, when it loads the weights, whether transformers knows `model_type` and
whether tensors are missing or have the wrong shape: a check here would import torch, which takes seconds.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from bge_export.checkpoint import hub
from bge_export.checkpoint.declared_sizes import refuse_oversized
from bge_export.checkpoint.head_files import OwnHeads, heads_of_modules, read_token_modules
from bge_export.checkpoint.m3_files import has_own_layers, heads_of_layers, refuse_other_dense
from bge_export.checkpoint.merging import ADAPTER_FILES, has_adapter, merge
from bge_export.checkpoint.module_files import layers_of, read_tensors
from bge_export.checkpoint.other_models import ENCODER_HALVES, is_reranker, refuse_projection
from bge_export.checkpoint.pooling_files import PROMPTS, SentenceFiles, read_sentence_files
from bge_export.checkpoint.prompts import Prompts, choose_prompts
from bge_export.checkpoint.tested import untested_note
from bge_export.checkpoint.tokenizer_files import TokenizerFiles, read_tokenizer_files
from bge_export.checkpoint.unpickling import Unpickled, unpickled
from bge_export.checkpoint.weight_files import WeightFiles, read_weight_files
from bge_export.contracts import (
    LAST_HIDDEN_STATE,
    Artifact,
    Checkpoint,
    Head,
    Pooling,
    Promise,
    Reads,
    Side,
    Target,
)
from bge_export.errors import CheckpointError, UsageError
from bge_export.files.digest import tree_digest
from bge_export.files.json_files import positive_integer, read_object
from bge_export.heads.dense import Dense, dense_head
from bge_export.heads.score import Score

CONFIG = "config.json"
WIDTHS = ("hidden_size", "dim", "d_model", "n_embd", "emb_dim")
"""Keys of `config.json` that hold the width of the token states, the usual one first."""

HUB_ID = re.compile(r"(?!.*(?:--|\.\.))[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?", re.ASCII)
POSITIONS_AFTER_PADDING = frozenset(
    {
        "camembert",
        "data2vec-text",
        "ibert",
        "longformer",
        "luke",
        "mpnet",
        "roberta",
        "roberta-prelayernorm",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
    }
)
"""Models that count positions from `pad_token_id + 1`, so that 514 positions hold 512 tokens."""


@dataclass(frozen=True)
class _Source:
    """A checkpoint's folder and its name in reports."""

    root: Path
    source: str
    revision: str | None
    adapter: str | None = None


@dataclass(frozen=True)
class _Wanted:
    """What stands in for declarations that a checkpoint lacks; see `open_checkpoint`."""

    pooling: Pooling | None
    default_pooling: Pooling | None
    query_prefix: str | None
    known_as: str | None
    dim: int | None
    embedding: bool
    allow_pickle: bool


def open_checkpoint(
    model: str | Path,
    *,
    revision: str | None = None,
    pooling: Pooling | None = None,
    default_pooling: Pooling | None = None,
    query_prefix: str | None = None,
    known_as: str | None = None,
    dim: int | None = None,
    allow_pickle: bool = False,
) -> Checkpoint:
    """Return the checkpoint in a local folder, or the one with a Hub id if no such path exists.

    Args:
        model: a folder, or a Hub id such as `BAAI/bge-small-en`.
        revision: a branch, tag or commit of the Hub id.
        pooling: the pooling of a checkpoint that declares none; the embedding is then also divided by its norm,
            unless there is a `modules.json` without a Normalize module.
        default_pooling: used like `pooling`, but a declared pooling wins: the pooling that an artifact promises.
        query_prefix: the instruction before queries of a checkpoint that declares no prompts; "" for none. By default
            the one that its authors publish, if the model is one of theirs (`published`).
        known_as: the name by which published models are known, if it is not that of the folder or the Hub id.
        dim: the width of the vectors, for a model whose first components are an embedding by themselves (matryoshka);
            by default what the checkpoint declares (`truncate_dim`), else the whole vector.
        allow_pickle: whether weights may be read from pickles, by a process of their own (`unpickling`).

    Raises:
        CheckpointError: the checkpoint is missing, incomplete, damaged, contradicts itself or is not supported.
        HubError: the Hub is unreachable, refused the request, or returned other bytes than it promised.
        MissingLibrary: a library that reads checkpoints is not installed.
        UsageError: a revision was given for a local folder.
    """
    wanted = _Wanted(pooling, default_pooling, query_prefix, known_as, dim, embedding=False, allow_pickle=allow_pickle)
    return _open(model, revision, wanted)


def open_encoder(
    model: str | Path,
    *,
    revision: str | None = None,
    pooling: Pooling | None = None,
    default_pooling: Pooling | None = None,
    query_prefix: str | None = None,
    known_as: str | None = None,
    dim: int | None = None,
    allow_pickle: bool = False,
) -> Checkpoint:
    """Return a checkpoint as an encoder that embeds texts, without another head that it may have.

    `open_checkpoint` makes a reranker of such a checkpoint, or refuses its head by name. Arguments and errors are the
    same.
    """
    wanted = _Wanted(pooling, default_pooling, query_prefix, known_as, dim, embedding=True, allow_pickle=allow_pickle)
    return _open(model, revision, wanted)


def _open(model: str | Path, revision: str | None, wanted: _Wanted) -> Checkpoint:
    try:
        return _read(_whole(_locate(model, revision, pickles=wanted.allow_pickle)), wanted)
    except OSError as error:
        raise CheckpointError(
            f"{_shortened(str(error.filename or model))} cannot be read: {error.strerror or type(error).__name__}. "
            "Make the folder readable, or give another."
        ) from error


def _locate(model: str | Path, revision: str | None, *, pickles: bool) -> _Source:
    text = str(model)
    folder = Path(model).expanduser() if text.startswith("~") else Path(model)

    if text and folder.exists():
        if revision is not None:
            raise UsageError(f"{model} is a local folder, which has no revisions. Leave --revision out.")
        if not folder.is_dir():
            raise CheckpointError(f"{model} is a file. Give the folder of the checkpoint that holds it.")
        return _Source(folder, folder.resolve().name, None)

    # A string that looks like a path is not looked up on the Hub.
    if isinstance(model, Path) or text.startswith((".", "/", "~")) or "\\" in text or text.count("/") > 1:
        hint = " For a model of the Hub, give its id: ORGANISATION/NAME." if "://" in text else ""
        raise CheckpointError(f"{_shortened(text)}: no such folder. Check the path.{hint}")

    if len(text) > 96 or not HUB_ID.fullmatch(text):
        raise CheckpointError(
            f"{_shortened(text)!r} is neither a folder nor a Hub id. Give a folder that exists, or ORGANISATION/NAME."
        )

    root, commit = hub.fetch(text, revision, pickles=pickles)
    return _Source(root, text, commit)


def _whole(found: _Source) -> _Source:
    """Return the folder of a checkpoint with its adapter merged, if it has one."""
    if not has_adapter(found.root):
        return found

    def base(model: str, revision: str | None) -> tuple[Path, str]:
        located = _locate(model, None if Path(model).is_dir() else revision, pickles=False)
        return located.root, located.source

    merged = merge(found.root, base)
    return replace(found, root=merged.root, adapter=merged.says)


def _read(found: _Source, wanted: _Wanted) -> Checkpoint:
    """Read every file that affects the embedding and compare their declarations."""
    given = unpickled(found.root) if wanted.allow_pickle else Unpickled(found.root)
    root = given.root

    # Modules first: without them a folder that needs no config.json would only be called incomplete.
    modules = read_token_modules(root)
    sentence = read_sentence_files(root) if modules is None else modules.sentence
    config = _read_config(root / CONFIG)
    tokenizer = read_tokenizer_files(root, sentence.lower_case)
    weights = read_weight_files(root)

    refuse_oversized(root / CONFIG, config, weights.shapes)
    width = _width(root / CONFIG, config)
    refuse_projection(root, weights.shapes, width)
    _compare_widths(root, width, sentence, weights)
    _compare_vocabulary(root, tokenizer, weights)

    max_tokens = _max_tokens(root, config, sentence, tokenizer)
    own = None
    if not wanted.embedding and modules is not None:
        own = heads_of_modules(root, modules, config, width)
    elif not wanted.embedding and has_own_layers(root):
        refuse_other_dense(root, sentence)
        own = heads_of_layers(root, width, _vocabulary(root, config))

    if own is None and not wanted.embedding and is_reranker(root, config, sentence, weights.shapes):
        _refuse_embedding_options(root, sentence, wanted)
        prompts = Prompts({}, "checkpoint")
        promise = Promise(Reads(max_tokens, {}), {Score.kind: Score()})
    else:
        name = found.source if wanted.known_as is None else wanted.known_as
        prompts = choose_prompts(root / PROMPTS, sentence.prompts, config, name, wanted.query_prefix)
        heads: dict[str, Head] = dict(own.heads) if own else {}
        if modules is None or own is None:
            heads = {Dense.kind: _dense(root, width, sentence, wanted, beside=own), **heads}
        elif wanted.dim is not None:
            _refuse_dim(root)
        promise = Promise(Reads(max_tokens, prompts.texts), heads)

    head_weights = own.weights if own else {}
    index = (*((weights.index,) if weights.index else ()), *(name for names in head_weights.values() for name in names))
    adapter = tuple(name for name in ADAPTER_FILES if (root / name).is_file())
    token_types = positive_integer(config.get("type_vocab_size")) or 0

    return Checkpoint(
        source=found.source,
        revision=found.revision,
        root=root,
        digest=tree_digest(root, (CONFIG, *weights.weights, *index, *tokenizer.files, *sentence.files, *adapter)),
        model_type=str(config["model_type"]),
        promise=promise,
        weights=weights.weights,
        token_types=token_types > 1,
        prompts_from=prompts.origin,
        padding_side=tokenizer.padding_side,
        head_weights=head_weights,
        pickles=given.pickles,
        adapter=found.adapter,
        notes=(
            *_pickle_note(given.pickles),
            *((f"{found.adapter}.",) if found.adapter else ()),
            *prompts.notes,
            *_side_note(tokenizer.padding_side, promise),
            *_width_note(promise),
            *untested_note(str(config["model_type"])),
        ),
    )


def _pickle_note(pickles: tuple[str, ...]) -> tuple[str, ...]:
    """Return where weights came from, in one sentence; nothing if all are safetensors."""
    if not pickles:
        return ()
    return (
        f"Weights came from pickles ({', '.join(pickles)}): a process without network read their tensors, and only "
        "those. The manifest names them.",
    )


def _side_note(side: Side, promise: Promise) -> tuple[str, ...]:
    """Return what the user should know of the padding, in one sentence; nothing if the folder pads where it did."""
    pooling = dense_head(promise).pooling if promise.only_dense else "cls"
    if side == "right" or pooling == "last":
        return ()
    if promise.of_tokens:
        return ("The checkpoint's tokenizer pads on the left, the folder's on the right.",)

    answer = "score" if promise.of_pairs else "embedding"
    pooled = "the first token" if pooling == "cls" else "the mean of all tokens"
    return (
        f"The checkpoint's tokenizer pads on the left, the folder's on the right: the {answer} is made of "
        f"{pooled}, and padding before a text moves every token.",
    )


def _dense(root: Path, width: int, sentence: SentenceFiles, wanted: _Wanted, *, beside: OwnHeads | None) -> Dense:
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
        return Dense(width, pooling, sentence.normalize)

    whole = layers_of(root, sentence.modules, width)
    most = whole[-1].dim if whole else width
    if wanted.dim is not None and wanted.dim > most:
        raise CheckpointError(
            f"{root} gives vectors of {most} dimensions, not of {wanted.dim}. Ask for at most {most}."
        )

    layers = layers_of(root, sentence.modules, width, wanted.dim or sentence.truncate_dim)
    read_tensors(root, sentence.modules, layers)
    return Dense(layers[-1].dim if layers else width, pooling, sentence.normalize, layers)


def _refuse_dim(root: Path) -> None:
    raise CheckpointError(
        f"{root} has heads of token weights or vectors of tokens, whose width is fixed. Leave out --dim; or add --as "
        "embedding to export its vector of a text alone."
    )


def _width_note(promise: Promise) -> tuple[str, ...]:
    """Return what the user should know of a vector that is cut, in one sentence."""
    layers = dense_head(promise).layers if promise.only_dense else ()
    if not layers or layers[-1].kind != "truncate":
        return ()

    again = ", divided by their norm again" if dense_head(promise).normalize else ""
    return (f"The vectors are {layers[-1]} dimensions of the checkpoint's{again}.",)


def _refuse_embedding_options(root: Path, sentence: SentenceFiles, wanted: _Wanted) -> None:
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
            f"{root / PROMPTS}: this reranker puts prompts before its texts, which no exported file does. "
            "Choose a reranker without prompts."
        )


def _read_config(path: Path) -> dict[str, object]:
    """Return `config.json` of an encoder whose code is part of transformers."""
    config = read_object(path)
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or not model_type:
        raise CheckpointError(f"{path} names no model_type. Give a checkpoint saved by transformers.")

    if config.get("auto_map"):
        raise CheckpointError(
            f"{path} asks to run code from the repository (auto_map), which is never done here. "
            "Choose a checkpoint whose architecture transformers knows."
        )
    if config.get("is_encoder_decoder") is True and model_type not in ENCODER_HALVES:
        raise CheckpointError(
            f"{path} describes an encoder-decoder ({model_type}); only encoders give one state a token. "
            "Choose an encoder."
        )

    quantized = config.get("quantization_config")
    if quantized:
        method = quantized.get("quant_method") if isinstance(quantized, dict) else None
        raise CheckpointError(
            f"{path} rounds the weights when they are loaded (quantization_config, {method or 'no method named'}). "
            "Choose the checkpoint without it; if the weights are stored unrounded, take the key out."
        )

    return config


def _width(path: Path, config: Mapping[str, object]) -> int:
    """Return D; some architectures name it differently (DistilBERT: `dim`)."""
    named = (positive_integer(config.get(name)) for name in WIDTHS)
    width = next((width for width in named if width is not None), None)
    if width is None:
        raise CheckpointError(f"{path} gives no hidden_size for {config['model_type']!r}. Correct config.json.")
    return width


def _compare_widths(root: Path, width: int, sentence: SentenceFiles, weights: WeightFiles) -> None:
    if sentence.width is not None and sentence.width != width:
        raise CheckpointError(
            f"{root}: the pooling's config.json says {sentence.width} dimensions, config.json says {width}. "
            "One of them belongs to another model: fetch the checkpoint again."
        )

    # ALBERT and similar models look tokens up in a narrower table and widen the result.
    if weights.embedding is not None and weights.embedding[1][1] > width:
        name, shape = weights.embedding
        raise CheckpointError(
            f"{root}: the tensor {name!r} is {shape[1]} wide, config.json says {width}. "
            "config.json belongs to another model: fetch the checkpoint again."
        )


def _compare_vocabulary(root: Path, tokenizer: TokenizerFiles, weights: WeightFiles) -> None:
    if tokenizer.ids is None or weights.embedding is None:
        return

    name, shape = weights.embedding
    if tokenizer.added is not None and tokenizer.added[1] >= shape[0]:
        token, number = tokenizer.added
        raise CheckpointError(
            f"{root}: the added token {token!r} has the id {number}, but {name!r} has only {shape[0]} rows: a text "
            "with it cannot be embedded. Take the token out of the tokenizer's files, or save the model with "
            "resize_token_embeddings."
        )

    if tokenizer.ids > shape[0]:
        raise CheckpointError(
            f"{root}: the tokenizer has {tokenizer.ids} ids, but {name!r} has only {shape[0]} rows. "
            "The tokenizer belongs to another model: fetch the checkpoint again."
        )


def _vocabulary(root: Path, config: Mapping[str, object]) -> int:
    """Return V, the number of token ids."""
    rows = positive_integer(config.get("vocab_size"))
    if rows is None:
        raise CheckpointError(f"{root / CONFIG} gives no vocab_size. Correct config.json.")
    return rows


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


def _max_tokens(root: Path, config: Mapping[str, object], sentence: SentenceFiles, tokenizer: TokenizerFiles) -> int:
    """Return the longest input as sentence-transformers sets it: its own setting, else the tokenizer's.

    Neither can exceed the number of positions.
    """
    positions = positive_integer(config.get("max_position_embeddings"))
    if positions is not None and config["model_type"] in POSITIONS_AFTER_PADDING:
        padding = config.get("pad_token_id", 1)
        positions -= (padding if isinstance(padding, int) else 1) + 1

    declared = sentence.max_seq_length or tokenizer.max_length
    limits = [limit for limit in (declared, positions) if limit is not None]
    if not limits or min(limits) < 3:
        raise CheckpointError(
            f"{root} declares no usable longest input ({limits or 'none'}). Correct max_position_embeddings in "
            "config.json or model_max_length in tokenizer_config.json."
        )

    return min(limits)


def _shortened(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:100]}… ({len(text)} characters)"


def as_artifacts(
    checkpoint: Checkpoint, precisions: tuple[str, ...] = ("fp32", "fp16", "bf16")
) -> tuple[Artifact, ...]:
    """Return the checkpoint itself as artifacts for the runtime `torch`, one per precision."""
    inputs = ("input_ids", "attention_mask", *(("token_type_ids",) if checkpoint.token_types else ()))

    return tuple(
        Artifact(
            target=Target("checkpoint", precision),
            root=checkpoint.root,
            model=checkpoint.weights[0],
            files=checkpoint.weights,
            digest=checkpoint.digest,
            promise=checkpoint.promise,
            inputs=inputs,
            outputs=checkpoint.promise.outputs or (LAST_HIDDEN_STATE,),
        )
        for precision in precisions
    )
