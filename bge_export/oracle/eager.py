"""The oracle: embeds texts with the checkpoint itself, in eager torch, float32, one text at a time, without padding.

It shares no code with the artifacts it checks: the tokenizer is transformers' (artifacts use `texts.tokens`), and the
pooling is implemented again here: of a head (`heads.dense`) only the promised fields are read. It is checked against
`parity_fixtures/golden` and against vectors that other projects published.
"""

import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bge_export.checkpoint.model import first_line, load_model
from bge_export.contracts import Checkpoint
from bge_export.errors import CheckpointError, MissingLibrary
from bge_export.files.panics import panics_as_errors
from bge_export.heads.dense import dense_head
from bge_export.oracle.padding import refuse_padding
from bge_export.oracle.stateless import refuse_changed, settings_of
from bge_export.oracle.sweep import batches, sweep_states, token_facts
from bge_export.oracle.vectors import ReferenceVectors
from bge_export.progress import advance, stage
from bge_export.texts.corpus import Corpus

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "numpy")


def embed_texts(checkpoint: Checkpoint, corpus: Corpus, *, threads: int, every_id: bool = True) -> ReferenceVectors:
    """Return the reference vectors of a corpus, and the states of a sweep of token ids (`sweep.plan`).

    Progress is shown in two stages, of texts and of batches.

    Args:
        checkpoint: the model; its weights are loaded here.
        corpus: N texts.
        threads: the number of torch's threads.
        every_id: sweep every token id; else the sample alone, which is all that a file of vectors holds.

    Raises:
        CheckpointError: weights or tokenizer cannot be loaded.
        MissingLibrary: torch or transformers is not installed.
    """
    try:
        import torch
        from transformers import AutoTokenizer
    except ImportError as error:
        raise MissingLibrary("torch and transformers", "export", "the oracle") from error

    torch.set_num_threads(threads)

    try:
        with panics_as_errors():
            tokenizer = AutoTokenizer.from_pretrained(checkpoint.root, trust_remote_code=False, local_files_only=True)
    except Exception as error:
        raise CheckpointError(f"{checkpoint.source}: transformers cannot load its tokenizer: {error}") from error

    model = load_model(checkpoint)
    before = settings_of(model)
    names = ("input_ids", "token_type_ids") if checkpoint.token_types else ("input_ids",)

    normalized = dense_head(checkpoint.promise).normalize

    token_ids: list[tuple[int, ...]] = []
    rows: dict[str, list[NDArray[np.float32]]] = {"cls": [], "mean": [], "last": []}

    with stage(f"reference: {checkpoint.source}", len(corpus.texts)), torch.inference_mode():
        for text in corpus.texts:
            tokens = _tokens(tokenizer, text.text, checkpoint)
            states = _states(model, {name: tokens[name] for name in names}, checkpoint, text.id)

            # Without padding, the mean over all states and the last state need no attention mask.
            for pooling, vector in (("cls", states[0]), ("mean", states.mean(0)), ("last", states[-1])):
                unit = vector / torch.linalg.vector_norm(vector) if normalized else vector
                rows[pooling].append(unit.numpy())

            token_ids.append(tuple(tokens["input_ids"][0].tolist()))
            advance()

    facts = token_facts(checkpoint, model, tokenizer)
    label = "every token id" if every_id else "a sample of token ids"
    with stage(f"reference: {label}", batches(facts, every_id=every_id)):
        sweep = sweep_states(checkpoint, model, facts, every_id=every_id)

    refuse_changed(checkpoint.source, before, settings_of(model))
    refuse_padding(checkpoint, model, token_ids, tokenizer.pad_token_id or 0)
    return ReferenceVectors(
        source=checkpoint.source,
        revision=checkpoint.revision,
        checkpoint_digest=checkpoint.digest,
        texts_digest=corpus.digest,
        promise=checkpoint.promise,
        ids=tuple(text.id for text in corpus.texts),
        token_ids=tuple(token_ids),
        vectors={name: np.stack(vectors) for name, vectors in rows.items()},
        versions={"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
        kind="checkpoint",
        sweep=sweep,
    )


def _states(
    model: "PreTrainedModel", tokens: "Mapping[str, torch.Tensor]", checkpoint: Checkpoint, text_id: str
) -> "torch.Tensor":
    """Return the token states of one text, [S, D] float32.

    Raises:
        CheckpointError: the model fails.
    """
    try:
        states: torch.Tensor = model(**tokens).last_hidden_state[0]
    except Exception as error:  # every architecture raises kinds of its own
        raise CheckpointError(
            f"{checkpoint.source}: the model fails on the text {text_id[:40]!r} of {tokens['input_ids'].shape[1]} "
            f"tokens: {first_line(error)}. Choose another checkpoint, or correct config.json."
        ) from error

    return states


def _tokens(tokenizer: "PreTrainedTokenizerBase", text: str, checkpoint: Checkpoint) -> "Mapping[str, torch.Tensor]":
    """Return the tokens of one text, [1, S] int64 each.

    Raises:
        CheckpointError: the tokenizer fails.
    """
    try:
        with panics_as_errors():
            tokens: Mapping[str, torch.Tensor] = tokenizer(
                text,
                truncation=True,
                max_length=checkpoint.promise.reads.max_tokens,
                return_tensors="pt",
                return_token_type_ids=checkpoint.token_types,
            )
    except Exception as error:
        raise CheckpointError(
            f"{checkpoint.source}: its tokenizer fails on a text: {error}. Fetch its files again."
        ) from error

    return tokens
