"""The precision int8-dynamic: dynamic quantization with signed weights, as most published files are made."""

from bge_export.precision._dynamic import dynamic_precision

PRECISION, convert = dynamic_precision("int8-dynamic", signed=True)
