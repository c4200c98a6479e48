"""TorchScript files: one archive, which only torch reads, so that nothing is told of one without its manifest."""

from bge_export.formats import Format

FORMAT = Format(suffixes=(".pt",), runtimes=("torchscript",))
