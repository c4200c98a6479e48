"""How good a variant of a quantized encoder is, on probes, measured as the file that it would be.

Each variant is run in the runtime that it is arranged for, against the float32 graph: in seconds, where parity takes
more than a minute.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray

from bge_export.contracts import EmbeddingSpec, TokenBatch
from bge_export.encoder.encoder import Floats
from bge_export.precision.int8.round.quantized import QuantizedEncoder
from bge_export.precision.int8.search.perturbation import trembling, tremors
from bge_export.precision.int8.search.probes import Probes, Row
from bge_export.precision.int8.search.running import NOTHING, States, open_graph
from bge_export.precision.int8.write.arrange import Arrangement, arrange

TIMED_TOKENS, TIMED_RUNS = 64, 15
"""How long the text is that is timed, or as long as the longest probe, and how often it is run."""

DRAWS = 6
"""How often a variant is perturbed, see `perturbation`."""

SUSPECTS = 24
"""How many probes of each kind are looked at under perturbation: those of the smallest cosine. Others have room."""


@dataclass(frozen=True)
class Figures:
    """What probes say of a variant; NaN where an embedding is not finite.

    Attributes:
        smallest, mean: cosine with float32 of the everyday probes.
        smallest_stress: of the stress probes.
        milliseconds: median time of one text of `TIMED_TOKENS` tokens, one thread, on this machine.
        size_bytes: of the file.
    """

    smallest: float
    mean: float
    smallest_stress: float
    milliseconds: float
    size_bytes: int

    @property
    def finite(self) -> bool:
        """Return whether every embedding was finite."""
        return all(map(math.isfinite, (self.smallest, self.mean, self.smallest_stress)))


@dataclass(frozen=True)
class Tried:
    """A variant that was run on the probes: its figures, and the cosine of each probe, [N] float64."""

    figures: Figures
    cosines: NDArray[np.float64]


@dataclass(frozen=True)
class Step:
    """One variant of a search.

    Attributes:
        precise, finer: quantization points whose activations, and whose weights, are in two parts.
        widening: of all grids.
        predicted: 1 - cosine that rounding is predicted to cost, mean over the calibration texts.
        figures: what the probes said.
    """

    precise: int
    finer: int
    widening: float
    predicted: float
    figures: Figures

    def record(self) -> dict[str, float]:
        """Return the step for a manifest."""
        own = asdict(self)
        figures: dict[str, float] = own.pop("figures")
        return own | figures


@dataclass(frozen=True)
class Judge:
    """Probes with their embeddings in float32.

    Attributes:
        rows: token ids of each probe.
        stress: which of them are stress probes, [N] bool.
        pad: makes a batch of rows.
        spec: how states are pooled.
        expected: unit embeddings, [N, D] float64.
        arrangement: of the graphs that are judged; float32 is run in ONNX Runtime.
    """

    rows: Sequence[Row]
    stress: NDArray[np.bool_]
    pad: Callable[[Sequence[Sequence[int]]], TokenBatch]
    spec: EmbeddingSpec
    expected: NDArray[np.float64]
    arrangement: Arrangement

    @classmethod
    def of(
        cls,
        model: onnx.ModelProto,
        probes: Probes,
        pad: Callable[[Sequence[Sequence[int]]], TokenBatch],
        spec: EmbeddingSpec,
        arrangement: Arrangement,
    ) -> "Judge":
        """Embed the probes with the float32 graph."""
        rows = (*probes.everyday, *probes.stress)
        stress = np.arange(len(rows)) >= len(probes.everyday)
        empty = cls(rows, stress, pad, spec, np.zeros((0, 0)), arrangement)
        return replace(empty, expected=empty.embed(open_graph(model, "sequence-major"), range(len(rows))))

    def tried(self, encoder: QuantizedEncoder, *, cls_only: bool, again: Callable[[Figures], bool]) -> Tried:
        """Run a variant on the probes.

        Args:
            encoder: the variant.
            cls_only: whether its graph returns the first token's state alone.
            again: whether figures are good enough to look again under perturbation, which may lower them.
        """
        model, widths = trembling(arrange(encoder, self.arrangement, cls_only=cls_only))
        run = open_graph(model, self.arrangement)
        still, *moved = tremors(widths, DRAWS)
        everything = range(len(self.rows))
        cosines = self._compared(self.embed(run, everything, still), everything)
        found = self._figures(cosines, self._milliseconds(run, still), model.ByteSize())
        if not again(found):
            return Tried(found, cosines)

        order = np.argsort(cosines)
        worst = (order[self.stress[order] == kind][:SUSPECTS] for kind in (False, True))
        suspects = np.concatenate(list(worst)).tolist()
        for tremor in moved:
            moved_by = self._compared(self.embed(run, suspects, tremor), suspects)
            cosines[suspects] = np.minimum(cosines[suspects], moved_by)
        return Tried(self._figures(cosines, found.milliseconds, found.size_bytes), cosines)

    def embed(self, run: States, which: Sequence[int], more: Mapping[str, Floats] = NOTHING) -> NDArray[np.float64]:
        """Return unit embeddings [n, D] of some probes, one at a time; `more` has the graph's inputs beside tokens."""
        found = []
        for place in which:
            states = run(self.pad([self.rows[place]]), more)[0].astype(np.float64)
            pooled = {"cls": states[0], "mean": states.mean(0), "last": states[-1]}[self.spec.pooling]
            found.append(pooled / np.linalg.norm(pooled))
        return np.stack(found)

    def _compared(self, embeddings: NDArray[np.float64], which: Sequence[int]) -> NDArray[np.float64]:
        cosines: NDArray[np.float64] = (embeddings * self.expected[list(which)]).sum(1)
        return cosines

    def _figures(self, cosines: NDArray[np.float64], milliseconds: float, size: int) -> Figures:
        everyday, stress = cosines[~self.stress], cosines[self.stress]
        return Figures(float(everyday.min()), float(everyday.mean()), float(stress.min()), milliseconds, size)

    def _milliseconds(self, run: States, more: Mapping[str, Floats]) -> float:
        longest = max(self.rows, key=len)
        timed = self.pad([longest[:TIMED_TOKENS]])
        times = []
        for _ in range(TIMED_RUNS):
            start = time.perf_counter()
            run(timed, more)
            times.append(time.perf_counter() - start)
        return float(np.median(times)) * 1000
