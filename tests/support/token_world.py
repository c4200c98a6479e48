"""A world of three heads for the gate: what a checkpoint gives for tokens, and a runtime that is wrong on demand."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from fakes import TABLE, TOKENS, FakeRuntime, FakeTokenizer, Rows, artifact_of, is_swept
from score_world import kept_ids

from bge_export.contracts import (
    COLBERT_VECS,
    DENSE_VECS,
    SPARSE_WEIGHTS,
    Artifact,
    InputSpec,
    ModelSpec,
    Session,
    TokenBatch,
)
from bge_export.heads.dense import DenseHead
from bge_export.heads.multi_vector import MultiVectorHead
from bge_export.heads.sparse import SparseHead
from bge_export.oracle.vectors import ReferenceVectors
from bge_export.parity.gate.limits import Limits, SparseLimits, VectorsLimits
from bge_export.parity.gate.policy import ThresholdPolicy
from bge_export.parity.measure.measurement import FileFacts, Measurement, RuntimeDevice
from bge_export.parity.report import ParityReport
from bge_export.sweep.plan import SweepBatch, plan_positions, plan_rows, plan_sample
from bge_export.sweep.states import Expected, Sweep
from bge_export.texts.corpus import Corpus, Text

WIDTH, VECTOR = 4, 3
SPEC = ModelSpec(
    InputSpec(max_tokens=24, prompts={}),
    {
        "dense": DenseHead(WIDTH, "cls", normalize=True),
        "sparse": SparseHead("token", TOKENS.rows, unused=(0,)),
        "multi_vector": MultiVectorHead(VECTOR, skipped=1),
    },
)
POLICY = ThresholdPolicy(
    (),
    {
        "onnx-fp32": Limits(
            min_cosine=0.999999,
            max_abs=1e-5,
            max_norm_error=1e-5,
            min_batch_cosine=0.999999,
            min_token_cosine=0.999999,
            min_sequence_cosine=0.999999,
        )
    },
    heads={
        "sparse": {
            "onnx-fp32": SparseLimits(
                max_error=1e-4, max_share=1e-4, max_score_error=1e-4, max_batch_share=1e-4, max_sweep_share=1e-4
            )
        },
        "multi_vector": {
            "onnx-fp32": VectorsLimits(
                min_token_cosine=0.999999,
                max_norm_error=1e-5,
                max_sim_error=1e-5,
                min_batch_cosine=0.999999,
                min_sweep_cosine=0.999999,
                min_sequence_cosine=0.999999,
            )
        },
    },
)
CORPUS = Corpus("small.jsonl", tuple(Text(f"t{number}", "x" * number, "a") for number in range(1, 9)))
FACTS = replace(TOKENS, max_tokens=SPEC.inputs.max_tokens)
Fault = Callable[[Mapping[str, Rows], Sequence[tuple[int, ...]]], None]


def unchanged(outputs: Mapping[str, Rows], ids: Sequence[tuple[int, ...]]) -> None:
    """Leave the answers as they should be."""


def unit(seed: Sequence[int], width: int) -> Rows:
    """Return this world's vector of norm 1 for some numbers."""
    drawn = np.random.default_rng(list(seed)).normal(size=width)
    return (drawn / np.linalg.norm(drawn)).astype(np.float32)


def token(number: int) -> Rows:
    """Return what the world's checkpoint gives for a token: a weight between 0.1 and 2, and a vector."""
    weight = np.random.default_rng([7, number]).uniform(0.1, 2.0)
    return np.concatenate([[np.float32(weight)], unit([8, number], VECTOR)]).astype(np.float32)


def tokens(ids: Sequence[int]) -> Rows:
    """Return the same for each token of a text; the first has no vector."""
    found = np.stack([token(one) for one in ids])
    found[0, 1:] = 0.0
    return found


class _Session:
    def __init__(self, fault: Fault, sweep_fault: Fault) -> None:
        self.fault, self.sweep_fault = fault, sweep_fault
        self.facts = {"fake": "1"}

    def run(self, batch: TokenBatch) -> dict[str, Rows]:
        kept, (rows, length) = kept_ids(batch), batch.input_ids.shape
        answers = np.stack([[token(int(one)) for one in row] for row in batch.input_ids])
        outputs = {
            DENSE_VECS: np.stack([unit([9, *ids], WIDTH) for ids in kept]),
            SPARSE_WEIGHTS: answers[:, :, 0].copy(),
            COLBERT_VECS: answers[:, 1:, 1:].copy().reshape(rows, length - 1, VECTOR),
        }
        (self.sweep_fault if is_swept(kept) else self.fault)(outputs, kept)
        return outputs

    def close(self) -> None:
        """Hold nothing."""


class TokenRuntime(FakeRuntime):
    """Gives the checkpoint's answers, changed by its faults."""

    def open(self, artifact: Artifact, device: str, threads: int) -> Session:
        return _Session(self.fault, self.sweep_fault)  # type: ignore[arg-type]


def _expected(batch: SweepBatch) -> Expected:
    found = np.stack([[token(int(one)) for one in row] for row in batch.tokens.input_ids])
    found[:, 0, 1:] = 0.0
    return Expected(found[batch.judged], np.stack([unit([9, *ids], WIDTH) for ids in kept_ids(batch.tokens)]))


def token_report(fault: Fault = unchanged, *, sweep_fault: Fault = unchanged) -> ParityReport:
    """Return the report on a file whose answers are changed by `fault`, and in the sweep by `sweep_fault`."""
    rows = FakeTokenizer(SPEC.inputs.max_tokens).encode([one.text for one in CORPUS.texts])
    reference = ReferenceVectors(
        source="fake/m3",
        revision="abc",
        checkpoint_digest="c" * 64,
        texts_digest=CORPUS.digest,
        spec=SPEC,
        ids=tuple(one.id for one in CORPUS.texts),
        token_ids=tuple(map(tuple, rows)),
        vectors={"cls": np.stack([unit([9, *ids], WIDTH) for ids in rows])},
        versions={"torch": "2"},
        kind="checkpoint",
        sweep=Sweep(
            FACTS,
            tuple(map(_expected, plan_sample(FACTS))),
            tuple(map(_expected, plan_rows(FACTS))),
            read_positions=lambda: tuple(map(_expected, plan_positions(FACTS))),
        ),
        tokens=np.concatenate([tokens(ids) for ids in rows]),
    )

    artifact = replace(artifact_of(), spec=SPEC, outputs=SPEC.outputs)
    device = RuntimeDevice(TokenRuntime(fault, sweep_fault=sweep_fault), "cpu", requested=True)
    measurement = Measurement(CORPUS, reference, 1, load_tokenizer=lambda _, most: FakeTokenizer(most))
    facts = {artifact.digest: FileFacts(operators=("ai.onnx:MatMul",), table=TABLE)}
    return measurement.report([artifact], [device], other_token_ids=(), facts=facts)


def changing(output: str, change: Callable[[Rows], None], *, in_batches: bool = False) -> Fault:
    """Return a fault that changes one output, everywhere or only in batches of several texts."""

    def fault(outputs: Mapping[str, Rows], ids: Sequence[tuple[int, ...]]) -> None:
        if not in_batches or len(ids) > 1:
            change(outputs[output])

    return fault
