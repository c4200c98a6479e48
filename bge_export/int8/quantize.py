"""A float32 graph to a static 8-bit graph: read, calibrate, plan, build, arrange."""

from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from bge_export.contracts import Checkpoint, Track, untracked
from bge_export.digest import file_sha256
from bge_export.errors import UsageError
from bge_export.int8.arrange import Arrangement, arrange
from bge_export.int8.build import Builder
from bge_export.int8.calibration import batches
from bge_export.int8.forms import form_at, most_forms
from bge_export.int8.frontier import Judge, Step, cheapest
from bge_export.int8.padding import pad_inputs
from bge_export.int8.plain import quantize_plain
from bge_export.int8.plan import Settings, plan_layers
from bge_export.int8.reading import UnknownGraph, read_encoder
from bge_export.int8.steady import WIDENINGS, steadiest
from bge_export.int8.texts import calibration_rows, divided, held_back, odd_rows, single_marks
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
        web: whether the graph pads its inputs, so that a text has one vector in WebAssembly too (`padding.py`).
        form: the place in the frontier of the form that is made where no cosine is asked for, 0 for the fastest.
    """

    calibration: Path | None = None
    cls_only: bool = False
    min_cosine: float | None = None
    web: bool = False
    form: int = 0

    def finer(self) -> "Int8Options | None":
        """Return what makes the next of `FORMS`, should the gate refuse this one; a search has chosen its own."""
        later = [place for place in FORMS if place > self.form]
        return replace(self, form=later[0]) if later and self.min_cosine is None else None

    def record(self) -> dict[str, object]:
        """Return the options for a manifest: of a file its name and digest, never where it lay."""
        file = self.calibration
        texts = "built-in" if file is None else {"name": file.name, "sha256": file_sha256(file)}
        return {
            "calibration": texts, "cls_only": self.cls_only, "min_cosine": self.min_cosine, "web": self.web,
            "form": self.form,
        }  # fmt: skip


@dataclass(frozen=True)
class Quantized:
    """A quantized graph.

    Attributes:
        model: the graph.
        steps: of the search for it; none where nothing was searched.
        plain: why the plain arrangement was used; None for the fast one.
        finer: makes a more exact one; None where nothing does.
    """

    model: onnx.ModelProto
    steps: tuple[Step, ...] = ()
    plain: str | None = None
    finer: Int8Options | None = None

    def record(self) -> dict[str, object]:
        """Return for a manifest what was found out on the way."""
        found: dict[str, object] = {"frontier": [step.record() for step in self.steps]} if self.steps else {}
        return found if self.plain is None else found | {"plain_arrangement": self.plain}


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
        return Quantized(_padded(plain, checkpoint, options), plain=str(reason))
    if options.cls_only and encoder.tail is not None:
        raise UsageError("--cls-only and --sentence-embedding exclude each other. Leave out one of them.")
    search = options.min_cosine is not None
    rows, kept = held_back(rows) if search else (rows, [])
    main, rest = divided(rows)
    texts, ranges = batches(encoder, main, tokenizer.pad), batches(encoder, rest, tokenizer.pad)
    plans = plan_layers(encoder, checkpoint.spec, texts, ranges, Settings(), track)
    with track("int8: rounding, layers", len(plans)) as advance:
        builder = Builder(encoder, plans)
        form, steps = form_at(builder, arrangement, options.form), list[Step]()
        builder.build(form, advance)
    marks = single_marks(tokenizer)
    if options.min_cosine is None:
        judge = Judge.of(model, marks, tokenizer.pad, checkpoint.spec, arrangement)
        with track("int8: candidates tried, at most", len(WIDENINGS)) as advance:
            form = steadiest(builder, form, judge, cls_only=options.cls_only, advance=advance)
    else:
        odd = {*marks, *(odd_rows(tokenizer) if options.calibration is None else ())}
        judge = Judge.of(model, [*kept, *marks], tokenizer.pad, checkpoint.spec, arrangement, odd)
        with track("int8: forms tried, at most", most_forms(builder)) as advance:
            form, steps = cheapest(builder, judge, options.min_cosine, cls_only=options.cls_only, advance=advance)
    with track(f"int8: arranging {arrangement}", 1):
        arranged = arrange(builder.build(form), arrangement, cls_only=options.cls_only)
    return Quantized(_padded(arranged, checkpoint, options), tuple(steps), finer=options.finer())


def _padded(model: onnx.ModelProto, checkpoint: Checkpoint, options: Int8Options) -> onnx.ModelProto:
    return pad_inputs(model, checkpoint.spec.max_tokens) if options.web else model


def _need_no_layers(options: Int8Options, checkpoint: Checkpoint, reason: UnknownGraph) -> None:
    """Refuse options that only the fast arrangement has."""
    asked = {"--cls-only": options.cls_only, "--min-cosine": options.min_cosine is not None}
    if names := " and ".join(name for name, given in asked.items() if given):
        raise UsageError(
            f"{checkpoint.source}: {names} needs an encoder that can be quantized layer by layer, and this one cannot: "
            f"{reason}. Leave out {names} to get the plain arrangement."
        )
