"""The search from the fast end to the exact end, and the command that asks for it."""

import json
from pathlib import Path

import pytest
from exporting import export_model

from bge_export.errors import ExportError, UsageError
from bge_export.exporters.onnx import OnnxExporter
from bge_export.exporters.openvino import OpenVinoExporter
from bge_export.precision import model_file
from bge_export.precision.int8_options import Int8Options
from bge_export.saturation import facts_of


def export(tiny: Path, out: Path, options: Int8Options) -> dict[str, object]:
    export_model(OnnxExporter(int8=options), str(tiny), out, precisions=["int8"], check=False)
    (model,) = json.loads((out / "bge_export.json").read_text("utf-8"))["models"]
    found: dict[str, object] = model["options"]
    return found


def test_the_first_variant_that_holds_the_cosine_is_taken(tiny: Path, tmp_path: Path) -> None:
    found = export(tiny, tmp_path / "out", Int8Options(min_cosine=0.999))
    steps = found["frontier"]
    assert isinstance(steps, list)
    assert all(min(step["smallest"], step["mean"]) < 0.999 or step["smallest_stress"] < 0.99 for step in steps[:-1])
    assert steps[-1]["smallest"] >= 0.999
    assert found["choice"]["held"] is True  # type: ignore[index]


def test_in_openvino_too_no_product_of_the_exact_end_can_overflow(tiny: Path, tmp_path: Path) -> None:
    exporter = OpenVinoExporter(int8=Int8Options(min_cosine=0.9995))
    export_model(exporter, str(tiny), tmp_path / "out", precisions=["int8"], check=False)
    (model,) = json.loads((tmp_path / "out/bge_export.json").read_text("utf-8"))["models"]
    assert model["options"]["frontier"][-1]["precise"] > 0
    facts = facts_of(tmp_path / "out" / model_file("openvino", "int8"), "openvino")
    assert (facts.weights > 12, facts.saturating) == (True, 0)


def test_a_cosine_that_no_variant_holds_is_refused_with_the_best(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"held back and phrases of them: the best reached 0\.99"):
        export(tiny, tmp_path / "out", Int8Options(min_cosine=1.0))
    assert not (tmp_path / "out").exists()


def test_the_first_token_alone_needs_cls_pooling(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "mean").mkdir()
    with pytest.raises(UsageError, match="exclude each other"):
        export_model(
            OnnxExporter(sentence_embedding=True, int8=Int8Options(cls_only=True)), str(tiny), tmp_path / "out",
            precisions=["int8"], check=False,
        )  # fmt: skip


def test_options_of_int8_need_int8(bge, tiny: Path, tmp_path: Path) -> None:
    done = bge("onnx", tiny, "-o", tmp_path / "out", "--cls-only")
    assert done.returncode == 2
    assert "--quantize int8" in done.stderr


def test_the_variants_tried_are_printed(bge, tiny: Path, tmp_path: Path) -> None:
    done = bge("onnx", tiny, "-o", tmp_path / "out", "--quantize", "int8", "--min-cosine", "0.9995", "--no-check")
    assert done.returncode == 0, done.stderr
    assert "onnx-int8: variants tried on probe texts" in done.stdout
    assert "matrix products (quantization points) are rounded with a residual" in done.stdout
    assert "times the multiplications of the fastest variant" in done.stdout
