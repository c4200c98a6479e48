"""Opens a folder or a Hub id as a `Checkpoint`: checks every file, derives the embedding, loads no weights.

`bge_export.checkpoint.model` checks later, when it loads the weights, whether transformers knows `model_type` and
whether tensors are missing or have the wrong shape: a check here would import torch, which takes seconds.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from bge_export.checkpoint import hub
from bge_export.checkpoint.config_file import CONFIG, hidden_size, read_config
from bge_export.checkpoint.consistency import compare_vocabulary, compare_widths, longest_input
from bge_export.checkpoint.declared_sizes import refuse_oversized
from bge_export.checkpoint.head_files import read_token_modules
from bge_export.checkpoint.merging import ADAPTER_FILES, has_adapter, merge
from bge_export.checkpoint.notes import pickle_note, side_note, width_note
from bge_export.checkpoint.other_models import refuse_projection
from bge_export.checkpoint.pooling_files import read_sentence_files
from bge_export.checkpoint.spec import Declared, Wanted, read_spec
from bge_export.checkpoint.static_folder import as_plain_checkpoint
from bge_export.checkpoint.tested import untested_note
from bge_export.checkpoint.tokenizer_files import read_tokenizer_files
from bge_export.checkpoint.unpickling import Unpickled, unpickled
from bge_export.checkpoint.weight_files import read_weight_files
from bge_export.contracts import (
    LAST_HIDDEN_STATE,
    Artifact,
    Checkpoint,
    Pooling,
    Target,
)
from bge_export.errors import CheckpointError, UsageError
from bge_export.files.digest import tree_digest
from bge_export.files.json_files import positive_integer

HUB_ID = re.compile(r"(?!.*(?:--|\.\.))[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?", re.ASCII)


@dataclass(frozen=True)
class _Source:
    """A checkpoint's folder and its name in reports, and what is known of it before it is read."""

    root: Path
    source: str
    revision: str | None
    adapter: str | None = None
    notes: tuple[str, ...] = ()


def open_checkpoint(
    model: str | Path,
    *,
    revision: str | None = None,
    pooling: Pooling | None = None,
    query_prefix: str | None = None,
    dim: int | None = None,
    allow_pickle: bool = False,
) -> Checkpoint:
    """Return the checkpoint in a local folder, or the one with a Hub id if no such path exists.

    Args:
        model: a folder, or a Hub id such as `BAAI/bge-small-en`.
        revision: a branch, tag or commit of the Hub id.
        pooling: the pooling of a checkpoint that declares none; the embedding is then also divided by its norm,
            unless there is a `modules.json` without a Normalize module.
        query_prefix: the instruction before queries of a checkpoint that declares no prompts; "" for none. By default
            the one that its authors publish, if the model is one of theirs (`published`).
        dim: the width of the vectors, for a model whose first components are an embedding by themselves (matryoshka);
            by default what the checkpoint declares (`truncate_dim`), else the whole vector.
        allow_pickle: whether weights may be read from pickles, by a process of their own (`unpickling`).

    Raises:
        CheckpointError: the checkpoint is missing, incomplete, damaged, contradicts itself or is not supported.
        HubError: the Hub is unreachable, refused the request, or returned other bytes than it promised.
        MissingLibrary: a library that reads checkpoints is not installed.
        UsageError: a revision was given for a local folder.
    """
    wanted = Wanted(pooling, query_prefix=query_prefix, dim=dim, allow_pickle=allow_pickle)
    return open_wanted(model, revision, wanted)


def open_encoder(
    model: str | Path,
    *,
    revision: str | None = None,
    pooling: Pooling | None = None,
    query_prefix: str | None = None,
    dim: int | None = None,
    allow_pickle: bool = False,
) -> Checkpoint:
    """Return a checkpoint as an encoder that embeds texts, without another head that it may have.

    `open_checkpoint` makes a reranker of such a checkpoint, or refuses its head by name. Arguments and errors are the
    same.
    """
    wanted = Wanted(pooling, query_prefix=query_prefix, dim=dim, embedding=True, allow_pickle=allow_pickle)
    return open_wanted(model, revision, wanted)


def open_wanted(model: str | Path, revision: str | None, wanted: Wanted) -> Checkpoint:
    """Return a checkpoint as somebody wants it who knows more of it, such as the spec of its folder.

    Errors are those of `open_checkpoint`.
    """
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
    """Return the folder of a checkpoint with its adapter merged, if it has one; of a static model, a plain one."""
    if not has_adapter(found.root):
        plain = as_plain_checkpoint(found.root)
        return found if plain is None else replace(found, root=plain[0], notes=plain[1])

    def base(model: str, revision: str | None) -> tuple[Path, str]:
        located = _locate(model, None if Path(model).is_dir() else revision, pickles=False)
        return located.root, located.source

    merged = merge(found.root, base)
    return replace(found, root=merged.root, adapter=merged.says)


def _read(found: _Source, wanted: Wanted) -> Checkpoint:
    """Read every file that affects the embedding and compare their declarations."""
    given = unpickled(found.root) if wanted.allow_pickle else Unpickled(found.root)
    root = given.root

    # Modules first: without them a folder that needs no config.json would only be called incomplete.
    modules = read_token_modules(root)
    sentence = read_sentence_files(root) if modules is None else modules.sentence
    config = read_config(root / CONFIG)
    tokenizer = read_tokenizer_files(root, sentence.lower_case)
    weights = read_weight_files(root)

    refuse_oversized(root / CONFIG, config, weights.shapes)
    width = hidden_size(root / CONFIG, config)
    refuse_projection(root, weights.shapes, width)
    compare_widths(root, width, sentence, weights)
    compare_vocabulary(root, tokenizer, weights)

    name = found.source if wanted.known_as is None else wanted.known_as
    max_tokens = longest_input(root, config, sentence, tokenizer)
    found_spec = read_spec(Declared(root, name, config, width, max_tokens, sentence, modules, weights), wanted)

    head_files = (name for names in found_spec.head_weights.values() for name in names)
    index = (*((weights.index,) if weights.index else ()), *head_files)
    adapter = tuple(name for name in ADAPTER_FILES if (root / name).is_file())
    token_types = positive_integer(config.get("type_vocab_size")) or 0

    return Checkpoint(
        source=found.source,
        revision=found.revision,
        root=root,
        digest=tree_digest(root, (CONFIG, *weights.weights, *index, *tokenizer.files, *sentence.files, *adapter)),
        model_type=str(config["model_type"]),
        spec=found_spec.spec,
        weights=weights.weights,
        token_types=token_types > 1,
        prompts_from=found_spec.prompts.origin,
        padding_side=tokenizer.padding_side,
        head_weights=found_spec.head_weights,
        pickles=given.pickles,
        adapter=found.adapter,
        notes=(
            *pickle_note(given.pickles),
            *((f"{found.adapter}.",) if found.adapter else ()),
            *found_spec.prompts.notes,
            *side_note(tokenizer.padding_side, found_spec.spec),
            *width_note(found_spec.spec),
            *untested_note(str(config["model_type"])),
            *found.notes,
        ),
    )


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
            spec=checkpoint.spec,
            inputs=inputs,
            outputs=checkpoint.spec.outputs or (LAST_HIDDEN_STATE,),
        )
        for precision in precisions
    )
