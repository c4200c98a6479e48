"""OpenVINO with its own choice of precision, as users run it who set nothing: a row of its own beside the pinned one.

It is bfloat16 on processors that have instructions for it, and OpenVINO does not say so.
"""

from bge_export.runtimes.openvino import OpenVinoRuntime

RUNTIME = OpenVinoRuntime("openvino_default_hint", frozenset({"openvino"}), hint=None, known=("cpu",))
