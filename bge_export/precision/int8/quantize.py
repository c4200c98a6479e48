"""Quantizes a float32 graph to a static 8-bit graph: reads, calibrates, plans, builds and arranges it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx
import torch

from bge_export.calibration.objective import LogitObjective, Objective, objective_of
from bge_export.calibration.observing import CalibrationSet, batches
from bge_export.calibration.texts import (
    HOLDOUT_EVERY,
    calibration_rows,
    calibration_tokenizer,
    random_rows,
    split_holdout,
    split_main,
)
from bge_export.contracts import Checkpoint
from bge_export.encoder.encoder import Encoder
from bge_export.encoder.forward import run_layer
from bge_export.encoder.matching import UnknownGraph
from bge_export.encoder.reading import read_encoder
from bge_export.errors import ExportError, UsageError
from bge_export.heads.dense import dense_head
from bge_export.memory import Parked, release
from bge_export.precision.int8.plan.layers import Settings, plan_layers
from bge_export.precision.int8.round.build import Builder
from bge_export.precision.int8.search.evaluator import Evaluator
from bge_export.precision.int8.search.probes import Row, is_ordinary, make_probes
from bge_export.precision.int8.search.search import Found, Targets, most_attempts, search
from bge_export.precision.int8.search.variants import fastest_variant, frontier_length
from bge_export.precision.int8.write.arrange import Arrangement, arrange
from bge_export.precision.int8.write.padding import pad_inputs
from bge_export.precision.int8.write.plain import quantize_plain
from bge_export.precision.int8.write.residuals import Residuals
from bge_export.precision.int8_options import Int8Options
from bge_export.progress import stage
from bge_export.texts.tokens import TextTokenizer

LEAST_SPREAD = 1e-6
"""Smallest spread of a reranker's logits that is divided by; one that tells nothing apart is refused by the gate."""

LEAST_LINES = 32
"""If the user's file has fewer ordinary lines than this, lines of the package become probes too."""


@dataclass(frozen=True)
class Quantized:
    """A quantized graph.

    Attributes:
        model: the graph.
        facts: findings for the manifest: why the arrangement is plain, or how the variant was chosen.
    """

    model: onnx.ModelProto
    facts: Mapping[str, object]


@dataclass(frozen=True)
class _Task:
    """One graph to quantize layer by layer.

    Attributes:
        model: the tidy float32 graph.
        encoder: the graph as it was read.
        checkpoint: its longest input, and what it answers.
        options: the user's options.
        arrangement: axis order that suits the runtime.
    """

    model: onnx.ModelProto
    encoder: Encoder
    checkpoint: Checkpoint
    options: Int8Options
    arrangement: Arrangement


@dataclass(frozen=True)
class _Planned:
    """Data that all variants of one encoder share.

    Attributes:
        builder: builds the variants of the encoder.
        evaluator: evaluates a variant on the probes.
        options: the user's options.
    """

    builder: Builder
    evaluator: Evaluator
    options: Int8Options

    @property
    def last(self) -> int:
        """Return the rank of the most accurate variant."""
        return frontier_length(self.builder) - 1


def quantize(
    model: onnx.ModelProto, checkpoint: Checkpoint, options: Int8Options, arrangement: Arrangement
) -> Iterator[Quantized]:
    """Return the graph quantized to 8 bits: the fastest variant that seems accurate enough, then the most accurate one.

    Progress counts batches, layers and variants, in a stage each.

    Args:
        model: tidy float32 graph of the checkpoint.
        checkpoint: provides the tokenizer and the pooling of the embedding.
        options: the user's options.
        arrangement: axis order that suits the runtime.

    Raises:
        TextsError: the calibration file cannot be used.
        UsageError: the pooling needs more than the first token's state, or an option needs a graph that can be
            quantized layer by layer.
        ExportError: no variant reaches the requested cosine.
    """
    _refuse_options(options, checkpoint)
    tokenizer = calibration_tokenizer(checkpoint)
    rows = calibration_rows(tokenizer, options.calibration)

    try:
        encoder = read_encoder(model)
    except UnknownGraph as reason:
        _need_no_layers(options, checkpoint, reason)
        longest = checkpoint.spec.inputs.max_tokens if arrangement == "sequence-major" else None
        return _plain_variants(quantize_plain(model, rows, tokenizer), str(reason), longest)

    if options.cls_only and encoder.tail is not None:
        raise UsageError("--cls-only and --sentence-embedding exclude each other. Leave out one of them.")

    planned = _planned(_Task(model, encoder, checkpoint, options, arrangement), tokenizer, rows)
    least = options.min_cosine
    return _variants(planned, Targets() if least is None else Targets(smallest=least, mean=least))


def _plain_variants(
    graphs: Iterator[tuple[onnx.ModelProto, Residuals]], reason: str, padded_up_to: int | None
) -> Iterator[Quantized]:
    """Yield the variants of the plain arrangement.

    Args:
        graphs: the quantized graphs.
        reason: why the arrangement is plain.
        padded_up_to: length of the longest text, where inputs are padded in the graph.
    """
    for plain, residuals in graphs:
        model = plain if padded_up_to is None else pad_inputs(plain, padded_up_to)
        yield Quantized(model, {"plain_arrangement": reason, "plain_residuals": residuals})


def _planned(task: _Task, tokenizer: TextTokenizer, rows: Sequence[Row]) -> _Planned:
    """Calibrate an encoder, plan its layers, and make the probes that its variants are tried on."""
    encoder, options, spec = task.encoder, task.options, task.checkpoint.spec
    longest = spec.inputs.max_tokens

    hold_back = options.min_cosine is not None and len(rows) > HOLDOUT_EVERY
    rows, holdout = split_holdout(rows) if hold_back else (rows, [])

    main, rest = split_main(rows)
    lines = holdout or rest
    if sum(map(is_ordinary, lines)) < LEAST_LINES:  # the user's file is short, or has only long passages
        lines = [*lines, *calibration_rows(tokenizer, None)]
    probes = make_probes(tokenizer, lines, longest)

    drawn = random_rows(tokenizer, main[0], longest)
    groups = (batches(encoder, each, tokenizer.pad) for each in (main, rest, drawn))
    texts = CalibrationSet(*groups)
    objective = _spread_out(objective_of(task.checkpoint), encoder, texts)
    plans = plan_layers(encoder, objective, texts, Settings())

    with stage("int8: ordering channels", 1):
        builder = Builder(encoder, plans)
    evaluator = Evaluator.of(task.model, probes, tokenizer.pad, objective, task.arrangement)
    release()

    return _Planned(builder, evaluator, options)


def _spread_out(objective: Objective, encoder: Encoder, texts: CalibrationSet) -> Objective:
    """Return the objective, a reranker's with the spread of its logits on the calibration texts."""
    if not isinstance(objective, LogitObjective):
        return objective

    logits = []
    with torch.no_grad():
        for batch in texts.chosen:
            state = batch.state
            for layer in encoder.layers:
                state = run_layer(layer, state, batch.bias).state
            logits.append(objective.classifier(state, batch.mask))

    every = torch.cat(logits)
    return replace(objective, spread=max(float(every.max() - every.min()), LEAST_SPREAD))


def _variants(planned: _Planned, targets: Targets) -> Iterator[Quantized]:
    """Yield the fastest variant that meets the targets, or else the nearest; then the most accurate one.

    Raises:
        ExportError: a cosine was requested, and no variant reaches it.
    """
    least = planned.options.min_cosine
    found = _found(planned, targets, 0)
    if least is not None and not found.figures.smallest >= least:
        raise ExportError(_out_of_reach(least, found, planned.evaluator))

    # If no variant holds, the most accurate one was tried too, and is farther off.
    more = found.held and found.rank < planned.last
    fastest = _arranged(planned, found)

    # Park on disk: the full measurement that follows needs the memory, and seldom asks for another variant.
    parked = Parked(planned) if more else None
    del planned
    release()
    yield fastest

    if parked is None:
        return
    with stage("int8: this variant was refused; the most accurate one follows", 1):
        planned = parked.load()
    yield _arranged(planned, _found(planned, targets, planned.last).after(found.steps))


def _found(planned: _Planned, targets: Targets, start: int) -> Found:
    """Return the fastest variant that meets the targets, or else the nearest, searched from a rank of the frontier."""
    builder, evaluator, cls_only = planned.builder, planned.evaluator, planned.options.cls_only

    with stage("int8: rounding, layers", len(builder.plans)):
        builder.build(fastest_variant(builder, evaluator.arrangement, cls_only=cls_only))

    with stage("int8: variants tried, at most", most_attempts(builder, start)):
        return search(builder, evaluator, targets, cls_only=cls_only, start=start)


def _arranged(planned: _Planned, found: Found) -> Quantized:
    """Return a variant as a graph in the axis order of its runtime, and how it was chosen."""
    builder, evaluator, options = planned.builder, planned.evaluator, planned.options

    took = found.figures.milliseconds / found.steps[0].figures.milliseconds
    with stage(f"int8: arranging {evaluator.arrangement}, {took:.2f} times the time of the first variant tried", 1):
        model = arrange(builder.build(found.variant), evaluator.arrangement, cls_only=options.cls_only)

    facts = found.record(evaluator)
    if options.min_cosine is None:  # steps contain times, and the same input must give the same manifest
        del facts["frontier"]
    return Quantized(model, facts)


def _out_of_reach(least: float, found: Found, evaluator: Evaluator) -> str:
    finite = [step for step in found.steps if step.figures.finite] or list(found.steps)
    best = max(finite, key=lambda step: step.figures.smallest)

    probes = f"{(~evaluator.stress).sum()} texts held back and phrases of them"
    return (
        f"No int8 variant reaches a cosine of {least} on {probes}: the best reached {best.figures.smallest:.6f}, with "
        f"residuals for the activations of {best.precise} and the weights of {best.finer} quantization points. Ask for "
        "less with --min-cosine, or use fp16."
    )


def _refuse_options(options: Int8Options, checkpoint: Checkpoint) -> None:
    """Raise UsageError for options of embeddings that the checkpoint's answer does not have."""
    if checkpoint.spec.is_reranker:
        asked = {"--cls-only": options.cls_only, "--min-cosine": options.min_cosine is not None}
        if names := " and ".join(name for name, given in asked.items() if given):
            raise UsageError(
                f"{checkpoint.source} is a reranker, whose files give logits alone: {names} is about embeddings. Leave "
                f"out {names}."
            )
        return

    pooling = dense_head(checkpoint.spec).pooling
    if options.cls_only and pooling != "cls":
        raise UsageError(
            f"{checkpoint.source} pools by {pooling!r}, which needs the states of all tokens. Leave out --cls-only."
        )


def _need_no_layers(options: Int8Options, checkpoint: Checkpoint, reason: UnknownGraph) -> None:
    """Reject options that only the fast arrangement supports."""
    asked = {"--cls-only": options.cls_only, "--min-cosine": options.min_cosine is not None}
    if names := " and ".join(name for name, given in asked.items() if given):
        raise UsageError(
            f"{checkpoint.source}: {names} needs an encoder that can be quantized layer by layer, and this one cannot: "
            f"{reason}. Leave out {names} to get the plain arrangement."
        )
