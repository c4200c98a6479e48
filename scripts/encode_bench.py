"""Times `bge_export.load` against sentence-transformers' ONNX backend in turns; `scripts/encode_bench` calls it."""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}

import numpy as np
import onnxruntime
import torch
from sentence_transformers import SentenceTransformer

import bge_export

ROOT = Path(__file__).resolve().parent.parent
COUNT = 1000
Encode = Callable[[Sequence[str]], "np.ndarray"]


def sentences() -> list[str]:
    """Return the package's English calibration texts, which are of many lengths, repeated to `COUNT`."""
    found = (ROOT / "parity_fixtures/calibration/en.txt").read_text("utf-8").splitlines()
    return [found[number % len(found)] for number in range(COUNT)]


def of_sentence_transformers(folder: str, file: str) -> Encode:
    """Return its `encode` with one thread and its default batches."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    model = SentenceTransformer(
        folder,
        backend="onnx",
        device="cpu",
        model_kwargs={"file_name": file, "provider": "CPUExecutionProvider", "session_options": options},
    )
    return lambda texts: np.asarray(model.encode(texts, show_progress_bar=False))


def main() -> None:
    """Print the median times, the ratio within rounds, and how near both vectors are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texts", type=Path, help="one text a line")
    asked = parser.parse_args()

    torch.set_num_threads(1)
    texts = asked.texts.read_text("utf-8").splitlines()[:COUNT] if asked.texts else sentences()
    ours = bge_export.load(asked.folder, precision=asked.precision, threads=1)
    theirs = of_sentence_transformers(asked.folder, ours.artifact.model)

    wanted, found = theirs(texts[:64]), ours.encode(texts[:64])
    print(f"{len(texts)} texts, smallest cosine of both {float((wanted * found).sum(1).min()):.9f}")

    taken: list[tuple[float, float]] = []
    for number in range(asked.rounds):
        times = {}
        for name, encode in (("ours", ours.encode), ("theirs", theirs))[:: 1 if number % 2 else -1]:
            start = time.perf_counter()
            encode(texts)
            times[name] = time.perf_counter() - start
        taken.append((times["ours"], times["theirs"]))
        print(f"round {number + 1}: {times['ours']:.2f} s, sentence-transformers {times['theirs']:.2f} s", flush=True)

    ratios = sorted(one / other for one, other in taken)
    print(f"ratio: median {statistics.median(ratios):.3f}, from {ratios[0]:.3f} to {ratios[-1]:.3f}")


if __name__ == "__main__":
    main()
