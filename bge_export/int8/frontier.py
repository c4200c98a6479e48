"""From the fast end to the exact end: the cheapest form that holds a cosine on texts that it was not made with.

Sites get a second part of their activations in the order of their predicted error, then weights get one. Each form is
measured as the file it would be, in the runtime that it is arranged for, against the float32 graph.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray

from bge_export.contracts import EmbeddingSpec, TokenBatch
from bge_export.errors import ExportError
from bge_export.int8.arrange import Arrangement, arrange
from bge_export.int8.build import Builder
from bge_export.int8.encoder import Floats
from bge_export.int8.form import Form
from bge_export.int8.forms import forms
from bge_export.int8.plan import LayerPlan
from bge_export.int8.quantized import QuantizedEncoder
from bge_export.int8.running import NOTHING, States, open_graph
from bge_export.int8.tremor import trembling, tremors

TIMED_TOKENS, TIMED_RUNS = 64, 15


@dataclass(frozen=True)
class Step:
    """One form of the frontier.

    Attributes:
        precise, finer: sites whose activations, and whose weights, are in two parts.
        predicted: 1 - cosine that rounding activations is predicted to cost, mean over the calibration texts.
        smallest, mean: cosine with float32 on the texts held back, without odd strings.
        smallest_odd: of odd strings held back and single marks; None where there are none.
        milliseconds: median of one text of `TIMED_TOKENS` tokens, one thread, on this machine.
        size_bytes: of the file.
    """

    precise: int
    finer: int
    predicted: float
    smallest: float
    mean: float
    smallest_odd: float | None
    milliseconds: float
    size_bytes: int

    def record(self) -> dict[str, float | None]:
        """Return the step for a manifest."""
        return asdict(self)


@dataclass(frozen=True)
class Judge:
    """Texts held back, with their embeddings in float32.

    Attributes:
        rows: token ids of each text.
        pad: makes a batch of rows.
        spec: how states are pooled.
        odd: which of them are odd strings, [N] bool.
        expected: unit embeddings, [N, D] float64.
        arrangement: of the graphs that are judged; float32 is run in ONNX Runtime.
    """

    rows: Sequence[tuple[int, ...]]
    pad: Callable[[Sequence[Sequence[int]]], TokenBatch]
    spec: EmbeddingSpec
    odd: NDArray[np.bool_]
    expected: NDArray[np.float64]
    arrangement: Arrangement

    @classmethod
    def of(
        cls, model: onnx.ModelProto, rows: Sequence[tuple[int, ...]],
        pad: Callable[[Sequence[Sequence[int]]], TokenBatch], spec: EmbeddingSpec, arrangement: Arrangement,
        odd: Collection[tuple[int, ...]] = (),
    ) -> "Judge":  # fmt: skip
        """Embed the texts with the float32 graph; `odd` says which of them are odd strings."""
        marked = np.array([row in odd for row in rows])
        empty = cls(rows, pad, spec, marked, np.zeros((0, 0)), arrangement)
        return replace(empty, expected=empty.embed(open_graph(model, "sequence-major")))

    def cosines(self, encoder: QuantizedEncoder, *, cls_only: bool) -> tuple[NDArray[np.float64], float, int]:
        """Return each text's cosine with float32, [N], the time of one text in milliseconds, and the size in bytes."""
        model = arrange(encoder, self.arrangement, cls_only=cls_only)
        run = open_graph(model, self.arrangement)
        return self._compared(self.embed(run)), self._milliseconds(run), model.ByteSize()

    def smallest_shaken(
        self, encoder: QuantizedEncoder, *, cls_only: bool, draws: int, floor: float
    ) -> float:  # fmt: skip
        """Return the smallest cosine of any text with float32, the graph as it is and trembling, see `tremor`.

        It is no number where one of the embeddings is none.

        Args:
            encoder: what is tried.
            cls_only: whether its graph returns the first token's state alone.
            draws: how often it trembles.
            floor: below it, no further draw is looked at.
        """
        model, widths = trembling(arrange(encoder, self.arrangement, cls_only=cls_only))
        run = open_graph(model, self.arrangement)
        smallest = 1.0
        for tremor in tremors(widths, draws):
            smallest = float(np.minimum(smallest, self._compared(self.embed(run, tremor)).min()))
            if not smallest >= floor:  # so that a number that is none ends it, too
                break
        return smallest

    def embed(self, run: States, more: Mapping[str, Floats] = NOTHING) -> NDArray[np.float64]:
        """Return unit embeddings [N, D], one text at a time; `more` has the inputs of the graph beside the tokens."""
        found = []
        for row in self.rows:
            states = run(self.pad([row]), more)[0].astype(np.float64)
            pooled = {"cls": states[0], "mean": states.mean(0), "last": states[-1]}[self.spec.pooling]
            found.append(pooled / np.linalg.norm(pooled))
        return np.stack(found)

    def _compared(self, embeddings: NDArray[np.float64]) -> NDArray[np.float64]:
        cosines: NDArray[np.float64] = (embeddings * self.expected).sum(1)
        return cosines

    def _milliseconds(self, run: States) -> float:
        longest = max(self.rows, key=len)
        timed = self.pad([(longest * TIMED_TOKENS)[:TIMED_TOKENS]])
        times = []
        for _ in range(TIMED_RUNS):
            start = time.perf_counter()
            run(timed)
            times.append(time.perf_counter() - start)
        return float(np.median(times)) * 1000


def cheapest(
    builder: Builder, judge: Judge, least: float, *, cls_only: bool, advance: Callable[[int], None]
) -> tuple[Form, list[Step]]:
    """Return the first form whose smallest cosine on the held-back texts is at least `least`, and all steps to it.

    Odd strings do not decide: a single mark may need all that 16 bits can do, for which every other text would pay.

    Raises:
        ExportError: no form holds it; the message names the best.
    """
    steps: list[Step] = []
    for form in forms(builder, judge.arrangement, cls_only=cls_only):
        steps.append(_measured(form, builder.plans, judge.cosines(builder.build(form), cls_only=cls_only), judge.odd))
        advance(1)
        if steps[-1].smallest >= least:
            return form, steps
    best = max(steps, key=lambda step: step.smallest)
    raise ExportError(
        f"No 8-bit form holds a cosine of {least} on {(~judge.odd).sum()} texts held back: the best reached "
        f"{best.smallest:.6f}, with {best.precise} sites' activations and {best.finer} sites' weights in two parts. "
        "Ask for less with --min-cosine, or use fp16."
    )


def _measured(
    form: Form, plans: Sequence[LayerPlan], found: tuple[NDArray[np.float64], float, int], is_odd: NDArray[np.bool_]
) -> Step:
    cosines, milliseconds, size = found
    natural, odd = cosines[~is_odd], cosines[is_odd]
    predicted = sum(
        plan.activation_error(site)
        for place, plan in enumerate(plans)
        for site in ("qkv", "output", "up", "down")
        if (place, site) not in form.precise
    )
    smallest_odd = float(odd.min()) if len(odd) else None
    return Step(
        len(form.precise), len(form.finer), predicted, float(natural.min()), float(natural.mean()), smallest_odd,
        milliseconds, size,
    )  # fmt: skip
