"""Quantizes a float32 graph to a static 8-bit graph: reads, calibrates, plans, builds and arranges it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import onnx

from bge_export.calibration.observing import CalibrationSet, batches
from bge_export.calibration.texts import JUDGE_EVERY, calibration_rows, divided, drawn_rows, held_back
from bge_export.contracts import Checkpoint, Track, untracked
from bge_export.encoder.encoder import Encoder
from bge_export.encoder.reading import UnknownGraph, read_encoder
from bge_export.errors import ExportError, UsageError
from bge_export.files.digest import file_sha256
from bge_export.memory import Parked, release
from bge_export.precision.int8.plan.layers import Settings, plan_layers
from bge_export.precision.int8.round.build import Builder
from bge_export.precision.int8.search.judge import Judge, Step
from bge_export.precision.int8.search.probes import Row, is_ordinary, make_probes
from bge_export.precision.int8.search.search import Found, Targets, most_variants, search
from bge_export.precision.int8.search.variants import fast_form, most_forms
from bge_export.precision.int8.write.arrange import Arrangement, arrange
from bge_export.precision.int8.write.padding import pad_inputs
from bge_export.precision.int8.write.plain import quantize_plain
from bge_export.texts.tokens import TextTokenizer

LEAST_LINES = 32
"""If the user's file has fewer ordinary lines than this, lines of the package become probes too."""


@dataclass(frozen=True)
class Int8Options:
    """User options for 8-bit quantization, and the accuracy that the result must reach.

    Attributes:
        calibration: file of calibration texts that replaces the package's own.
        cls_only: whether the graph returns only the first token's state, [B, 1, D].
        min_cosine: smallest cosine that held-back texts must reach; None applies the gate's limits.
    """

    calibration: Path | None = None
    cls_only: bool = False
    min_cosine: float | None = None

    def record(self) -> dict[str, object]:
        """Return the options for a manifest; a file is recorded by name and digest, never by its path."""
        file = self.calibration
        texts = "built-in" if file is None else {"name": file.name, "sha256": file_sha256(file)}
        return {"calibration": texts, "cls_only": self.cls_only, "min_cosine": self.min_cosine}


@dataclass(frozen=True)
class Quantized:
    """A quantized graph.

    Attributes:
        model: the graph.
        facts: findings for the manifest: why the arrangement is plain, or how the variant was chosen.
        finer: builds the most accurate variant from the same calibration and plans; None if this is the best one.
    """

    model: onnx.ModelProto
    facts: Mapping[str, object]
    finer: "Callable[[Track], Quantized] | None" = None


@dataclass(frozen=True)
class _Planned:
    """Data that all variants of one encoder share.

    Attributes:
        builder: builds the variants of the encoder.
        judge: evaluates a variant on the probes.
        options: the user's options.
    """

    builder: Builder
    judge: Judge
    options: Int8Options


def quantize(
    model: onnx.ModelProto,
    checkpoint: Checkpoint,
    options: Int8Options,
    arrangement: Arrangement,
    track: Track = untracked,
) -> Quantized:
    """Return the graph quantized to 8 bits.

    Args:
        model: tidy float32 graph of the checkpoint.
        checkpoint: provides the tokenizer and the pooling of the embedding.
        options: the user's options.
        arrangement: axis order that suits the runtime.
        track: reports progress in stages, counted in batches, layers and variants.

    Raises:
        TextsError: the calibration file cannot be used.
        UsageError: the pooling needs more than the first token's state, or an option needs a graph that can be
            quantized layer by layer.
        ExportError: no variant reaches the requested cosine.
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
        return Quantized(plain, {"plain_arrangement": str(reason)})
    if options.cls_only and encoder.tail is not None:
        raise UsageError("--cls-only and --sentence-embedding exclude each other. Leave out one of them.")

    planned = _planned(model, encoder, tokenizer, rows, checkpoint, options, arrangement, track)
    if options.min_cosine is None:
        return _chosen(planned, Targets(), 0, (), track)
    return _chosen(planned, Targets(smallest=options.min_cosine, mean=options.min_cosine), 0, (), track)


def _planned(
    model: onnx.ModelProto,
    encoder: Encoder,
    tokenizer: TextTokenizer,
    rows: Sequence[Row],
    checkpoint: Checkpoint,
    options: Int8Options,
    arrangement: Arrangement,
    track: Track,
) -> _Planned:
    """Calibrate an encoder, plan its layers, and make the probes that its variants are tried on."""
    hold_back = options.min_cosine is not None and len(rows) > JUDGE_EVERY
    rows, kept = held_back(rows) if hold_back else (rows, [])

    main, rest = divided(rows)
    lines = kept or rest
    if sum(map(is_ordinary, lines)) < LEAST_LINES:  # the user's file is short, or has only long passages
        lines = [*lines, *calibration_rows(tokenizer, None)]
    longest = checkpoint.spec.max_tokens
    probes = make_probes(tokenizer, lines, longest)

    drawn = drawn_rows(tokenizer, main[0], longest)
    groups = (batches(encoder, each, tokenizer.pad) for each in (main, rest, drawn))
    plans = plan_layers(encoder, checkpoint.spec, CalibrationSet(*groups), Settings(), track)

    with track("int8: ordering channels", 1):
        builder = Builder(encoder, plans)
    judge = Judge.of(model, probes, tokenizer.pad, checkpoint.spec, arrangement)
    release()
    return _Planned(builder, judge, options)


def _chosen(planned: _Planned, targets: Targets, start: int, before: tuple[Step, ...], track: Track) -> Quantized:
    """Return the fastest variant that meets the targets, or else the one that comes nearest.

    Args:
        planned: data that all variants share.
        targets: cosines that the probes must reach.
        start: first rank of the frontier to try.
        before: steps of an earlier search whose choice the gate refused.
        track: reports progress.

    Raises:
        ExportError: a cosine was requested, and no variant reaches it.
    """
    builder, judge, options = planned.builder, planned.judge, planned.options

    with track("int8: rounding, layers", len(builder.plans)) as advance:
        builder.build(fast_form(builder, judge.arrangement, cls_only=options.cls_only), advance)
    with track("int8: variants tried, at most", most_variants(builder, start)) as advance:
        found = search(builder, judge, targets, cls_only=options.cls_only, start=start, advance=advance)
    found = found.after(before)
    if not before and options.min_cosine is not None and not found.figures.smallest >= options.min_cosine:
        raise ExportError(_out_of_reach(options.min_cosine, found, judge))

    took = found.figures.milliseconds / found.steps[0].figures.milliseconds
    with track(f"int8: arranging {judge.arrangement}, {took:.2f} times the time of the first variant tried", 1):
        model = arrange(builder.build(found.form), judge.arrangement, cls_only=options.cls_only)
    release()

    last = most_forms(builder) - 1
    # If no variant holds, the most accurate one was tried too, and is farther off.
    finer = None
    if found.held and found.place < last:
        # Park on disk: the full measurement that follows needs the memory, and seldom asks for another variant.
        parked = Parked(planned)
        finer = partial(_next, parked, targets, last, found.steps)

    facts = found.record(judge)
    if options.min_cosine is None:  # steps contain times, and the same input must give the same manifest
        del facts["frontier"]
    return Quantized(model, facts, finer)


def _next(parked: Parked[_Planned], targets: Targets, start: int, before: tuple[Step, ...], track: Track) -> Quantized:
    """Return the variant that follows a refused one; see `_chosen`."""
    return _chosen(parked.load(), targets, start, before, track)


def _out_of_reach(least: float, found: Found, judge: Judge) -> str:
    finite = [step for step in found.steps if step.figures.finite] or list(found.steps)
    best = max(finite, key=lambda step: step.figures.smallest)

    probes = f"{(~judge.stress).sum()} texts held back and phrases of them"
    return (
        f"No int8 variant reaches a cosine of {least} on {probes}: the best reached {best.figures.smallest:.6f}, with "
        f"the activations of {best.precise} and the weights of {best.finer} quantization points in two parts. Ask for "
        "less with --min-cosine, or use fp16."
    )


def _need_no_layers(options: Int8Options, checkpoint: Checkpoint, reason: UnknownGraph) -> None:
    """Reject options that only the fast arrangement supports."""
    asked = {"--cls-only": options.cls_only, "--min-cosine": options.min_cosine is not None}
    if names := " and ".join(name for name, given in asked.items() if given):
        raise UsageError(
            f"{checkpoint.source}: {names} needs an encoder that can be quantized layer by layer, and this one cannot: "
            f"{reason}. Leave out {names} to get the plain arrangement."
        )
