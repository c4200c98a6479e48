"""Newer encoders and decoders: their own masks, on either side of the padding and beyond every window."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from modern import MAX_TOKENS, MODERN, WINDOW, build_modern

from bge_export.build.recipe import Output, ProofOptions, Recipe, Source
from bge_export.bundle.manifest import read_bundle
from bge_export.checkpoint.model import load_model
from bge_export.checkpoint.opening import open_checkpoint
from bge_export.commands import export
from bge_export.contracts import Target, TokenBatch
from bge_export.parity.measure.metrics import cosines
from bge_export.runtimes import find_runtime
from bge_export.texts.tokens import TextTokenizer

TEXTS = ("hello", "", "the dog sleeps in the garden, and the cat sleeps in the house", "water and bread " * 60)

BY_PLACE = ("electra", "albert")
"""Families whose states depend on the place of a token in its row, so that padding on the left is another input."""

TARGETS = (
    Target("onnx", "fp32"),
    Target("onnx", "fp16"),
    Target("openvino", "fp32"),
    Target("torchscript", "fp32"),
)
RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino", "torchscript": "torchscript"}
LEAST = {"fp32": 0.999999, "fp16": 0.9999}


def left(batch: TokenBatch) -> TokenBatch:
    """Return a batch with its padding on the left."""
    ids, mask = batch.input_ids.copy(), batch.attention_mask.copy()
    for row, length in enumerate(mask.sum(axis=1)):
        ids[row], mask[row] = np.roll(ids[row], -length), np.roll(mask[row], -length)
    return TokenBatch(ids, mask, batch.token_type_ids)


def embedded(states: np.ndarray, mask: np.ndarray, pooling: str) -> np.ndarray:
    """Return the vectors [B, D] of states [B, S, D], of the first token, the mean or the last token of each row."""
    rows = [row[own == 1] for row, own in zip(states, mask, strict=True)]
    pools = {"cls": lambda row: row[0], "mean": lambda row: row.mean(0), "last": lambda row: row[-1]}
    return np.stack([pools[pooling](row) for row in rows])


def run(model: torch.nn.Module, batch: TokenBatch, names: tuple[str, ...]) -> np.ndarray:
    feed: Mapping[str, np.ndarray] = batch.feed(names)
    with torch.inference_mode():
        states = model(**{name: torch.from_numpy(values) for name, values in feed.items()}).last_hidden_state
    return states.numpy()


@pytest.mark.parametrize("name", MODERN)
def test_every_file_gives_the_checkpoints_vectors_on_either_side_of_the_padding(name: str, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(build_modern(name, tmp_path / name))
    done = export(
        Recipe(
            source=Source(model=str(checkpoint.root)),
            targets=TARGETS,
            output=Output(folder=tmp_path / "out"),
            proof=ProofOptions(check=False),
            options={target.format: {"sentence_embedding": True} for target in TARGETS},
        )
    )
    tokenizer = TextTokenizer.load(done.folder, MAX_TOKENS)
    rows = tokenizer.encode(TEXTS)
    assert len(rows[-1]) == MAX_TOKENS > WINDOW < len(rows[-2])

    model, pooling = load_model(checkpoint), MODERN[name].pooling
    inputs = ("input_ids", *(("token_type_ids",) if checkpoint.token_types else ()))
    single = [run(model, tokenizer.pad([row]), inputs)[0] for row in rows]
    alone = np.concatenate(single)
    whole = np.concatenate([embedded(own[None], np.ones((1, len(own))), pooling) for own in single])

    right = tokenizer.pad(rows)
    for artifact in read_bundle(done.folder)[1]:
        least = LEAST[artifact.target.precision]
        session = find_runtime(RUNTIMES[artifact.target.format]).open(artifact, "cpu", 1)
        for batch in (*(tokenizer.pad([row]) for row in rows), right, left(right)):
            given = session.run(batch)
            assert all(np.isfinite(values).all() for values in given.values()), artifact.target

            tokens = given["last_hidden_state"][batch.attention_mask == 1]
            wanted = alone
            if len(batch.input_ids) == 1:
                wanted = run(model, batch, inputs)[0]
            elif batch is not right and name in BY_PLACE:
                wanted = run(model, batch, (*inputs, "attention_mask"))[batch.attention_mask == 1]
            assert cosines(tokens, wanted).min() >= (least if least > 0.9999 else 0.999), artifact.target

            # The first place of a row that is padded on the left is none of its tokens.
            if len(batch.input_ids) > 1 and (batch is right or pooling != "cls") and name not in BY_PLACE:
                assert cosines(given["sentence_embedding"], whole).min() >= least, artifact.target
        session.close()
