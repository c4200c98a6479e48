"""The real checkpoints: against golden vectors, numbers that others published, and the issue's figures."""

import numpy as np
import pytest
from conftest import outside

from bge_export.checkpoint.opening import open_checkpoint
from bge_export.commands import Exported, evaluate_pairs, write_reference
from bge_export.oracle.eager import embed_texts
from bge_export.texts.corpus import Corpus, Text
from bge_export.texts.fixtures import fixtures_folder

COOL_FLAGS = (0, 1, 382, 383), (-0.0440094993, 0.0160218030, -0.0074426383, -0.0055019930)
"""langchain4j's test of bge-small-en, computed with sentence-transformers in 2023."""
HELLO_WORLD_PYTHON = range(5), (-0.0232, -0.0255, 0.0174, -0.0639, -0.0006)
"""fastembed's test, rounded to four digits."""
HELLO_WORLD_PORTS = range(5), (-0.02313, -0.02552, 0.017357, -0.06393, -0.00061)
"""fastembed's Go and Rust ports."""
SHU = (0, 1, 510, 511), (-0.0019266217, 0.0233149417, 0.0478256717, 0.0256523509)
"""langchain4j's test of bge-small-zh."""


LIMITS = {"onnx-fp32": (0.999999, 1e-5), "onnx-fp16": (0.9999, 5e-3)}
"""The issue's figures: smallest cosine with the oracle, largest difference."""


def oracle(name: str, text: str) -> np.ndarray:
    checkpoint = open_checkpoint(outside("BGE_EXPORT_MODELS", name))
    reference = embed_texts(checkpoint, Corpus("one", (Text("1", text, ""),)), threads=1, every_id=False)
    return reference.vectors["cls"][0]


@pytest.mark.parametrize(
    ("name", "text", "published", "tolerance"),
    [
        ("bge-small-en", "I love cool flags!", COOL_FLAGS, 1e-5),
        ("bge-small-en", "hello world", HELLO_WORLD_PYTHON, 5e-4),
        ("bge-small-en", "hello world", HELLO_WORLD_PORTS, 5e-4),
        ("bge-small-zh", "书", SHU, 1e-5),
    ],
)
def test_the_oracle_gives_what_others_published(name, text, published, tolerance) -> None:
    components, values = published
    np.testing.assert_allclose(oracle(name, text)[list(components)], values, rtol=0, atol=tolerance)


def test_the_oracle_gives_the_golden_vectors(real_checkpoint, tmp_path) -> None:
    digest = open_checkpoint(real_checkpoint).digest
    golden = fixtures_folder() / "golden" / f"{real_checkpoint.name}@{digest[:12]}.npz"
    assert golden.is_file(), "the checkpoint changed: run scripts/make_fixtures.py golden"
    reference = write_reference(str(real_checkpoint), tmp_path / "r.npz", threads=1)
    with np.load(golden) as data:
        assert tuple(data["ids"].tolist()) == reference.ids
        np.testing.assert_allclose(reference.vectors["cls"], data["vectors"], rtol=0, atol=1e-6)


def test_every_precision_is_far_within_its_limits(real_export: Exported) -> None:
    assert real_export.proof is not None
    assert real_export.proof.verdict.passed
    lanes = real_export.proof.report.lanes
    assert {(lane.target, lane.runtime) for lane in lanes} == {
        (target, runtime) for target in LIMITS for runtime in ("onnxruntime", "openvino")
    }
    for lane in lanes:
        cosine, difference = LIMITS[lane.target]
        assert len(lane.rows) >= 110
        assert min(row.cosine for row in lane.rows) >= cosine
        assert max(row.max_abs for row in lane.rows) <= difference
        assert min(min(row.batch_cosine.values()) for row in lane.rows) >= cosine


@pytest.mark.parametrize(
    ("name", "task", "published", "tolerance"),
    [("bge-small-en", "STSBenchmark", 84.88, 0.02), ("bge-small-zh", "STSB-zh", 76.48, 0.1)],
)
def test_artifacts_score_what_was_published(name, task, published, tolerance, real_exports) -> None:
    pairs = outside("BGE_EXPORT_EVAL", f"{task}/test.tsv")
    for score in evaluate_pairs(real_exports(name).folder, pairs, threads=1):
        assert score.spearman == pytest.approx(published, abs=tolerance), score
