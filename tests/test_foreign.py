"""Files that others wrote are measured by one command, which says how it reads them and what it does not know."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from tiny_checkpoint import change_json

from bge_export.cli import run
from bge_export.commands import Exported
from bge_export.foreign.files import precision_of
from bge_export.foreign.reading import Reading, _chosen
from bge_export.formats.contents import Contents

TEXTS = (
    "a ferry crosses the river at noon",
    "red lentil soup with onions and rice",
    "the museum opens on monday",
    "water",
)


@pytest.fixture(scope="module")
def short(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded checkpoint with a longest input that is swept in little time."""
    folder = Path(shutil.copytree(tiny, tmp_path_factory.mktemp("short") / "tiny"))
    change_json(folder / "sentence_bert_config.json", max_seq_length=24)
    return folder


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(TEXTS) + "\n", "utf-8")
    return path


@pytest.fixture
def bare(tiny_export: Exported, tmp_path: Path) -> Path:
    """The embedded checkpoint's fp32 file alone, with states and the pooled vector, in a folder of its own."""
    (tmp_path / "theirs").mkdir()
    return Path(shutil.copyfile(tiny_export.folder / "onnx/model.onnx", tmp_path / "theirs/model.onnx"))


def with_outputs(path: Path, nodes: Sequence[onnx.NodeProto], outputs: dict[str, list[Any]]) -> None:
    """Append nodes to a file, and make these its only outputs."""
    model = onnx.load(path)
    model.graph.node.extend(nodes)
    del model.graph.output[:]
    model.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()
    )
    onnx.save(model, path)


def first_state(path: Path) -> None:
    """Keep the first token's state alone, [B, D], not divided by its norm, under a name of its own."""
    model = onnx.load(path)
    model.graph.initializer.append(numpy_helper.from_array(np.array(0), "zero"))
    onnx.save(model, path)
    node = helper.make_node("Gather", ["last_hidden_state", "zero"], ["pooled"], axis=1)
    with_outputs(path, [node], {"pooled": ["batch_size", 64]})


def mean_state(path: Path) -> None:
    """Keep the mean of all states alone."""
    node = helper.make_node("ReduceMean", ["last_hidden_state"], ["embedding"], axes=[1], keepdims=0)
    with_outputs(path, [node], {"embedding": ["batch_size", 64]})


def scored(path: Path) -> None:
    """Keep what a classifier returns."""
    node = helper.make_node("ReduceMax", ["last_hidden_state"], ["logits"], axes=[2], keepdims=0)
    with_outputs(path, [node], {"logits": ["batch_size", "sequence_length"]})


@pytest.fixture
def found(short: Path, texts: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, dict[str, Any]]]:
    """Measure a path by the command; return the exit status and its JSON."""

    def measure(path: Path, *more: object) -> tuple[int, dict[str, Any]]:
        given = ["parity", path, "--reference", short, "--texts", texts, "--json", *more]
        status = run([str(one) for one in given])
        out = capfd.readouterr().out
        return status, json.loads(out) if out else {}

    return measure


def test_a_bare_file_is_measured_and_its_reading_said(bare: Path, found: Callable[..., Any]) -> None:
    status, result = found(bare)
    (file,) = result["files"]
    assert (status, result["within_limits"]) == (0, True)
    assert (file["limits_of"], file["output"], file["form"], file["pooling"]) == (
        "onnx-fp32",
        "last_hidden_state",
        "states",
        "cls",
    )
    assert file["divided_by_its_norm"] is False
    assert file["measured"]["lanes"][0]["smallest_cosine"] > 0.999999
    assert any("no tokenizer.json" in phrase for phrase in file["unknown"])
    assert sorted(path.name for path in bare.parent.iterdir()) == ["model.onnx"]


@pytest.mark.parametrize(
    ("change", "output", "within"), [(first_state, "pooled", True), (mean_state, "embedding", False)]
)
def test_a_vector_that_the_graph_pools_is_found_by_its_shape_whatever_its_name(
    bare: Path, found: Callable[..., Any], change: Callable[[Path], None], output: str, within: bool
) -> None:
    change(bare)
    status, result = found(bare)
    (file,) = result["files"]
    assert (file["output"], file["form"], file["pooling"]) == (output, "vector", None)
    assert (status == 0, result["within_limits"]) == (within, within)
    if not within:
        rules = {bad["rule"] for bad in file["measured"]["failures"]}
        assert rules >= {"cosine", "wrong-pooling"}


def test_a_file_without_any_such_output_is_said(
    bare: Path, short: Path, texts: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    scored(bare)
    assert run(["parity", str(bare), "--reference", str(short), "--texts", str(texts)]) == 3
    assert "no output is 64 wide" in capfd.readouterr().err


def test_a_file_of_other_weights_is_outside_the_limits(bare: Path, found: Callable[..., Any]) -> None:
    model = onnx.load(bare)
    weight = max(model.graph.initializer, key=lambda one: len(one.raw_data))
    weight.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weight), weight.name))
    onnx.save(model, bare)
    status, result = found(bare)
    assert (status, result["within_limits"]) == (1, False)


def test_all_files_of_a_folder_are_measured_with_what_lies_beside_them(
    bare: Path, tiny: Path, tiny_export: Exported, found: Callable[..., Any]
) -> None:
    folder = bare.parent
    (folder / "onnx").mkdir()
    bare.rename(folder / "onnx/model.onnx")
    shutil.copyfile(tiny_export.folder / "onnx/model_fp16.onnx", folder / "onnx/model_fp16.onnx")
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json", "modules.json"):
        shutil.copyfile(tiny / name, folder / name)
    shutil.copytree(tiny / "1_Pooling", folder / "1_Pooling")

    status, result = found(folder)
    assert status == 0
    assert [(file["file"], file["limits_of"]) for file in result["files"]] == [
        ("onnx/model.onnx", "onnx-fp32"),
        ("onnx/model_fp16.onnx", "onnx-fp16"),
    ]
    assert not any("beside" in phrase for phrase in result["files"][0]["unknown"])

    contents = folder / "blob"
    (folder / "onnx/model.onnx").rename(contents)
    (folder / "onnx/model.onnx").symlink_to(contents)
    status, result = found(folder / "onnx/model.onnx")
    assert status == 0
    assert not any("beside" in phrase for phrase in result["files"][0]["unknown"]), "the Hub's cache is links"

    change_json(folder / "tokenizer.json", normalizer=None)
    status, result = found(folder)
    assert status == 0, "lower-case texts have the same tokens"
    tokenizer = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    tokenizer["model"]["vocab"].pop("water", None)
    (folder / "tokenizer.json").write_text(json.dumps({**tokenizer, "post_processor": None}), "utf-8")
    status, result = found(folder)
    assert status == 1
    assert {bad["rule"] for bad in result["files"][0]["measured"]["failures"]} == {"token-ids"}

    change_json(folder / "1_Pooling/config.json", pooling_mode_cls_token=False, pooling_mode_mean_tokens=True)
    assert any("declare mean pooling" in one for one in found(folder)[1]["files"][0]["unknown"])


def test_a_file_that_cannot_be_measured_keeps_no_other_from_it(bare: Path, found: Callable[..., Any]) -> None:
    (bare.parent / "broken.onnx").write_bytes(b"nothing")
    status, result = found(bare.parent)
    assert (status, result["within_limits"]) == (3, False)
    assert "broken.onnx" in result["files"][0]["unmeasured"]
    assert result["files"][1]["measured"]["passed"]


@pytest.mark.filterwarnings("ignore")
def test_a_traced_module_is_measured_by_the_position_of_its_inputs(
    tiny: Path, tmp_path: Path, found: Callable[..., Any]
) -> None:
    from transformers import AutoModel

    model = AutoModel.from_pretrained(tiny, return_dict=False, attn_implementation="eager").eval()
    ones = torch.ones((1, 7), dtype=torch.int64)
    path = tmp_path / "traced.pt"
    torch.jit.trace(model, (ones, ones, ones * 0), strict=False).save(str(path))  # type: ignore[no-untyped-call]

    status, result = found(path)
    (file,) = result["files"]
    assert file["inputs"] == ["input_ids", "attention_mask", "token_type_ids"]
    assert (file["output"], file["limits_of"]) == ("output 0", "torchscript-fp32")
    assert (status, result["within_limits"]) == (0, True)


def test_the_gate_refuses_its_report_by_name_and_it_is_not_written_into_a_folder_of_ours(
    bare: Path, bundle: Path, tiny: Path, tmp_path: Path, found: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "theirs.json"
    assert found(bare, "--report", report)[0] == 0
    assert run(["gate", str(report)]) != 0
    assert "is about files that bge-export did not write" in capfd.readouterr().err
    assert run(["merge", str(report), str(report), "-o", str(tmp_path / "merged.json")]) != 0
    capfd.readouterr()

    # Put in place of a folder's report it proves nothing either.
    shutil.copyfile(report, bundle / "parity.json")
    assert run(["gate", str(bundle / "parity.json")]) != 0
    capfd.readouterr()

    for path in (bundle / "parity.json", bundle / "parity-theirs.json"):
        before = path.read_bytes() if path.exists() else None
        assert found(bare, "--report", path)[0] == 2
        assert (path.read_bytes() if path.exists() else None) == before
    assert found(bare, "--report", report)[0] == 0, "its own kind may be replaced"


def test_the_terminal_says_what_is_not_known_and_never_that_it_is_proven(
    bare: Path, short: Path, texts: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["parity", str(bare), "--reference", str(short), "--texts", str(texts)]) == 0
    shown = capfd.readouterr().out
    assert "WITHIN LIMITS" in shown
    assert "PASSED" not in shown
    assert "not known:" in shown
    assert "cls pooling of its states" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--serve"], "--serve"),
        (["--require", "onnxruntime:cpu"], "--require"),
        (["--runtime", "torchscript"], "does not read"),
        (["--runtime", "nothing"], "nothing"),
    ],
)
def test_options_that_are_about_folders_are_refused(
    bare: Path, tiny: Path, arguments: list[str], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["parity", str(bare), "--reference", str(tiny), *arguments]) == 2
    assert said in capfd.readouterr().err


def test_vectors_alone_are_no_reference_and_a_folder_without_models_is_said(
    bare: Path, tmp_path: Path, tiny: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["parity", str(bare), "--reference", "reference.npz"]) == 2
    assert "needs the checkpoint itself" in capfd.readouterr().err
    (tmp_path / "empty").mkdir()
    assert run(["parity", str(tmp_path / "empty"), "--reference", str(tiny)]) == 2
    assert "holds no model file" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("weights", "operators", "packed", "stored", "precision"),
    [
        ({"float32": 9}, {"MatMul": 1}, {}, "fp32", "fp32"),
        ({"int8": 9}, {"DynamicQuantizeLinear": 1, "MatMulInteger": 1}, {}, "int8", "int8-dynamic"),
        ({"uint8": 9}, {"DynamicQuantizeLinear": 1, "MatMulInteger": 1}, {}, "int8", "uint8"),
        ({"int8": 9}, {"QuantizeLinear": 1}, {}, "int8", "int8"),
        ({"int8": 9}, {"QuantizeLinear": 2, "DynamicQuantizeLinear": 1}, {}, "int8", "int8"),
        ({"float32": 9}, {"MatMul": 8, "DynamicQuantizeLinear": 1, "MatMulInteger": 1}, {}, "fp32", "fp32"),
        ({"uint8": 9, "float32": 1}, {"MatMulNBits": 1}, {"MatMulNBits 4": 18}, "int8", "q4"),
        ({"uint8": 9, "float16": 1}, {"MatMulNBits": 1}, {"MatMulNBits 4": 18}, "int8", "q4f16"),
        ({"uint8": 9, "float32": 90}, {"MatMulNBits": 1}, {"MatMulNBits 4": 18}, "fp32", "fp32"),
        ({"uint8": 9}, {"MatMulBnb4": 1}, {"MatMulBnb4 4": 18}, "int8", "bnb4"),
        ({"bfloat16": 9}, {"MatMul": 1}, {}, "bf16", "bf16"),
    ],
)
def test_a_file_is_judged_by_how_its_weights_are_stored_and_used(
    weights: dict[str, int], operators: dict[str, int], packed: dict[str, int], stored: str, precision: str
) -> None:
    contents = Contents()
    contents.weights.update(weights)
    contents.operators.update(operators)
    contents.packed.update(packed)
    assert precision_of(contents, stored) == precision


def test_the_declared_pooling_is_taken_unless_another_is_much_nearer() -> None:
    def reading(pooling: Any, agreement: float) -> Reading:
        return Reading("last_hidden_state", "states", pooling, unit=False, agreement=agreement)

    assert _chosen([reading("cls", 0.9983), reading("mean", 0.85), reading("last", 0.9984)], "cls").pooling == "cls"
    assert _chosen([reading("cls", 0.9), reading("mean", 0.9999), reading("last", 0.8)], "cls").pooling == "mean"
