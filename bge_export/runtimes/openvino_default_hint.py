"""OpenVINO with its default precision, as users run it without settings: a separate row beside the pinned runtime.

The default is bfloat16 on processors that have instructions for it, and OpenVINO does not announce it.
"""

from bge_export.runtimes.openvino import OpenVinoRuntime

RUNTIME = OpenVinoRuntime("openvino_default_hint", frozenset({"openvino"}), hint=None, known=("cpu",))
