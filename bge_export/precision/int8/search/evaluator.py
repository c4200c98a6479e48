"""Measures the accuracy of a variant of a quantized encoder on probes, as the file that it would become.

Each variant is run in the runtime that it is arranged for and compared with the float32 graph. That takes seconds,
while parity takes more than a minute.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray

from bge_export.calibration.objective import Objective, output_of, unit_row
from bge_export.contracts import TokenBatch
from bge_export.encoder.encoder import Floats
from bge_export.precision.int8.round.quantized import QuantizedEncoder
from bge_export.precision.int8.search.perturbation import perturbable, perturbations
from bge_export.precision.int8.search.probes import Probes, Row
from bge_export.precision.int8.search.running import NOTHING, States, open_graph
from bge_export.precision.int8.write.arrange import Arrangement, arrange

TIMED_TOKENS, TIMED_RUNS = 64, 15
"""Length of the timed text (at most that of the longest probe), and number of runs."""

DRAWS = 6
"""Number of perturbations of a variant; see `perturbation`."""

SUSPECTS = 24
"""Number of probes of each kind that are perturbed: those with the smallest cosine. The others have room."""


@dataclass(frozen=True)
class Figures:
    """Results of a variant on the probes; NaN if an embedding is not finite.

    Attributes:
        smallest, mean: cosine of the everyday probes with float32.
        smallest_stress: smallest cosine of the stress probes.
        milliseconds: median time of one text of `TIMED_TOKENS` tokens, on one thread of this machine.
        size_bytes: size of the file.
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
class Evaluation:
    """A variant that was run on the probes: its figures, and the cosine of each probe, [N] float64."""

    figures: Figures
    cosines: NDArray[np.float64]


@dataclass(frozen=True)
class Step:
    """One variant of a search.

    Attributes:
        precise, finer: number of quantization points whose activations, and whose weights, have a residual.
        widening: factor by which all grids are wider.
        predicted: predicted 1 - cosine from rounding, mean over the calibration texts.
        figures: results on the probes.
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
class Evaluator:
    """Compares variants with float32 on the probes.

    Attributes:
        rows: token ids of each probe.
        stress: which of the probes are stress probes, [N] bool.
        pad: makes a batch of rows.
        objective: what is compared: the embedding, or a logit.
        expected: unit embeddings from float32, [N, D] float64.
        arrangement: arrangement of the variants; the float32 graph is run in ONNX Runtime.
    """

    rows: Sequence[Row]
    stress: NDArray[np.bool_]
    pad: Callable[[Sequence[Sequence[int]]], TokenBatch]
    objective: Objective
    expected: NDArray[np.float64]
    arrangement: Arrangement

    @classmethod
    def of(
        cls,
        model: onnx.ModelProto,
        probes: Probes,
        pad: Callable[[Sequence[Sequence[int]]], TokenBatch],
        objective: Objective,
        arrangement: Arrangement,
    ) -> "Evaluator":
        """Return an evaluator that expects the probes' embeddings from the float32 graph."""
        rows = (*probes.everyday, *probes.stress)
        stress = np.arange(len(rows)) >= len(probes.everyday)

        empty = cls(rows, stress, pad, objective, np.zeros((0, 0)), arrangement)
        return replace(empty, expected=empty.embed(empty.open(model, "sequence-major"), range(len(rows))))

    def open(self, model: onnx.ModelProto, arrangement: Arrangement) -> States:
        """Return a callable that runs a graph and returns what the objective is computed from."""
        return open_graph(model, arrangement, output_of(self.objective))

    def evaluate(self, encoder: QuantizedEncoder, *, cls_only: bool, again: Callable[[Figures], bool]) -> Evaluation:
        """Run a variant on the probes.

        Args:
            encoder: the variant.
            cls_only: whether its graph returns only the first token's state.
            again: whether figures are good enough to repeat the run under perturbation, which may lower them.
        """
        model, widths = perturbable(arrange(encoder, self.arrangement, cls_only=cls_only))
        run = self.open(model, self.arrangement)
        unperturbed, *perturbed = perturbations(widths, DRAWS)

        everything = range(len(self.rows))
        cosines = self._compared(self.embed(run, everything, unperturbed), everything)
        found = self._figures(cosines, self._milliseconds(run, unperturbed), model.ByteSize())
        if not again(found):
            return Evaluation(found, cosines)

        order = np.argsort(cosines)
        worst = (order[self.stress[order] == kind][:SUSPECTS] for kind in (False, True))
        suspects = np.concatenate(list(worst)).tolist()

        for factors in perturbed:
            perturbed_cosines = self._compared(self.embed(run, suspects, factors), suspects)
            cosines[suspects] = np.minimum(cosines[suspects], perturbed_cosines)

        return Evaluation(self._figures(cosines, found.milliseconds, found.size_bytes), cosines)

    def embed(self, run: States, which: Sequence[int], more: Mapping[str, Floats] = NOTHING) -> NDArray[np.float64]:
        """Return unit embeddings [n, D] of some probes, run one by one; `more` holds the graph's other inputs."""
        found = []
        for probe in which:
            batch = self.pad([self.rows[probe]])
            found.append(unit_row(self.objective, run(batch, more), batch.attention_mask))

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
