"""A float32 graph to a static 8-bit graph: read, calibrate, plan, build, arrange."""

from dataclasses import dataclass
from pathlib import Path

import onnx

from bge_export.contracts import Checkpoint, Track, untracked
from bge_export.digest import file_sha256
from bge_export.errors import UsageError
from bge_export.int8.arrange import Arrangement, arrange
from bge_export.int8.build import Builder
from bge_export.int8.calibration import batches
from bge_export.int8.forms import fast_form, most_forms
from bge_export.int8.frontier import Judge, Step, cheapest
from bge_export.int8.plan import Settings, plan_layers
from bge_export.int8.reading import read_encoder
from bge_export.int8.texts import calibration_rows, divided, held_back
from bge_export.tokens import TextTokenizer


@dataclass(frozen=True)
class Int8Options:
    """What a user chooses.

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
    """A quantized graph, and the steps of the search for it (none where nothing was searched)."""

    model: onnx.ModelProto
    steps: tuple[Step, ...]

    def record(self) -> dict[str, object]:
        """Return the steps for a manifest."""
        return {"frontier": [step.record() for step in self.steps]} if self.steps else {}


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
        UnknownGraph: the graph is no encoder that can be quantized layer by layer.
        TextsError: the calibration file cannot be used.
        UsageError: the first token's state is not enough for the checkpoint's pooling.
        ExportError: no form holds the cosine asked for.
    """
    if options.cls_only and checkpoint.spec.pooling != "cls":
        raise UsageError(
            f"{checkpoint.source} pools by {checkpoint.spec.pooling!r}, which needs the states of all tokens. "
            "Leave out --cls-only."
        )
    encoder = read_encoder(model)
    if options.cls_only and encoder.tail is not None:
        raise UsageError("--cls-only and --sentence-embedding exclude each other. Leave out one of them.")
    search = options.min_cosine is not None
    tokenizer = TextTokenizer.load(checkpoint.root, checkpoint.spec.max_tokens)
    rows = calibration_rows(tokenizer, options.calibration)
    rows, kept = held_back(rows) if search else (rows, [])
    main, rest = divided(rows)
    texts, ranges = batches(encoder, main, tokenizer.pad), batches(encoder, rest, tokenizer.pad)
    plans = plan_layers(encoder, checkpoint.spec, texts, ranges, Settings(), track)
    with track("int8: rounding, layers", len(plans)) as advance:
        builder = Builder(encoder, plans)
        form, steps = fast_form(builder), list[Step]()
        builder.build(form, advance)
    if options.min_cosine is not None:
        judge = Judge.of(model, kept, tokenizer.pad, checkpoint.spec)
        with track("int8: forms tried, at most", most_forms(builder)) as advance:
            form, steps = cheapest(builder, judge, options.min_cosine, cls_only=options.cls_only, advance=advance)
    with track(f"int8: arranging {arrangement}", 1):
        return Quantized(arrange(builder.build(form), arrangement, cls_only=options.cls_only), tuple(steps))
