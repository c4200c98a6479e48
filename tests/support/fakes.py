"""A runtime that is right, or wrong on demand, and the small world it lives in: nothing is run, nothing is fetched.

A token row decides its embedding (seeded by its ids), so the oracle's vectors are known without a model.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from model_files import graph_of, write_onnx
from numpy.typing import NDArray

from bge_export.contracts import (
    LAST_HIDDEN_STATE,
    SENTENCE_EMBEDDING,
    Artifact,
    InputSpec,
    ModelSpec,
    Session,
    Target,
    TokenBatch,
)
from bge_export.files.spec import SpecRecord
from bge_export.heads.dense import DenseHead
from bge_export.oracle.vectors import ReferenceVectors
from bge_export.parity.gate.limits import Limits
from bge_export.parity.gate.policy import Requirement, ThresholdPolicy
from bge_export.parity.measure.measurement import FileFacts, Measurement, RuntimeDevice
from bge_export.parity.report import PairsRecord, ParityReport, TableRecord
from bge_export.precision import model_files
from bge_export.saturation import PairFacts
from bge_export.sweep.plan import SweepBatch, TokenFacts, plan_positions, plan_rows, plan_sample
from bge_export.sweep.states import Expected, Sweep
from bge_export.texts.corpus import Corpus, Text

Rows = NDArray[np.float32]
Fault = Callable[[Rows, Sequence[tuple[int, ...]]], object]

HEAD = DenseHead(dim=8, pooling="cls", normalize=True)
SPEC = ModelSpec(InputSpec(max_tokens=16, prompts={}), {"dense": HEAD})
LIMITS = Limits(
    min_cosine=0.999999,
    max_abs=1e-5,
    max_norm_error=1e-5,
    min_batch_cosine=0.999999,
    min_token_cosine=0.999999,
    min_sequence_cosine=0.999999,
)
POLICY = ThresholdPolicy((), {"onnx-fp32": LIMITS, "onnx-fp16": LIMITS})
ROUNDED = Limits(
    min_cosine=0.998,
    min_stress_cosine=0.985,
    max_norm_error=1e-5,
    max_raw_norm_error=0.05,
    max_norm_shift=5e-3,
    min_batch_cosine=0.999,
    min_token_cosine=0.9,
    min_sequence_cosine=0.99,
)
"""Limits of rounded weights, one for each kind of text."""
FOLDER = TemporaryDirectory()
"""The bundle of this world. Its files hold what their precisions must hold; nothing runs them."""

LANE = "onnx-fp32@fake:cpu sentence_embedding"


TOKENS = TokenFacts(rows=12, token_types=0, prefix=(2,), suffix=(3,), pad=0, max_tokens=SPEC.inputs.max_tokens)
"""The sweep's ids, none of which a text has: characters begin at 42."""

TABLE = TableRecord(rows=TOKENS.rows, unread=None, worst=0.6, token=1)
"""A right token table."""


def truth(ids: Sequence[int], pooling: str = "cls") -> Rows:
    """Return the unit vector [D] of a token row: what this world's checkpoint says."""
    pooled = {"cls": 1, "mean": 2, "last": 3}[pooling]
    vector = np.random.default_rng([pooled, *ids]).standard_normal(HEAD.dim)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


class FakeTokenizer:
    """Ids are 2, the characters' code points, 3; `shift` makes it another checkpoint's.

    It knows no Chinese: characters from `first_unknown` on count as unknown, though their vectors are told apart.
    """

    def __init__(self, max_tokens: int, shift: int = 0, first_unknown: int = 0x4E00) -> None:
        self.max_tokens, self.shift, self.first_unknown = max_tokens, shift, first_unknown

    def encode(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        return [(2, *(ord(c) + 10 + self.shift for c in text[: self.max_tokens - 2]), 3) for text in texts]

    def pad(self, rows: Sequence[Sequence[int]], length: int | None = None) -> TokenBatch:
        width = max([length or 0, *map(len, rows)])
        ids = np.zeros((len(rows), width), dtype=np.int64)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = row
        return TokenBatch(ids, (ids > 0).astype(np.int64), np.zeros_like(ids))

    def unknown_share(self, texts: Sequence[str]) -> float:
        characters = "".join(texts)
        return sum(ord(c) >= self.first_unknown for c in characters) / max(1, len(characters))


def load_tokenizer(_folder: Path, max_tokens: int) -> FakeTokenizer:
    return FakeTokenizer(max_tokens)


def load_other_tokenizer(_folder: Path, max_tokens: int) -> FakeTokenizer:
    return FakeTokenizer(max_tokens, shift=1)


def load_chinese_tokenizer(_folder: Path, max_tokens: int) -> FakeTokenizer:
    return FakeTokenizer(max_tokens, first_unknown=0x110000)


@dataclass
class FakeSession:
    runtime: "FakeRuntime"
    artifact: Artifact
    facts: Mapping[str, str] = field(default_factory=lambda: {"fake": "1"})
    closed: bool = False

    def run(self, batch: TokenBatch) -> Mapping[str, Rows]:
        kept, rows = right_rows(batch)
        if is_swept(kept):
            wrong = self.runtime.sweep_fault(rows, kept)
        else:
            self.runtime.shapes.append(batch.input_ids.shape)
            wrong = self.runtime.fault(rows, kept)
        if isinstance(wrong, Mapping):
            return wrong
        given = rows if wrong is None else wrong
        return {
            output: given if output == SENTENCE_EMBEDDING else states_of(given, batch)
            for output in self.artifact.outputs
        }

    def close(self) -> None:
        self.closed = True


def states_of(rows: Rows, batch: TokenBatch) -> Rows:
    """Return token states [B, S, D] that every pooling makes the rows of."""
    return np.repeat(rows[:, None], batch.input_ids.shape[1], axis=1)


def right_rows(batch: TokenBatch) -> tuple[list[tuple[int, ...]], Rows]:
    """Return the ids of each sequence that the mask keeps, and their vectors."""
    pairs = zip(batch.input_ids, batch.attention_mask, strict=True)
    kept = [tuple(row[mask == 1].tolist()) for row, mask in pairs]
    return kept, np.stack([truth(ids) for ids in kept])


def is_swept(kept: Sequence[tuple[int, ...]]) -> bool:
    """Return whether a batch is of the sweep of token ids, not of texts: the empty text has its ids too."""
    return max(map(max, kept)) < TOKENS.rows and max(map(len, kept)) > 2


def sweep_of(*, rows: bool = True, facts: TokenFacts = TOKENS) -> Sweep:
    """Return what this world's checkpoint says of the whole plan, or of its sample alone."""
    sample, swept = plan_sample(facts), plan_rows(facts) if rows else ()
    shown = tuple(map(_expected, plan_positions(facts)))
    return Sweep(
        facts,
        tuple(map(_expected, sample)),
        tuple(map(_expected, swept)),
        read_positions=(lambda: shown) if rows else None,
    )


def _expected(batch: SweepBatch) -> Expected:
    _, rows = right_rows(batch.tokens)
    return Expected(states_of(rows, batch.tokens)[batch.judged], rows)


def right(rows: Rows, ids: Sequence[tuple[int, ...]]) -> None:
    """Leave the rows as they should be."""


@dataclass
class FakeRuntime:
    """A runtime whose `fault` may change, replace or refuse each batch of right rows; `opening` is raised by `open`.

    `sweep_fault` does the same to the batches of the sweep of token ids.
    """

    fault: Fault = right
    opening: Exception | None = None
    name: str = "fake"
    formats: frozenset[str] = frozenset({"onnx"})
    known: tuple[str, ...] = ("cpu",)
    library: str = "numpy"
    extra: str = "fake"
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    sessions: list[FakeSession] = field(default_factory=list)
    sweep_fault: Fault = right

    def devices(self) -> Mapping[str, str | None]:
        return {"cpu": None}

    def open(self, artifact: Artifact, device: str, threads: int) -> Session:
        if self.opening is not None:
            raise self.opening
        self.sessions.append(FakeSession(self, artifact))
        return self.sessions[-1]


def on_text(text: str, change: Callable[[Rows], object]) -> Fault:
    """Return a fault that changes the row [D] of one text, wherever it is embedded."""
    (wanted,) = FakeTokenizer(SPEC.inputs.max_tokens).encode([text])

    def fault(rows: Rows, ids: Sequence[tuple[int, ...]]) -> None:
        for row, own in zip(rows, ids, strict=True):
            if own == wanted:
                change(row)

    return fault


def turned(cosine: float) -> Callable[[Rows], None]:
    """Return a change that turns a unit row so far that its cosine with what it was is that one."""

    def change(row: Rows) -> None:
        across = np.zeros(HEAD.dim)
        across[np.argmin(np.abs(row))] = 1
        across -= row * (across @ row)
        row[:] = cosine * row + (1 - cosine**2) ** 0.5 * across / np.linalg.norm(across)

    return change


def longer(factor: float) -> Callable[[Rows], None]:
    """Return a change that makes a row longer by a factor."""

    def change(row: Rows) -> None:
        row *= np.float32(factor)

    return change


def setting(value: float | Rows) -> Callable[[Rows], None]:
    """Return a change that sets a row."""

    def change(row: Rows) -> None:
        row[:] = value

    return change


def swapped(one: str, other: str) -> Fault:
    """Return a fault that gives two texts each other's vector."""
    a, b = FakeTokenizer(SPEC.inputs.max_tokens).encode([one, other])
    first, second = on_text(one, setting(truth(b))), on_text(other, setting(truth(a)))

    def fault(rows: Rows, ids: Sequence[tuple[int, ...]]) -> None:
        first(rows, ids)
        second(rows, ids)

    return fault


def mean_pooled(rows: Rows, ids: Sequence[tuple[int, ...]]) -> Rows:
    return np.stack([truth(own, "mean") for own in ids])


def unnormalised(rows: Rows, ids: Sequence[tuple[int, ...]]) -> Rows:
    return rows * np.float32(3)


def only_in_batches(change: Fault) -> Fault:
    """Return a fault that shows only where a text is not alone."""

    def fault(rows: Rows, ids: Sequence[tuple[int, ...]]) -> object:
        return change(rows, ids) if len(rows) > 1 else None

    return fault


def drifting(rows: Rows, ids: Sequence[tuple[int, ...]]) -> None:
    rows += np.linspace(-0.01, 0.01, rows.shape[1], dtype=np.float32)


def crashing(rows: Rows, ids: Sequence[tuple[int, ...]]) -> None:
    raise OSError("non-zero status code returned while running Add node")


def small_corpus(count: int = 20) -> Corpus:
    """Return texts of different lengths whose ids are `t0`, `t1`, …"""
    return Corpus("small.txt", tuple(Text(f"t{n}", f"{n} {'x' * (n % 11)}", ("a", "b")[n % 2]) for n in range(count)))


SWEEP = sweep_of()


def reference_of(corpus: Corpus) -> ReferenceVectors:
    token_ids = tuple(FakeTokenizer(SPEC.inputs.max_tokens).encode([text.text for text in corpus.texts]))
    empty = np.zeros((0, HEAD.dim), dtype=np.float32)
    return ReferenceVectors(
        source="fake/checkpoint", revision="abc", checkpoint_digest="c" * 64, texts_digest=corpus.digest,
        spec=SPEC, ids=tuple(text.id for text in corpus.texts), token_ids=token_ids,
        vectors={
            name: np.stack([truth(ids, name) for ids in token_ids]) if token_ids else empty
            for name in ("cls", "mean", "last")
        },
        versions={"torch": "2"}, kind="checkpoint", sweep=SWEEP,
    )  # fmt: skip


def promising(spec: SpecRecord, **changes: object) -> SpecRecord:
    """Return a promise with other fields of its dense head."""
    dense = spec.dense.model_copy(update=changes)
    return spec.model_copy(update={"heads": spec.heads.model_copy(update={"dense": dense})})


def artifact_of(precision: str = "fp32", *, digest: str = "a" * 64, both: bool = False) -> Artifact:
    outputs = (LAST_HIDDEN_STATE, SENTENCE_EMBEDDING) if both else (SENTENCE_EMBEDDING,)
    model = model_files().get(f"onnx-{precision}", f"onnx/model_{precision}.onnx")
    if not (Path(FOLDER.name) / model).exists():
        write_onnx(Path(FOLDER.name) / model, *graph_of(precision))

    return Artifact(
        target=Target("onnx", precision), root=Path(FOLDER.name), model=model, files=(model,),
        digest=digest, spec=SPEC, inputs=("input_ids", "attention_mask"), outputs=outputs,
    )  # fmt: skip


def report_of(
    fault: Fault = right,
    corpus: Corpus | None = None,
    *,
    opening: Exception | None = None,
    artifacts: Sequence[Artifact] | None = None,
    requested: bool = True,
    tokenizer: Callable[[Path, int], FakeTokenizer] = load_tokenizer,
    formats: frozenset[str] = frozenset({"onnx"}),
    pairs: Mapping[str, PairFacts] | None = None,
    operators: tuple[str, ...] = ("MatMul",),
    sweep_fault: Fault = right,
    table: TableRecord | None = TABLE,
) -> ParityReport:
    """Measure artifacts of this world, with these operators, in a runtime with a fault.

    `pairs`: what is known of their weights, by digest.
    """
    texts = small_corpus() if corpus is None else corpus
    device = RuntimeDevice(FakeRuntime(fault, opening, formats=formats, sweep_fault=sweep_fault), "cpu", requested)
    measurement = Measurement(texts, reference_of(texts), 1, tokenizer)
    measured = [artifact_of()] if artifacts is None else artifacts
    known = {digest: PairsRecord.of(facts) for digest, facts in (pairs or {}).items()}
    facts = {one.digest: FileFacts(known.get(one.digest), operators, table) for one in measured}
    return measurement.report(measured, [device], facts=facts)


def requiring(*names: str) -> ThresholdPolicy:
    return ThresholdPolicy(tuple(map(Requirement.parse, names)), POLICY.tables)
