"""Two artifacts, or an artifact and the vectors of an index, may share that index, or are refused by name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bundles import write_bundle
from exporting import export_model

from bge_export.bundle.integrity import REPORT
from bge_export.bundle.manifest import read_bundle
from bge_export.cli import run
from bge_export.commands.comparing import CompareOptions, compare, judge_certificate
from bge_export.evaluate.embedding import embed
from bge_export.exporters.onnx import OnnxExporter
from bge_export.runtimes import find_runtime
from bge_export.same_index.certificate import Certificate, read_certificate
from bge_export.same_index.figures import Searches, compare_vectors, unit
from bge_export.texts.corpus import builtin_corpus

ALL_OF_IT = ("min_cosine", "min_mean_cosine", "min_mean_overlap", "min_first_kept", "max_similarity_change")


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.jsonl"
    lines = [json.dumps({"id": text.id, "text": text.text}) for text in builtin_corpus().texts[:40]]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


@pytest.fixture
def vectors(tiny_export, texts: Path, tmp_path: Path) -> Path:
    """The vectors of an index that the fp32 artifact built."""
    artifact = read_bundle(tiny_export.folder)[1][0]
    rows = embed(artifact, find_runtime("onnxruntime"), "cpu", 1, [text.text for text in builtin_corpus().texts[:40]])
    np.save(tmp_path / "vectors.npy", rows["sentence_embedding"].astype(np.float32))
    return tmp_path / "vectors.npy"


def changed(vectors: Path, change: Callable[[np.ndarray], np.ndarray]) -> Path:
    path = vectors.with_name("changed.npy")
    np.save(path, change(np.load(vectors)))
    return path


def command(*arguments: object) -> int:
    return run(["compare", *map(str, arguments)])


def test_two_precisions_may_share_an_index_and_the_gate_reads_it_again(
    tiny_export, texts: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, certificate = tiny_export.folder, tmp_path / "swap.json"
    models = [folder / "onnx/model_fp16.onnx", folder / "onnx/model.onnx"]
    assert command(*models, "--texts", texts, "-o", certificate) == 0
    out = capfd.readouterr().out
    assert "PASSED: they may share an index." in out
    assert "onnx-fp16" in out
    assert "Represent this sentence" in out

    assert run(["gate", str(certificate)]) == 0
    assert "PASSED: they may share an index." in capfd.readouterr().out

    found = read_certificate(certificate)
    assert found.figures is not None
    assert found.figures.texts == found.figures.queries == 40
    assert 0.9999 < found.figures.min_cosine < 1.0


def test_what_json_prints_is_a_certificate(tiny_export, texts: Path, tmp_path: Path, capfd) -> None:
    folder = tiny_export.folder
    options = ["--target", "onnx-fp16", "--other-target", "onnx-fp32", "--json"]
    assert command(folder, folder, "--texts", texts, *options) == 0
    (tmp_path / "swap.json").write_text(capfd.readouterr().out, "utf-8")
    assert run(["gate", str(tmp_path / "swap.json"), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["passed"]


def test_an_index_that_the_artifact_built_is_its_own(tiny_export, texts: Path, vectors: Path, tmp_path: Path) -> None:
    assert command(tiny_export.folder, "--texts", texts, "--against-index", vectors) == 0
    half = changed(vectors, lambda rows: rows.astype(np.float16))
    assert command(tiny_export.folder, "--texts", texts, "--against-index", half) == 0

    queries = tmp_path / "queries.txt"
    queries.write_text("red bicycle\nweather tomorrow\n", "utf-8")
    options = CompareOptions(queries=queries)
    found = compare(tiny_export.folder, None, texts, index=vectors, options=options)
    assert found.figures is not None
    assert found.figures.queries == 2
    assert found.figures.mean_overlap == 1.0
    assert found.queries is not None


OTHER_VECTORS: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "another order": ("cosine: smallest cosine", lambda rows: rows[::-1]),
    "random": ("neighbours: mean share", lambda rows: unit(np.random.default_rng(1).normal(size=rows.shape))),
    "another width": ("other-width: the width 64; needed: 63", lambda rows: rows[:, :63]),
    "not divided": ("other-normalisation: the normalisation True", lambda rows: rows * 7),
    "one bad row": (
        "not-finite: 1 texts have a vector",
        lambda rows: np.where(np.arange(40)[:, None] == 3, np.nan, rows),
    ),
}


@pytest.mark.parametrize("kind", OTHER_VECTORS)
def test_other_vectors_are_refused_by_name(
    tiny_export, texts: Path, vectors: Path, tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    reason, change = OTHER_VECTORS[kind]
    other = changed(vectors, change)
    certificate = tmp_path / "swap.json"
    assert command(tiny_export.folder, "--texts", texts, "--against-index", other, "-o", certificate) == 1
    out = capfd.readouterr().out
    assert reason in out
    assert "REFUSED: they may not share an index." in out
    assert run(["gate", str(certificate)]) == 1


def test_one_bad_row_in_a_thousand_is_found() -> None:
    random = np.random.default_rng(2)
    old = unit(random.normal(size=(1000, 8)))
    new = old.copy()
    new[417] = unit(random.normal(size=(1, 8)))
    figures = compare_vectors(new, old, [str(number) for number in range(1000)], Searches(old, old, new, old, own=True))
    assert figures.worst == "417"
    assert figures.min_cosine < 0.9
    assert figures.mean_overlap > 0.99


def test_equal_similarities_have_no_order() -> None:
    """Each text stands there twice: which of the two is found first says nothing."""
    once = unit(np.random.default_rng(3).normal(size=(20, 8)))
    old = np.concatenate([once, once])
    noise = np.random.default_rng(4).normal(size=old.shape) * 1e-9
    new = unit(old + noise)
    figures = compare_vectors(new, old, [str(n) for n in range(40)], Searches(old, old, new, new, own=True))
    assert figures.min_overlap == 1.0
    assert figures.first_kept == 1.0
    assert figures.largest_rank_change == 0
    assert figures.largest_similarity_change < 1e-6


def test_other_prompts_and_pooling_are_refused_by_name(
    tiny_export, tiny: Path, texts: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(tiny, tmp_path / "mean")
    (other / "1_Pooling/config.json").write_text(
        json.dumps({"word_embedding_dimension": 64, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True})
    )
    (other / "config_sentence_transformers.json").write_text('{"prompts": {"query": "query: "}}')
    done = export_model(OnnxExporter(), str(other), tmp_path / "out", precisions=["fp32"], check=False)

    assert command(tiny_export.folder, done.folder, "--texts", texts, "-o", tmp_path / "swap.json") == 1
    out = capfd.readouterr().out
    assert "other-pooling: the pooling 'cls'; needed: 'mean', as on the other side" in out
    assert "other-prompts:" in out
    assert read_certificate(tmp_path / "swap.json").figures is None


def test_another_longest_input_is_refused_though_no_text_reaches_it(
    tiny_export, tiny: Path, texts: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(tiny, tmp_path / "short")
    settings = json.loads((other / "sentence_bert_config.json").read_text("utf-8")) | {"max_seq_length": 64}
    (other / "sentence_bert_config.json").write_text(json.dumps(settings))
    done = export_model(OnnxExporter(), str(other), tmp_path / "out", precisions=["fp32"], check=False)
    assert command(tiny_export.folder, done.folder, "--target", "onnx-fp32", "--texts", texts) == 1
    assert "other-longest-input: the longest input 512; needed: 64" in capfd.readouterr().out


def test_a_certificate_is_no_report_of_a_folder(bundle: Path, certificate: Path) -> None:
    shutil.copyfile(certificate, bundle / REPORT)
    assert run(["gate", str(bundle)]) == 3
    shutil.copyfile(certificate, bundle / "swap.json")
    assert run(["gate", str(bundle / "swap.json")]) == 3


@pytest.fixture
def certificate(tiny_export, texts: Path, vectors: Path, tmp_path: Path) -> Path:
    """A refused comparison."""
    path = tmp_path / "swap.json"
    other = changed(vectors, lambda rows: rows[::-1])
    assert command(tiny_export.folder, "--texts", texts, "--against-index", other, "-o", path) == 1
    return path


def doctored(path: Path, *, sealed: bool, **changes: object) -> Path:
    fields = json.loads(path.read_text("utf-8")) | changes
    if sealed:
        said = Certificate.model_validate_json(json.dumps(fields))
        fields["digest"] = said.computed_digest
    path.write_text(json.dumps(fields), "utf-8")
    return path


def test_a_doctored_verdict_is_refused(certificate: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for sealed in (False, True):
        doctored(certificate, sealed=sealed, reasons=[])
        assert run(["gate", str(certificate)]) == 1
        out = capfd.readouterr().out
        assert "inconsistent: its verdict is not that of its figures" in out
        assert ("edited:" in out) != sealed


def test_loosened_limits_are_not_those_of_the_gate(certificate: Path, tmp_path: Path) -> None:
    loose = dict.fromkeys(ALL_OF_IT, 1e-9) | {"max_similarity_change": 0.999}
    said = read_certificate(certificate)
    assert said.figures is not None
    better = said.figures.model_dump() | {"min_cosine": 0.5, "mean_cosine": 0.6, "largest_similarity_change": 0.5}
    better |= {"min_overlap": 0.1, "mean_overlap": 0.1, "first_kept": 0.1}
    doctored(certificate, sealed=True, reasons=[], limits=loose, figures=better)
    assert run(["gate", str(certificate)]) == 1
    assert {one.rule for one in judge_certificate(certificate)[1]} >= {"cosine", "mean-cosine"}

    own = tmp_path / "limits.toml"
    own.write_text("".join(f"{name} = {value}\n" for name, value in loose.items()), "utf-8")
    assert run(["gate", str(certificate), "--thresholds", str(own)]) == 0


def test_figures_that_no_measurement_gives_are_refused(certificate: Path) -> None:
    said = read_certificate(certificate)
    assert said.figures is not None
    doctored(certificate, sealed=True, figures=said.figures.model_dump() | {"min_cosine": 1.0, "mean_cosine": 0.2})
    assert [one.rule for one in judge_certificate(certificate)[1]] == ["inconsistent", "inconsistent"]


def test_options_of_a_report_do_not_fit_a_certificate(certificate: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["gate", str(certificate), "--require", "onnxruntime:cpu", "--github"]) == 2
    assert "--require, --github: this is a certificate" in capfd.readouterr().err


def test_what_cannot_be_compared_is_a_usage_error(
    tiny_export, texts: Path, vectors: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_export.folder
    assert command(folder, "--texts", texts) == 2
    assert command(folder, folder, "--texts", texts, "--against-index", vectors) == 2
    assert command(folder, folder, "--texts", texts, "--target", "onnx-q4") == 2

    few = tmp_path / "few.txt"
    few.write_text("one\ntwo\n", "utf-8")
    assert command(folder, folder, "--texts", few) == 2
    assert "the ten nearest of so few say nothing" in capfd.readouterr().err

    fewer = changed(vectors, lambda rows: rows[1:])
    assert command(folder, "--texts", texts, "--against-index", fewer) == 2
    assert "holds 39 rows for 40 texts" in capfd.readouterr().err

    for content in (b"", b"not an array", b"\x93NUMPY"):
        (tmp_path / "bad.npy").write_bytes(content)
        assert command(folder, "--texts", texts, "--against-index", tmp_path / "bad.npy") == 2

    whole = changed(vectors, lambda rows: (rows * 100).astype(np.int64))
    assert command(folder, "--texts", texts, "--against-index", whole) == 2
    assert "not rows of floating-point numbers" in capfd.readouterr().err

    taken = tmp_path / "notes.json"
    taken.write_text("{}", "utf-8")
    assert command(folder, folder, "--texts", texts, "-o", taken) == 2
    assert taken.read_text("utf-8") == "{}"


def test_a_model_file_outside_of_a_folder_is_a_usage_error(texts: Path, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"x")
    assert command(tmp_path / "model.onnx", tmp_path / "model.onnx", "--texts", texts) == 2


def test_every_limit_must_be_there(tiny_export, texts: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    own = tmp_path / "limits.toml"
    own.write_text("min_cosine = 0.5\n", "utf-8")
    folder = tiny_export.folder
    assert command(folder, folder, "--texts", texts, "--limits", own) == 2
    assert "Every limit must be there" in capfd.readouterr().err


def test_a_damaged_folder_is_refused_before_anything_runs(texts: Path, tmp_path: Path) -> None:
    root = write_bundle(tmp_path / "bundle")
    (root / "onnx/model.onnx").write_bytes(b"other")
    assert command(root, root, "--texts", texts) == 3
