"""Run an int8 ONNX file on other processors, emulated, and compare its vectors and integer products with this one's.

    scripts/processors FILE.onnx … [--tokenizer FOLDER] [--runtime openvino] [--arm64]

It exits 1 where they differ, or where the control, a copy with saturating pairs, does not: then nothing was tested. The
processor at hand must have VNNI (or be another kind than x86), else there is nothing to compare with.
"""

import argparse
import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from products import cut_out, products, with_saturating_pairs, worst_inputs

from bge_export.parity.figures import cosine_figure, difference_figure
from bge_export.parity.measure.metrics import cosines
from bge_export.texts.corpus import builtin_corpus
from bge_export.texts.tokens import TextTokenizer

FEED = Path(__file__).parent / "feed.py"
TEXTS, LONGEST = 26, 32
"""How many texts are embedded, and how many tokens they have at most: an emulated processor takes a second a text."""

SAME_PRODUCT = 1e-6
"""Largest difference of a product, relative to the largest product of its kind: integers are the same, and the floats
made of them may differ in the last bit. Saturation moves them by tenths."""


@dataclass(frozen=True)
class Machine:
    """A processor: how a command starts there, and what is expected of it.

    Attributes:
        name: for people.
        start: what stands before the arguments of a Python.
        path: its PYTHONPATH.
        min_cosine: of vectors with this processor's, by runtime. Where a runtime adds floats in another order, a value
            beside the middle between two codes is rounded the other way, and the vector moves as far as quantization
            itself moves it (measured: 0.9996). Pairs that saturate moved it to 0.98.
        saturates: whether saturating pairs give other products, so that the control must differ.
    """

    name: str
    start: tuple[str, ...]
    path: str
    min_cosine: Mapping[str, float]
    saturates: bool


HERE = Machine("this one", (sys.executable,), "", {}, saturates=False)
HASWELL = Machine(
    "x86-64 with AVX2, without VNNI (Haswell)",
    ("qemu-x86_64", "-cpu", "Haswell", str(Path(sys.executable).resolve())),
    sysconfig.get_paths()["purelib"],
    {"onnxruntime": 0.99999, "openvino": 0.999},
    saturates=True,
)


def arm64(folder: Path) -> Machine:
    """Return the machine of an arm64 Python that `scripts/cpus/arm64` made."""
    (python,) = (folder / "root/usr/bin").glob("python3.[0-9]*[0-9]")
    start = ("qemu-aarch64", "-cpu", "neoverse-n1", "-L", str(folder / "root"), str(python))
    limits = {"onnxruntime": 0.999, "openvino": 0.999}
    return Machine("arm64 (Neoverse N1)", start, str(folder / "site"), limits, saturates=False)


@dataclass(frozen=True)
class Difference:
    """How a file differs from itself on another processor."""

    cosine: float
    identical: int
    product: float
    control: float


def run(machine: Machine, runtime: str, model: onnx.ModelProto, inputs: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Return what a model gives on a machine, `RUN/NAME` -> array."""
    with tempfile.TemporaryDirectory() as folder:
        file, given, got = (Path(folder) / name for name in ("model.onnx", "inputs.npz", "outputs.npz"))
        onnx.save(model, file)
        np.savez(given, **inputs)
        environment = os.environ | {"OMP_NUM_THREADS": "1"} | ({"PYTHONPATH": machine.path} if machine.path else {})
        command = [*machine.start, str(FEED), str(file), str(given), str(got), runtime]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"error: {machine.name}: {runtime} exits with {done.returncode}:\n{done.stderr[-2000:]}")
        with np.load(got) as file_of_outputs:
            return dict(file_of_outputs)


def token_inputs(tokenizer: Path) -> dict[str, NDArray[np.int64]]:
    """Return one run a text, for texts of many lengths up to LONGEST tokens."""
    found = TextTokenizer.load(tokenizer, 512).encode([text.text for text in builtin_corpus().texts])
    short = sorted({row for row in found if 2 < len(row) <= LONGEST}, key=lambda row: (len(row), row))
    chosen = [short[index] for index in np.linspace(0, len(short) - 1, min(TEXTS, len(short))).astype(int)]
    runs: dict[str, NDArray[np.int64]] = {}
    for number, row in enumerate(chosen):
        ids = np.array([row], dtype=np.int64)
        runs[f"{number}/input_ids"] = ids
        runs[f"{number}/attention_mask"], runs[f"{number}/token_type_ids"] = np.ones_like(ids), np.zeros_like(ids)
    return runs


def vectors(outputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    """Return the first token's states of the first output, [N, D]."""
    name = next(iter(outputs)).partition("/")[2]
    return np.stack([states[0, 0] for key, states in outputs.items() if key.partition("/")[2] == name])


def product_difference(one: Mapping[str, NDArray[Any]], other: Mapping[str, NDArray[Any]]) -> float:
    """Return the largest difference of two sets of products, each relative to its largest value."""
    return max(float(np.abs(one[key] - other[key]).max() / np.abs(one[key]).max()) for key in one)


def compare(model: onnx.ModelProto, tokens: Mapping[str, Any], runtime: str, machine: Machine) -> Difference:
    """Return how a file differs on a machine from here."""
    here, there = (vectors(run(one, runtime, model, tokens)) for one in (HERE, machine))
    worst = {f"worst/{name}": value for name, value in worst_inputs(model).items()}
    kept, saturating = cut_out(model), cut_out(with_saturating_pairs(model))
    moved = [
        product_difference(run(HERE, runtime, one, worst), run(machine, runtime, one, worst))
        for one in (kept, saturating)
    ]
    return Difference(float(cosines(here, there).min()), int((here == there).all(1).sum()), *moved)


def complaints(found: Difference, runtime: str, machine: Machine) -> list[str]:
    """Return what is wrong, for people."""
    limit, wrong = machine.min_cosine[runtime], []
    if not found.cosine >= limit:
        wrong.append(f"smallest cosine {cosine_figure(found.cosine)}, needed: at least {limit}")
    if not found.product <= SAME_PRODUCT:
        wrong.append(f"a product differs by {difference_figure(found.product)}, needed: at most {SAME_PRODUCT}")
    if machine.saturates and not found.control > SAME_PRODUCT:
        wrong.append(
            "the control, a copy with saturating pairs, gives the same: nothing was tested (has this machine VNNI?)"
        )
    return wrong


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.onnx")
    parser.add_argument("--tokenizer", type=Path, help="folder of tokenizer.json; by default two above the file")
    parser.add_argument("--runtime", action="append", choices=("onnxruntime", "openvino"))
    parser.add_argument("--arm64", type=Path, help="folder that scripts/cpus/arm64 made")
    options = parser.parse_args(arguments)
    refused = 0
    for path in options.files:
        if not path.is_file():
            parser.error(f"{path} does not exist. Give an int8 .onnx file, relative to the repository.")
        model = onnx.load(path)
        if not any(products(model)):
            parser.error(f"{path} holds no product of int8 weights with quantized activations. Give an int8 file.")
        tokens = token_inputs(options.tokenizer or path.parent.parent)
        for machine in (HASWELL, *([arm64(options.arm64)] if options.arm64 else [])):
            for runtime in options.runtime or ["onnxruntime"]:
                found = compare(model, tokens, runtime, machine)
                count = len({key.partition("/")[0] for key in tokens})
                print(
                    f"{path.name}, {runtime}, {machine.name}: smallest cosine {cosine_figure(found.cosine)}, "
                    f"{found.identical} of {count} vectors bit-identical; products differ by "
                    f"{difference_figure(found.product)}, with saturating pairs by {difference_figure(found.control)}",
                    flush=True,
                )
                wrong = complaints(found, runtime, machine)
                refused += len(wrong)
                print(*(f"  REFUSED: {one}" for one in wrong), sep="\n", end="\n" if wrong else "")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
