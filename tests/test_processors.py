"""`scripts/processors`: the same int8 file on a processor without VNNI, emulated. Needs qemu-user, as CI has it."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import IN_CI
from exporting import export_model
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from bge_export.commands import Exported
from bge_export.exporters.onnx import OnnxExporter
from bge_export.saturation import facts_of

SCRIPTS = Path(__file__).parent.parent / "scripts/cpus"
sys.path.insert(0, str(SCRIPTS))

from compare import main  # noqa: E402
from products import cut_out, products, with_saturating_pairs, worst_inputs  # noqa: E402


class Texts(CalibrationDataReader):
    """Token ids for the ranges of the activations."""

    def __init__(self, vocabulary: int) -> None:
        ids = np.random.default_rng(0).integers(5, vocabulary, (8, 1, 16), dtype=np.int64)
        self.feeds: Iterator[dict[str, np.ndarray]] = (
            {"input_ids": row, "attention_mask": np.ones_like(row), "token_type_ids": np.zeros_like(row)} for row in ids
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.feeds, None)


@pytest.fixture(scope="module")
def int8_file(tiny_export: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint as ONNX Runtime's own tool quantizes it, with weights of 7 bits."""
    if shutil.which("qemu-x86_64") is None:
        reason = "left out: qemu-x86_64 is not installed (apt-get install qemu-user)"
        if IN_CI:
            pytest.fail(reason)
        pytest.skip(reason)
    path = tmp_path_factory.mktemp("int8") / "model.onnx"
    quantize_static(
        tiny_export.folder / "onnx/model.onnx", path, Texts(50), quant_format=QuantFormat.QDQ, per_channel=True,
        reduce_range=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        op_types_to_quantize=["MatMul"], extra_options={"MatMulConstBOnly": True},
    )  # fmt: skip
    return path


def test_a_file_that_keeps_the_saturation_constraint_is_the_same_without_vnni(
    int8_file: Path, tiny: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The control inside breaks every pair and must differ, so this cannot pass where nothing is emulated."""
    assert facts_of(int8_file, "onnx").weights > 0
    assert facts_of(int8_file, "onnx").saturating == 0
    assert main([str(int8_file), "--tokenizer", str(tiny)]) == 0
    printed = capfd.readouterr().out
    assert "26 of 26 vectors bit-identical" in printed
    assert "products differ by 0," in printed


def test_a_file_that_breaks_it_is_refused(
    int8_file: Path, tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.onnx"
    onnx.save(with_saturating_pairs(onnx.load(int8_file)), broken)
    facts = facts_of(broken, "onnx")
    assert facts.saturating == facts.pairs > 0
    assert main([str(broken), "--tokenizer", str(tiny)]) == 1
    assert "REFUSED: a product differs by" in capfd.readouterr().out


def test_a_file_without_integers_is_no_file_for_it(tiny_export: Exported, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(tiny_export.folder / "onnx/model.onnx")])
    assert ended.value.code == 2
    assert "holds no product of int8 weights" in capfd.readouterr().err


def test_a_file_that_does_not_exist(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path / "none.onnx")])
    assert ended.value.code == 2
    assert "none.onnx does not exist" in capfd.readouterr().err


def test_the_script_says_how_it_is_used() -> None:
    done = subprocess.run(
        [sys.executable, SCRIPTS / "compare.py", "--help"], capture_output=True, text=True, check=True
    )
    assert "FILE.onnx" in done.stdout


def test_products_of_first_tokens_rows_are_cut_out_too(tiny: Path, tmp_path: Path) -> None:
    export_model(OnnxExporter(), str(tiny), tmp_path / "out", precisions=["int8"], check=False)
    model = onnx.load(tmp_path / "out/onnx/model_quantized.onnx")
    assert any(node.op_type == "Slice" and node.name.endswith("first_codes") for node in model.graph.node)
    assert any(product.name.endswith(".rest") for product, *_ in products(model))
    session = onnxruntime.InferenceSession(cut_out(model).SerializeToString(), providers=["CPUExecutionProvider"])
    assert len(session.run(None, worst_inputs(model))) == len(list(products(model)))
