"""A float32 graph to a static 8-bit graph: read, calibrate, plan, build, arrange."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import onnx

from bge_export.contracts import Checkpoint, Track, untracked
from bge_export.digest import file_sha256
from bge_export.errors import ExportError, UsageError
from bge_export.int8.arrange import Arrangement, arrange
from bge_export.int8.build import Builder
from bge_export.int8.calibration import CalibrationSet, batches
from bge_export.int8.encoder import Encoder
from bge_export.int8.forms import fast_form, most_forms
from bge_export.int8.frontier import Judge
from bge_export.int8.memory import release
from bge_export.int8.padding import pad_inputs
from bge_export.int8.plain import quantize_plain
from bge_export.int8.plan import Settings, plan_layers
from bge_export.int8.probes import Row, make_probes
from bge_export.int8.reading import UnknownGraph, read_encoder
from bge_export.int8.search import Found, Targets, most_variants, search
from bge_export.int8.texts import calibration_rows, divided, drawn_rows, held_back
from bge_export.tokens import TextTokenizer

LEAST_LINES = 32
"""With fewer lines of the user's own, the package's are probes too."""


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
        facts: what was found out on the way, for a manifest: why the arrangement is plain, or how the variant was
            chosen.
        finer: makes the most exact variant of what was calibrated and planned for this one; None if this is it.
    """

    model: onnx.ModelProto
    facts: Mapping[str, object]
    finer: "Callable[[Track], Quantized] | None" = None


@dataclass(frozen=True)
class _Planned:
    """What all variants of one encoder share.

    Attributes:
        builder: of the encoder.
        judge: has the probes that a variant is tried on.
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
        return Quantized(plain, {"plain_arrangement": str(reason)})
    if options.cls_only and encoder.tail is not None:
        raise UsageError("--cls-only and --sentence-embedding exclude each other. Leave out one of them.")

    planned = _planned(model, encoder, tokenizer, rows, checkpoint, options, arrangement, track)
    if options.min_cosine is None:
        return _chosen(planned, Targets(), 0, track)
    return _chosen(planned, Targets(smallest=options.min_cosine, mean=options.min_cosine), 0, track)


def _planned(
    model: onnx.ModelProto, encoder: Encoder, tokenizer: TextTokenizer, rows: Sequence[Row], checkpoint: Checkpoint,
    options: Int8Options, arrangement: Arrangement, track: Track,
) -> _Planned:  # fmt: skip
    """Calibrate an encoder and plan its layers; make the probes that its variants are tried on."""
    rows, kept = (rows, []) if options.min_cosine is None else held_back(rows)
    main, rest = divided(rows)
    lines = kept or rest
    if len(lines) < LEAST_LINES:  # a short file of the user's own
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


def _chosen(planned: _Planned, targets: Targets, start: int, track: Track) -> Quantized:
    """Return the fastest variant that meets the targets, from a place of the frontier on; else the nearest.

    Raises:
        ExportError: a cosine was asked for, and nothing reaches it.
    """
    builder, judge, options = planned.builder, planned.judge, planned.options
    with track("int8: rounding, layers", len(builder.plans)) as advance:
        builder.build(fast_form(builder, judge.arrangement, cls_only=options.cls_only), advance)
    with track("int8: variants tried, at most", most_variants(builder) if start == 0 else 1) as advance:
        found = search(builder, judge, targets, cls_only=options.cls_only, start=start, advance=advance)
    if options.min_cosine is not None and found.figures.smallest < options.min_cosine:
        raise ExportError(_out_of_reach(options.min_cosine, found, judge))

    with track(f"int8: arranging {judge.arrangement}", 1):
        model = arrange(builder.build(found.form), judge.arrangement, cls_only=options.cls_only)
    release()
    last = most_forms(builder) - 1
    finer = None if found.place >= last else partial(_chosen, planned, targets, last)
    facts = found.record(judge)
    if options.min_cosine is None and len(found.steps) == 1:  # nothing was searched
        del facts["frontier"]
    return Quantized(model, facts, finer)


def _out_of_reach(least: float, found: Found, judge: Judge) -> str:
    best = max(found.steps, key=lambda step: step.figures.smallest)
    return (
        f"No int8 variant reaches a cosine of {least} on {(~judge.stress).sum()} texts held back: the best reached "
        f"{best.figures.smallest:.6f}, with the activations of {best.precise} and the weights of {best.finer} "
        "quantization points in two parts. Ask for less with --min-cosine, or use fp16."
    )


def _need_no_layers(options: Int8Options, checkpoint: Checkpoint, reason: UnknownGraph) -> None:
    """Refuse options that only the fast arrangement has."""
    asked = {"--cls-only": options.cls_only, "--min-cosine": options.min_cosine is not None}
    if names := " and ".join(name for name, given in asked.items() if given):
        raise UsageError(
            f"{checkpoint.source}: {names} needs an encoder that can be quantized layer by layer, and this one cannot: "
            f"{reason}. Leave out {names} to get the plain arrangement."
        )
