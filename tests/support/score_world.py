"""A world of pairs for the gate: a checkpoint's logits, a runtime that is right or wrong on demand; nothing is run."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from fakes import TABLE, TOKENS, FakeRuntime, FakeTokenizer, Rows, artifact_of, is_swept

from bge_export.contracts import LOGITS, Artifact, InputSpec, ModelSpec, Session, TokenBatch
from bge_export.heads.score import ScoreHead
from bge_export.oracle.vectors import SCORES, ReferenceVectors
from bge_export.parity.gate.limits import ScoreLimits
from bge_export.parity.gate.policy import ThresholdPolicy
from bge_export.parity.measure.measurement import FileFacts, Measurement, RuntimeDevice
from bge_export.parity.report import ParityReport
from bge_export.sweep.plan import SweepBatch, plan_positions, plan_rows, plan_sample
from bge_export.sweep.states import Expected, Sweep
from bge_export.texts.corpus import Corpus, Text
from bge_export.texts.tokens import PairRow

SPEC = ModelSpec(InputSpec(max_tokens=24, prompts={}), {"score": ScoreHead()})
LIMITS = ScoreLimits(
    max_error=1e-4,
    max_share=1e-4,
    max_batch_share=1e-4,
    max_sweep_share=1e-4,
    tied_share=0.01,
    min_tau=1.0,
    min_top=1.0,
)
POLICY = ThresholdPolicy((), {}, scores={"onnx-fp32": LIMITS})
LANE = "onnx-fp32@fake:cpu logits"

PAIRS = Corpus(
    "small.jsonl",
    tuple(
        Text(f"q{query}-{number}", "x" * number, "a", query="?" * query)
        for query in (1, 2, 3)
        for number in range(1, 6)
    ),
)
FACTS = replace(TOKENS, max_tokens=SPEC.inputs.max_tokens)
Change = Callable[[Rows, Sequence[tuple[int, ...]]], None]


def logit(ids: Sequence[int]) -> float:
    """Return what this world's checkpoint says of a row of tokens: between -8 and 8, no two alike."""
    return float(np.float32(np.random.default_rng(list(ids)).uniform(-8, 8)))


class PairTokenizer(FakeTokenizer):
    """Puts a 1 between both sides; tokens of the second are of type 1."""

    def encode_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[PairRow]:
        found = []
        for pair in pairs:
            (one,), (two,) = (super(PairTokenizer, self).encode([side]) for side in pair)
            found.append(PairRow.of((*one[:-1], 1, *two[1:]), (0,) * len(one) + (1,) * (len(two) - 1)))
        return found


def load_pairs(_folder: Path, max_tokens: int) -> PairTokenizer:
    return PairTokenizer(max_tokens)


def unchanged(logits: Rows, ids: Sequence[tuple[int, ...]]) -> None:
    """Leave the logits as they should be."""


class _ScoreSession:
    def __init__(self, fault: Change, sweep_fault: Change) -> None:
        self.fault, self.sweep_fault = fault, sweep_fault
        self.facts = {"fake": "1"}

    def run(self, batch: TokenBatch) -> dict[str, Rows]:
        kept = kept_ids(batch)
        logits = np.array([[logit(ids)] for ids in kept], dtype=np.float32)
        (self.sweep_fault if is_swept(kept) else self.fault)(logits, kept)
        return {LOGITS: logits}

    def close(self) -> None:
        """Hold nothing."""


class ScoreRuntime(FakeRuntime):
    """Gives the checkpoint's logits, changed by its faults."""

    def open(self, artifact: Artifact, device: str, threads: int) -> Session:
        return _ScoreSession(self.fault, self.sweep_fault)  # type: ignore[arg-type]


def kept_ids(batch: TokenBatch) -> list[tuple[int, ...]]:
    """Return the ids of each sequence that the mask keeps."""
    rows = zip(batch.input_ids, batch.attention_mask, strict=True)
    return [tuple(row[mask == 1].tolist()) for row, mask in rows]


def _expected(batch: SweepBatch) -> Expected:
    logits = np.array([[logit(ids)] for ids in kept_ids(batch.tokens)], dtype=np.float32)
    return Expected(np.zeros((int(batch.judged.sum()), 0), dtype=np.float32), logits)


def reference_of(corpus: Corpus = PAIRS) -> ReferenceVectors:
    rows = PairTokenizer(SPEC.inputs.max_tokens).encode_pairs([(one.query or "", one.text) for one in corpus.texts])
    return ReferenceVectors(
        source="fake/reranker",
        revision="abc",
        checkpoint_digest="c" * 64,
        texts_digest=corpus.digest,
        spec=SPEC,
        ids=tuple(one.id for one in corpus.texts),
        token_ids=tuple(map(tuple, rows)),
        token_types=tuple(row.types for row in rows),
        vectors={SCORES: np.array([[logit(row)] for row in rows], dtype=np.float32)},
        versions={"torch": "2"},
        kind="checkpoint",
        sweep=Sweep(
            FACTS,
            tuple(map(_expected, plan_sample(FACTS))),
            tuple(map(_expected, plan_rows(FACTS))),
            read_positions=lambda: tuple(map(_expected, plan_positions(FACTS))),
        ),
    )


def score_report(fault: Change = unchanged, *, sweep_fault: Change = unchanged, corpus: Corpus = PAIRS) -> ParityReport:
    """Return the report on a file whose logits are changed by `fault`, and in the sweep by `sweep_fault`."""
    artifact = replace(artifact_of(), spec=SPEC, outputs=(LOGITS,))
    device = RuntimeDevice(ScoreRuntime(fault, sweep_fault=sweep_fault), "cpu", requested=True)
    measurement = Measurement(corpus, reference_of(corpus), 1, load_tokenizer=load_pairs)
    facts = {artifact.digest: FileFacts(operators=("ai.onnx:MatMul",), table=TABLE)}
    return measurement.report([artifact], [device], other_token_ids=(), facts=facts)


def on_pair(name: str, change: Callable[[float], float], corpus: Corpus = PAIRS) -> Change:
    """Return a fault that changes the logit of one pair, wherever it is scored."""
    pair = next(one for one in corpus.texts if one.id == name)
    (wanted,) = PairTokenizer(SPEC.inputs.max_tokens).encode_pairs([(pair.query or "", pair.text)])

    def fault(logits: Rows, ids: Sequence[tuple[int, ...]]) -> None:
        for row, own in enumerate(ids):
            if own == tuple(wanted):
                logits[row, 0] = change(float(logits[row, 0]))

    return fault
