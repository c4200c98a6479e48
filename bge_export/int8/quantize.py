"""A float32 graph to a static 8-bit graph: read, calibrate, plan, build, arrange."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx

from bge_export.contracts import Checkpoint
from bge_export.digest import file_sha256
from bge_export.errors import UsageError
from bge_export.int8.arrange import Arrangement, arrange
from bge_export.int8.build import Builder, Form
from bge_export.int8.calibration import batches
from bge_export.int8.encoder import Encoder
from bge_export.int8.plan import LayerPlan, Settings, plan_layers
from bge_export.int8.reading import read_encoder
from bge_export.int8.texts import calibration_rows, divided
from bge_export.tokens import TextTokenizer


@dataclass(frozen=True)
class Int8Options:
    """What a user chooses.

    Attributes:
        calibration: a file of texts in place of the package's own.
        cls_only: whether the graph returns the first token's state alone, [B, 1, D].
    """

    calibration: Path | None = None
    cls_only: bool = False

    def record(self) -> dict[str, object]:
        """Return the options for a manifest: of a file its name and digest, never where it lay."""
        file = self.calibration
        texts = "built-in" if file is None else {"name": file.name, "sha256": file_sha256(file)}
        return {"calibration": texts, "cls_only": self.cls_only}


def quantize(
    model: onnx.ModelProto, checkpoint: Checkpoint, options: Int8Options, arrangement: Arrangement
) -> onnx.ModelProto:
    """Return the graph on 8 bits.

    Args:
        model: a tidy float32 graph of the checkpoint.
        checkpoint: has the tokenizer, and says how the embedding is pooled.
        options: what the user chooses.
        arrangement: the order of axes that the runtime wants.

    Raises:
        UnknownGraph: the graph is no encoder that can be quantized layer by layer.
        TextsError: the calibration file cannot be used.
        UsageError: the first token's state is not enough for the checkpoint's pooling.
    """
    if options.cls_only and checkpoint.spec.pooling != "cls":
        raise UsageError(
            f"{checkpoint.source} pools by {checkpoint.spec.pooling!r}, which needs the states of all tokens. "
            "Leave out --cls-only."
        )
    encoder = read_encoder(model)
    if options.cls_only and encoder.tail is not None:
        raise UsageError("--cls-only and --sentence-embedding exclude each other. Leave out one of them.")
    plans = plan(encoder, checkpoint, options.calibration, Settings())
    return arrange(Builder(encoder, plans).build(Form()), arrangement, cls_only=options.cls_only)


def plan(
    encoder: Encoder, checkpoint: Checkpoint, calibration: Path | None, settings: Settings,
    advance: Callable[[int], None] = lambda _: None,
) -> list[LayerPlan]:  # fmt: skip
    """Calibrate an encoder and plan its layers."""
    tokenizer = TextTokenizer.load(checkpoint.root, checkpoint.spec.max_tokens)
    main, rest = divided(calibration_rows(tokenizer, calibration))
    texts, ranges = batches(encoder, main, tokenizer.pad), batches(encoder, rest, tokenizer.pad)
    return plan_layers(encoder, checkpoint.spec, texts, ranges, settings, advance)
