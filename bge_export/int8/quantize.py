"""A float32 graph to a static 8-bit graph: read, calibrate, plan, build, arrange."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import onnx

from bge_export.contracts import Checkpoint, Track, untracked
from bge_export.digest import file_sha256
from bge_export.errors import UsageError
from bge_export.int8.arrange import Arrangement, arrange
from bge_export.int8.build import Builder
from bge_export.int8.calibration import batches
from bge_export.int8.form import Form
from bge_export.int8.forms import form_at, most_forms
from bge_export.int8.frontier import Judge, Step, cheapest
from bge_export.int8.padding import pad_inputs
from bge_export.int8.plain import quantize_plain
from bge_export.int8.plan import Settings, plan_layers
from bge_export.int8.reading import UnknownGraph, read_encoder
from bge_export.int8.steady import WIDENINGS, Steadiness, steadiest
from bge_export.int8.texts import (
    calibration_rows,
    divided,
    drawn_rows,
    held_back,
    odd_rows,
    short_odd_rows,
    single_marks,
)
from bge_export.tokens import TextTokenizer

FORMS = (0, 3, 5, 7)
"""Places in the frontier of the forms that follow one another where the gate refuses what rounding did. The first of
them after the fastest has eight second parts: of the one file that was looked at two and four did not help the text
that was refused, eight did (docs/decisions/0016)."""


@dataclass(frozen=True)
class Int8Options:
    """What a user chooses, and how exact it must be to pass.

    Attributes:
        calibration: a file of texts in place of the package's own.
        cls_only: whether the graph returns the first token's state alone, [B, 1, D].
        min_cosine: the smallest cosine that texts held back must reach; None for the fastest form.
    """

    calibration: Path | None = None
    cls_only: bool = False
    min_cosine: float | None = None

    def record(self) -> dict[str, object]:
        """Return the options for a manifest: of a file its name and digest, never where it lay."""
        file = self.calibration
        texts = "built-in" if file is None else {"name": file.name, "sha256": file_sha256(file)}
        return {"calibration": texts, "cls_only": self.cls_only, "min_cosine": self.min_cosine}


@dataclass(frozen=True)
class Quantized:
    """A quantized graph.

    Attributes:
        model: the graph.
        steps: of the search for it; none where nothing was searched.
        plain: why the plain arrangement was used; None for the fast one.
        form: its place in the frontier, 0 for the fastest; None where it was searched for, or is plain.
        steadiness: of that form.
        finer: makes a more exact one of what was calibrated and planned for this one; None where nothing does.
    """

    model: onnx.ModelProto
    steps: tuple[Step, ...] = ()
    plain: str | None = None
    form: int | None = None
    steadiness: Steadiness | None = None
    finer: "Callable[[Track], Quantized] | None" = None

    def record(self) -> dict[str, object]:
        """Return for a manifest what was found out on the way."""
        steadiness = None if self.steadiness is None else self.steadiness.record()
        found = {"plain_arrangement": self.plain, "form": self.form, "steadiness": steadiness}
        steps = {"frontier": [step.record() for step in self.steps]} if self.steps else {}
        return steps | {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True)
class _Planned:
    """What all forms of one encoder share.

    Attributes:
        builder: of the encoder.
        judge: has the texts that a form is tried on.
        options: what the user chose.
    """

    builder: Builder
    judge: Judge
    options: Int8Options


def quantize(
    model: onnx.ModelProto, checkpoint: Checkpoint, options: Int8Options, arrangement: Arrangement,
    track: Track = untracked,
) -> Quantized:  # fmt: skip
    """Return the graph on 8 bits.

    Args:
        model: a tidy float32 graph of the checkpoint.
        checkpoint: has the tokenizer, and says how the embedding is pooled.
        options: what the user chooses.
        arrangement: the order of axes that the runtime wants.
        track: shows the stages, which are counted in batches, layers and forms.

    Raises:
        TextsError: the calibration file cannot be used.
        UsageError: the first token's state is not enough for the checkpoint's pooling, or an option needs a graph that
            can be quantized layer by layer.
        ExportError: no form holds the cosine asked for.
    """
    if options.cls_only and checkpoint.spec.pooling != "cls":
        raise UsageError(
            f"{checkpoint.source} pools by {checkpoint.spec.pooling!r}, which needs the states of all tokens. "
            "Leave out --cls-only."
        )
    tokenizer = TextTokenizer.load(checkpoint.root, checkpoint.spec.max_tokens)
    rows = calibration_rows(tokenizer, options.calibration)
    try:
        encoder = read_encoder(model)
    except UnknownGraph as reason:
        _need_no_layers(options, checkpoint, reason)
        plain = quantize_plain(model, rows, tokenizer)
        if arrangement == "sequence-major":
            plain = pad_inputs(plain, checkpoint.spec.max_tokens)
        return Quantized(plain, plain=str(reason))
    if options.cls_only and encoder.tail is not None:
        raise UsageError("--cls-only and --sentence-embedding exclude each other. Leave out one of them.")
    rows, kept = (rows, []) if options.min_cosine is None else held_back(rows)
    main, rest = divided(rows)
    drawn = drawn_rows(tokenizer, main[0], checkpoint.spec.max_tokens)
    texts, ranges, strange = (batches(encoder, each, tokenizer.pad) for each in (main, rest, drawn))
    plans = plan_layers(encoder, checkpoint.spec, texts, ranges, strange, Settings(), track)
    with track("int8: ordering channels", 1):
        builder = Builder(encoder, plans)
    marks = single_marks(tokenizer)
    odd = {*marks, *(odd_rows(tokenizer) if options.calibration is None else ())}
    tried = short_odd_rows(tokenizer) if options.min_cosine is None else [*kept, *marks]
    judge = Judge.of(model, tried, tokenizer.pad, checkpoint.spec, arrangement, odd)
    planned = _Planned(builder, judge, options)
    if options.min_cosine is not None:
        return _searched(planned, options.min_cosine, track)
    return _at(planned, FORMS, track)


def _at(planned: _Planned, places: Sequence[int], track: Track) -> Quantized:
    """Return the form at the first of some places of the frontier; those after it are to follow where it is refused."""
    form = _rounded(planned, places[0], track)
    with track("int8: candidates tried, at most", len(WIDENINGS)) as advance:
        form, steadiness = steadiest(
            planned.builder, form, planned.judge, cls_only=planned.options.cls_only, advance=advance
        )  # fmt: skip
    finer = partial(_at, planned, places[1:]) if places[1:] else None
    return Quantized(_arranged(planned, form, track), form=places[0], steadiness=steadiness, finer=finer)


def _searched(planned: _Planned, least: float, track: Track) -> Quantized:
    """Return the cheapest form that holds a cosine of `least`."""
    builder = planned.builder
    _rounded(planned, 0, track)
    with track("int8: forms tried, at most", most_forms(builder)) as advance:
        form, steps = cheapest(
            builder, planned.judge, least, cls_only=planned.options.cls_only, advance=advance
        )  # fmt: skip
    return Quantized(_arranged(planned, form, track), tuple(steps))


def _rounded(planned: _Planned, place: int, track: Track) -> Form:
    """Return the form at a place of the frontier; the builder keeps its weights."""
    with track("int8: rounding, layers", len(planned.builder.plans)) as advance:
        form = form_at(planned.builder, planned.judge.arrangement, place, cls_only=planned.options.cls_only)
        planned.builder.build(form, advance)
    return form


def _arranged(planned: _Planned, form: Form, track: Track) -> onnx.ModelProto:
    arrangement, options = planned.judge.arrangement, planned.options
    with track(f"int8: arranging {arrangement}", 1):
        return arrange(planned.builder.build(form), arrangement, cls_only=options.cls_only)


def _need_no_layers(options: Int8Options, checkpoint: Checkpoint, reason: UnknownGraph) -> None:
    """Refuse options that only the fast arrangement has."""
    asked = {"--cls-only": options.cls_only, "--min-cosine": options.min_cosine is not None}
    if names := " and ".join(name for name, given in asked.items() if given):
        raise UsageError(
            f"{checkpoint.source}: {names} needs an encoder that can be quantized layer by layer, and this one cannot: "
            f"{reason}. Leave out {names} to get the plain arrangement."
        )
