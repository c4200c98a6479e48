"""Run one ONNX file on given inputs; needs numpy and the runtime alone, so that it starts on an emulated processor.

    python feed.py MODEL.onnx INPUTS.npz OUTPUTS.npz onnxruntime|openvino

INPUTS.npz holds `RUN/NAME` -> array, for one run of the model after the other; OUTPUTS.npz gets `RUN/NAME` likewise.
Inputs that the model does not have are left out. One thread.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]
Run = Callable[[Arrays], Arrays]


def onnxruntime_run(model: str) -> Run:
    """Return what runs the file in ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    inputs = [value.name for value in session.get_inputs()]
    outputs = [value.name for value in session.get_outputs()]
    return lambda given: dict(zip(outputs, session.run(outputs, {name: given[name] for name in inputs}), strict=True))


def openvino_run(model: str) -> Run:
    """Return what runs the file in OpenVINO, float32 outside of its integers."""
    import openvino

    config = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(model, "CPU", config)
    inputs = [value.get_any_name() for value in compiled.inputs]
    outputs = [value.get_any_name() for value in compiled.outputs]

    def run(given: Arrays) -> Arrays:
        results = compiled({name: given[name] for name in inputs})
        return {name: np.array(results[index]) for index, name in enumerate(outputs)}

    return run


RUNTIMES: Mapping[str, Callable[[str], Run]] = {"onnxruntime": onnxruntime_run, "openvino": openvino_run}


def runs(inputs: Path) -> dict[str, dict[str, NDArray[Any]]]:
    """Return the arrays of each run, in the file's order."""
    found: dict[str, dict[str, NDArray[Any]]] = {}
    with np.load(inputs) as file:
        for key in file.files:
            name, _, array = key.partition("/")
            found.setdefault(name, {})[array] = file[key]
    return found


def main(model: str, inputs: str, outputs: str, runtime: str) -> None:
    """Run and write."""
    run = RUNTIMES[runtime](model)
    found = {f"{name}/{key}": array for name, given in runs(Path(inputs)).items() for key, array in run(given).items()}
    np.savez(outputs, **found)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(*sys.argv[1:])
