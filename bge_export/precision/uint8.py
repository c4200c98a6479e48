"""The precision uint8: dynamic quantization with unsigned weights."""

from bge_export.precision._dynamic import dynamic_precision

PRECISION, convert = dynamic_precision("uint8", signed=False)
