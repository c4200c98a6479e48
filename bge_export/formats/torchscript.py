"""TorchScript files: one archive, whose inputs and outputs only its manifest tells."""

from bge_export.formats import Format
from bge_export.formats.contents.torchscript import contents

PLAIN_FILE = "torchscript/model.pt"
ELAND_FILE = "torchscript/traced_pytorch_model.pt"
"""Name of the file that eland sends to Elasticsearch."""

ELAND_VOCABULARY = "torchscript/vocabulary.json"
ELAND_CONFIG = "torchscript/inference_config.json"
BESIDE_ELAND = (ELAND_VOCABULARY, ELAND_CONFIG)
"""Names of the files that eland sends along."""

FORMAT = Format(suffixes=(".pt",), runtimes=("torchscript",), contents=contents)
