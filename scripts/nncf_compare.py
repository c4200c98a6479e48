"""Compare an int8 folder of OpenVINO with the file that NNCF's defaults make of the same model: exactness, then time.

    scripts/nncf FOLDER [--texts FILE] [--shape BxS …] [--threads N] [--seconds N] [--processes N]

FOLDER was written by `bge-export openvino MODEL -o FOLDER --quantize int8`. NNCF is given the package's calibration
texts, like our own recipe. Its file is kept as FOLDER.nncf/openvino_model.xml, and made once. Time is measured in
several processes, one after the other, since a ratio that is steady within one moves by 1 % from one to the next.
Exit status 1 where ours is less exact.
"""

import argparse
import multiprocessing
import random
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from bge_export.bench.render import render
from bge_export.bench.report import BenchReport
from bge_export.bundle.manifest import read_bundle
from bge_export.calibration.texts import calibration_rows
from bge_export.commands import bench_files
from bge_export.contracts import LAST_HIDDEN_STATE
from bge_export.heads.dense import DenseHead, dense_head
from bge_export.parity.figures import cosine_figure
from bge_export.precision import model_file
from bge_export.texts.corpus import builtin_corpus, load_corpus
from bge_export.texts.tokens import TextTokenizer

BATCH = 8
"""Texts in the batches that show what a neighbour does to a text."""


def quantized_by_nncf(folder: Path, tokenizer: TextTokenizer) -> Path:
    """Return NNCF's file of the folder's float32 model; its default settings for transformers."""
    path = folder.with_name(f"{folder.name}.nncf") / "openvino_model.xml"
    if not path.is_file():
        import nncf
        import openvino

        model = openvino.Core().read_model(folder / model_file("openvino", "fp32"))
        names = [port.get_any_name() for port in model.inputs]
        rows = calibration_rows(tokenizer, None)
        random.Random(0).shuffle(rows)  # noqa: S311 - it takes the first 300
        data = nncf.Dataset(rows, lambda row: tokenizer.pad([row]).feed(names))
        path.parent.mkdir(exist_ok=True)
        openvino.save_model(nncf.quantize(model, data, model_type=nncf.ModelType.TRANSFORMER), path)
    return path


def embed(
    file: Path, batches: Sequence[Sequence[tuple[int, ...]]], tokenizer: TextTokenizer, head: DenseHead,
    threads: int,
) -> NDArray[np.float64]:  # fmt: skip
    """Return unit embeddings [N, D] of the texts in these batches."""
    import openvino

    core = openvino.Core()
    config = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(core.read_model(file), "CPU", config).create_infer_request()
    names = [port.get_any_name() for port in request.get_compiled_model().inputs]
    found = []
    for rows in batches:
        batch = tokenizer.pad(rows)
        request.infer(batch.feed(names))
        states = {LAST_HIDDEN_STATE: np.array(request.get_output_tensor(0).data)}
        found.append(head.rows(states, batch.attention_mask)[LAST_HIDDEN_STATE].astype(np.float64))
    joined = np.concatenate(found)
    return np.asarray(joined / np.linalg.norm(joined, axis=1, keepdims=True))


def timed(ours: Path, theirs: Path, shapes: Sequence[str], threads: int, seconds: float) -> BenchReport:
    """Return our time beside theirs."""
    return bench_files([ours], against=theirs, shapes=shapes, threads=(threads,), seconds=seconds)


def main() -> int:
    """Print how exact both are, alone and in batches, and how long both take."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--texts", type=Path, help="a .txt, .jsonl or .tsv file [default: the fixture texts]")
    parser.add_argument("--shape", action="append", default=[], help="such as 8x17, repeatable [default: as for bench]")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20, help="of each process [default: 20]")
    parser.add_argument("--processes", type=int, default=5, help="in which time is measured [default: 5]")
    chosen = parser.parse_args()
    manifest, _ = read_bundle(chosen.folder)
    spec = manifest.spec.to_spec()
    head = dense_head(spec)
    tokenizer = TextTokenizer.load(chosen.folder, spec.inputs.max_tokens)
    texts = (load_corpus(chosen.texts) if chosen.texts else builtin_corpus()).texts
    ours = chosen.folder / model_file("openvino", "int8")
    theirs = quantized_by_nncf(chosen.folder, tokenizer)

    rows = tokenizer.encode([text.text for text in texts])
    alone = [[row] for row in rows]
    together = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
    wide = embed(chosen.folder / model_file("openvino", "fp32"), alone, tokenizer, head, chosen.threads)
    smallest = []
    for name, file in (("ours", ours), ("NNCF", theirs)):
        own = embed(file, alone, tokenizer, head, chosen.threads)
        exact = (own * wide).sum(1)
        moved = (own * embed(file, together, tokenizer, head, chosen.threads)).sum(1)
        smallest.append(exact.min())
        print(
            f"{name}: with float32, {len(rows)} texts: smallest cosine {cosine_figure(float(exact.min()))} "
            f"({texts[exact.argmin()].id}), mean {cosine_figure(float(exact.mean()))}; alone with batches of {BATCH}: "
            f"smallest {cosine_figure(float(moved.min()))}, {np.sum(moved < 1 - 1e-6)} texts below 0.999999"
        )
    alike = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=alike, max_tasks_per_child=1) as pool_:
        reports = [
            pool_.submit(timed, ours, theirs, chosen.shape, chosen.threads, chosen.seconds).result()
            for _ in range(chosen.processes)
        ]
    Console(width=160, highlight=False).print(render(reports[0]))
    ratios = [lane.ratio for report in reports for lane in report.lanes if lane.file != report.base]
    print(
        f"\nours ÷ NNCF, all shapes, in {len(ratios)} processes: {', '.join(f'{ratio:.3f}' for ratio in ratios)}; "
        f"geometric mean {np.exp(np.log(ratios).mean()):.3f}"
    )
    return 0 if smallest[0] > smallest[1] else 1


if __name__ == "__main__":
    sys.exit(main())
