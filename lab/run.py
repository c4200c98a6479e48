"""Runs consumers of the lab on a folder and compares their vectors with the checkpoint's: `scripts/consumers` calls it.

Each consumer gets a throw-away environment with the versions of its `.txt`, which `--lock` writes from the line
`# needs:` of its `.py`. The report holds, for each lane and kind of text, the smallest cosine with the oracle, or the
consumer's error.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bge_export.bundle.manifest import Manifest, read_manifest
from bge_export.checkpoint.opening import open_checkpoint
from bge_export.commands import read_policy
from bge_export.errors import BgeExportError
from bge_export.heads.dense import dense_head
from bge_export.javascript.packages import clients_folder
from bge_export.oracle.eager import embed_texts
from bge_export.texts.corpus import Corpus, Text, builtin_corpus
from bge_export.texts.languages import kinds_for
from bge_export.texts.tokens import TextTokenizer

LAB = Path(__file__).resolve().parent
ROOT = LAB.parent
NEEDS = re.compile(r"^# needs: (.+)$", re.MULTILINE)
SECONDS = 1200
DOCUMENTS, EDGE_CASES, QUERIES = 30, 24, 12
"""How many fixture texts of each kind are embedded, spread over all of them."""

FAITHFUL = 0.99999
"""The smallest cosine of a float32 lane that counts as the checkpoint's own vector."""

Rows = NDArray[np.float64]


def consumers() -> list[str]:
    """Return the names of all consumers."""
    return sorted(path.stem for path in (LAB / "consumers").glob("*.py"))


def lock(name: str) -> None:
    """Write the exact versions of everything that a consumer needs."""
    script = LAB / "consumers" / f"{name}.py"
    if not NEEDS.search(script.read_text("utf-8")):
        return

    needed = NEEDS.findall(script.read_text("utf-8"))
    command = [*uv("pip", "compile"), "--no-header", "--no-annotate", "--no-emit-index-url", "--python", sys.executable]
    lines = "\n".join(needed[0].split()) + "\n"
    subprocess.run(
        [*command, "-o", script.with_suffix(".txt"), "-"], input=lines, text=True, check=True, stdout=subprocess.DEVNULL
    )


def uv(*arguments: str) -> list[str]:
    """Return a command line of uv."""
    return [str(Path(sys.executable).parent / "uv"), "--quiet", *arguments]


def spread(texts: Sequence[str], count: int) -> list[str]:
    """Return `count` texts, evenly spread, or all of them if there are fewer."""
    return [texts[number] for number in np.unique(np.linspace(0, len(texts) - 1, count).astype(int))]


def texts_for(folder: Path, manifest: Manifest) -> dict[str, list[str]]:
    """Return kind -> fixture texts; edge cases are the stress texts for the folder's tokenizer."""
    corpus = builtin_corpus()
    kinds = kinds_for(TextTokenizer.load(folder, manifest.spec.inputs.max_tokens), corpus)
    everyday, stress = (
        [one.text for one, kind in zip(corpus.texts, kinds, strict=True) if kind == wanted]
        for wanted in ("everyday", "stress")
    )
    return {
        "documents": spread(everyday, DOCUMENTS),
        "edge cases": spread(stress, EDGE_CASES),
        "queries": spread(everyday[1:], QUERIES),
    }


def oracle(model: str, texts: dict[str, list[str]], prompt: str) -> dict[str, Rows]:
    """Return kind -> the checkpoint's vectors, [N, D]; queries have their prompt."""
    given = {kind: [prompt + text if kind == "queries" else text for text in some] for kind, some in texts.items()}
    lines = tuple(
        Text(f"{kind} {number}", text, "") for kind, some in given.items() for number, text in enumerate(some)
    )
    rows = embed_texts(open_checkpoint(model), Corpus("lab", lines), threads=1).truth.astype(np.float64)

    ends = np.cumsum([len(some) for some in given.values()])
    return dict(zip(given, np.split(rows, ends[:-1]), strict=True))


def installed(script: Path, environment: Path) -> Path:
    """Return the Python of a new environment that holds what a consumer needs; this one's if it needs nothing."""
    exact = script.with_suffix(".txt")
    if not exact.is_file():
        return Path(sys.executable)

    python = environment / "bin/python"
    subprocess.run([*uv("venv"), "--python", sys.executable, environment], check=True)
    subprocess.run([*uv("pip", "install"), "--python", python, "-r", exact], check=True, timeout=SECONDS)
    return python


def ran(name: str, job: Path, work: Path) -> dict[str, Any]:
    """Run a consumer; return its result, or why there is none."""
    script, result = LAB / "consumers" / f"{name}.py", work / "result.json"

    try:
        python = installed(script, work / "env")

        # -P: some consumers have the name of their library, and would import themselves.
        settings = {**os.environ, "PYTHONPATH": str(LAB), "HF_HOME": str(work), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [python, "-P", script, job, result],
            env=settings,
            cwd=work,
            timeout=SECONDS,
            capture_output=True,
            text=True,
            check=False,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        return {"versions": {}, "error": f"{type(error).__name__}: {error}"[:200]}

    if not result.is_file():
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        return {"versions": {}, "error": lines[-1][:200] if lines else f"exit status {done.returncode}"}
    answer: dict[str, Any] = json.loads(result.read_text("utf-8"))
    return answer


def smallest(rows: object, wanted: Rows) -> float | str:
    """Return the smallest cosine of a consumer's rows with the oracle's; an error as it is."""
    if isinstance(rows, str):
        return rows

    found = np.array(rows, dtype=np.float64)
    if found.shape != wanted.shape:
        return f"vectors of shape {found.shape}, not {wanted.shape}"
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
    return round(float(((found * wanted).sum(1) / norms).min()), 8)


def judged(lane: dict[str, Any], wanted: dict[str, Rows], needed: dict[str, float]) -> dict[str, Any]:
    """Return a lane with cosines in place of vectors, and whether all of them are near enough."""
    kept = {key: lane[key] for key in ("name", "target", "setting", "fault")}
    if "error" in lane:
        return {**kept, "error": lane["error"], "same": False}

    cosines = {kind: smallest(lane[kind], rows) for kind, rows in wanted.items()}
    least = needed[lane["target"]]
    near = [isinstance(cosine, float) and cosine >= least for kind, cosine in cosines.items() if kind != "edge cases"]
    norms = [np.linalg.norm(np.array(lane[kind]), axis=1) for kind in wanted if not isinstance(lane[kind], str)]
    off = max((float(np.abs(one - 1).max()) for one in norms), default=float("nan"))
    return {**kept, "cosines": cosines, "norm_off": round(off, 6), "same": all(near)}


def limits(manifest: Manifest) -> dict[str, float]:
    """Return target -> the smallest cosine that it must keep: the gate's limit, but 0.99999 for float32."""
    policy = read_policy(None).tables
    rounded = {model.target: policy[model.target].min_cosine for model in manifest.models if model.target in policy}
    return {"": FAITHFUL, **{target: min(FAITHFUL, limit) for target, limit in rounded.items()}}


def report_of(folder: Path, model: str, names: Sequence[str]) -> dict[str, Any]:
    """Run consumers one after the other; return the report."""
    manifest = read_manifest(folder)
    head = dense_head(manifest.spec.to_spec())
    texts = texts_for(folder, manifest)
    prompt = manifest.spec.inputs.prompts.get("query", "")
    wanted, needed = oracle(model, texts, prompt), limits(manifest)

    job = {
        "folder": str(folder),
        "files": {one.target: one.files[0] for one in manifest.models},
        "prompt": prompt,
        "pooling": head.pooling,
        "dim": head.dim,
        "max_tokens": manifest.spec.inputs.max_tokens,
        "weights": bool(manifest.weights),
        "clients": str(clients_folder() / "node_modules"),
        "texts": texts,
    }

    found = {}
    for name in names:
        print(f"{name} …", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as work:
            path = Path(work) / "job.json"
            path.write_text(json.dumps(job), "utf-8")
            result = ran(name, path, Path(work))

        lanes = [judged(lane, wanted, needed) for lane in result.get("lanes", ())]
        found[name] = {"source": manifest.source.id, "versions": result["versions"], "lanes": lanes}
        if "error" in result:
            found[name]["error"] = result["error"]
        show(name, found[name])

    return {"texts": {kind: len(some) for kind, some in texts.items()}, "consumers": found}


def show(name: str, result: dict[str, Any]) -> None:
    """Print a consumer's lanes, one a line."""
    if "error" in result:
        print(f"{name}: {result['error']}", flush=True)
    for lane in result["lanes"]:
        said = lane.get("error") or ", ".join(f"{kind} {cosine}" for kind, cosine in lane["cosines"].items())
        print(f"{name}: {lane['name']}: {'same' if lane['same'] else 'OTHER'}: {said}", flush=True)


def main() -> int:
    """Run the named consumers, or all; exit with 1 if one gives other vectors, and is not known to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(consumers())}; by default all")
    parser.add_argument("--folder", type=Path, help="what bge-export wrote")
    parser.add_argument("--model", help="the checkpoint that it was exported from")
    parser.add_argument("--report", type=Path, help="write the figures as JSON; other consumers in the file stay")
    parser.add_argument("--lock", action="store_true", help="write the exact versions of the consumers, run nothing")
    asked = parser.parse_args()

    if unknown := sorted(set(asked.names) - set(consumers())):
        parser.error(f"there is no consumer {unknown[0]!r}, only {', '.join(consumers())}")
    names = asked.names or consumers()

    if asked.lock:
        for name in names:
            lock(name)
        return 0
    if asked.folder is None or asked.model is None:
        parser.error("--folder and --model are needed")

    report = report_of(asked.folder.resolve(), asked.model, names)
    if asked.report is not None:
        earlier = json.loads(asked.report.read_text("utf-8")) if asked.report.is_file() else {"consumers": {}}
        report["consumers"] = dict(sorted({**earlier["consumers"], **report["consumers"]}.items()))
        asked.report.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", "utf-8")

    lanes = [lane for name in names for lane in report["consumers"][name]["lanes"]]
    broken = any("error" in report["consumers"][name] for name in names)
    return 0 if lanes and not broken and all(lane["same"] or lane["fault"] for lane in lanes) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BgeExportError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
