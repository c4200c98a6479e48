"""The oracle: embeds texts with the checkpoint itself, in eager torch, float32, one text at a time, without padding.

It shares no code with the artifacts it checks: the tokenizer is transformers' (artifacts use `texts.tokens`), and the
pooling is implemented again here: of a head (`heads.dense`) only the promised fields are read. It is checked against
`parity_fixtures/golden` and against vectors that other projects published.
"""

import platform
from importlib.metadata import version

from bge_export.contracts import Checkpoint
from bge_export.oracle.golden import golden_rows
from bge_export.oracle.padding import refuse_padding
from bge_export.oracle.running import Eager
from bge_export.oracle.stateless import refuse_changed, settings_of
from bge_export.oracle.sweep import batches, sweep_states, token_facts
from bge_export.oracle.vectors import ReferenceVectors
from bge_export.progress import stage
from bge_export.texts.corpus import Corpus

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
    run = Eager.load(checkpoint, threads)
    model, tokenizer = run.model, run.tokenizer
    before = settings_of(model)

    texts = [(text.id, text.text) for text in corpus.texts]
    with stage(f"reference: {checkpoint.source}", len(texts)):
        token_ids, vectors = run.embed(texts)
    golden = golden_rows(run)

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
        spec=checkpoint.spec,
        ids=tuple(text.id for text in corpus.texts),
        token_ids=tuple(token_ids),
        vectors=vectors,
        versions={"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
        kind="checkpoint",
        sweep=sweep,
        golden=golden,
    )
