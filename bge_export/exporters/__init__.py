"""Exporters, one module per format, found by the module's name; listing the formats imports no exporter."""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from itertools import chain
from typing import get_type_hints

from bge_export.checkpoint.static_folder import STATIC
from bge_export.contracts import Attempts, Checkpoint, Exporter
from bge_export.errors import UsageError
from bge_export.plugins import find, names


def format_names() -> tuple[str, ...]:
    """Return the names of all formats."""
    return names(__name__)


def find_exporter(name: str, options: Mapping[str, object] = {}) -> Exporter:
    """Return the exporter of a format, created with its options.

    Raises:
        UsageError: the format does not exist, or an option or its value is not one of this exporter.
        MissingLibrary: the exporter's library is not installed.
    """
    from pydantic import TypeAdapter, ValidationError  # not needed to list the formats

    exporter = find(__name__, name, "EXPORTER")
    known = [field.name for field in fields(exporter)]
    if unknown := [option for option in options if option not in known]:
        raise UsageError(f"{name} has no option {unknown[0]!r}: {', '.join(known)}")

    hints = get_type_hints(exporter)
    values = {}
    for option, value in options.items():
        try:
            # A list of a TOML file stands for a tuple.
            given = tuple(value) if isinstance(value, list) else value
            values[option] = TypeAdapter(hints[option]).validate_python(given, strict=True)
        except ValidationError as error:
            raise UsageError(f"{name}: {option} is {value!r}: {error.errors()[0]['msg']}.") from error

    made: Exporter = exporter(**values)
    return made


OF_TOKENS: Mapping[str, tuple[str, ...]] = {
    "onnx": ("fp32", "fp16", "int8-dynamic"),
    "openvino": ("fp32", "fp16"),
    "torchscript": ("fp32",),
}
"""Format -> its precisions of models with token weights or vectors of tokens. The others round by what texts do to one
vector, or were never measured on such a model."""


OF_TABLES: Mapping[str, tuple[str, ...]] = {
    "onnx": ("fp32", "fp16"),
    "openvino": ("fp32", "fp16"),
    "torchscript": ("fp32",),
}
"""Format -> its precisions of static models. The others round what is multiplied, and a lookup multiplies nothing."""


def refuse_precisions(checkpoint: Checkpoint, format_name: str, precisions: Iterable[str]) -> None:
    """Raise UsageError for precisions that a checkpoint's heads do not have yet; nothing has been written."""
    if checkpoint.model_type == STATIC:
        known = OF_TABLES.get(format_name, ())
        if refused := [one for one in precisions if one not in known]:
            raise UsageError(
                f"{checkpoint.source} is a static embedding, whose graph looks rows up and multiplies nothing that "
                f"{format_name}'s {refused[0]} rounds. Instead: {', '.join(known) or 'none'}."
            )
    if not checkpoint.spec.has_token_heads:
        return

    known = OF_TOKENS.get(format_name, ())
    if refused := [one for one in precisions if one not in known]:
        heads = " and ".join(kind for kind in checkpoint.spec.heads if kind != "dense")
        instead = "int8-dynamic" if refused[0] == "int8" and "int8-dynamic" in known else ", ".join(known) or "none"
        raise UsageError(
            f"{checkpoint.source}: {format_name} has no {refused[0]} of models with the head {heads} yet. Instead: "
            f"{instead}; or --as embedding, where it has dense vectors too."
        )


def started(attempts: Attempts) -> Attempts:
    """Return the same attempts, the first one written already: later exports may change what it is made of."""
    return chain([next(attempts)], attempts)
