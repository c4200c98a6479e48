"""What makes a client refuse a folder, or give wrong vectors without a word, is refused by name from its bytes."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from conftest import needs_client
from exporting import export_transformersjs
from onnx import TensorProto, helper
from tiny_checkpoint import change_json

from bge_export.compatibility.check import check_targets
from bge_export.compatibility.findings import FolderCheck, Measured
from bge_export.compatibility.targets import TARGETS
from bge_export.errors import ArtifactError, UsageError
from bge_export.inspection.folder import inspect_path

MIB = 1 << 20
SMALL = Measured(peak_bytes=100 * MIB, cold_seconds=1.0, cold_cpu_seconds=1.0, warm_seconds=0.1)


@pytest.fixture(scope="module")
def written(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("check") / "out"
    return export_transformersjs(str(tiny), out, dtypes=["fp32", "fp16"], check=False).folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "out"))


def check(folder: Path, *targets: str, measured: Measured = SMALL) -> FolderCheck:
    return check_targets(folder, targets or tuple(TARGETS), measuring=lambda artifact, device: measured)


def refusals(folder: Path, target: str, measured: Measured = SMALL) -> set[tuple[str, str]]:
    """Return the file and the rule of every finding."""
    return {(one.file, found.rule) for one in check(folder, target, measured=measured).files for found in one.findings}


def change(folder: Path, edit: Callable[[onnx.ModelProto], object], name: str = "model") -> None:
    path = folder / f"onnx/{name}.onnx"
    model = onnx.load(path)
    edit(model)
    onnx.save(model, path)


def test_what_the_exporter_writes_fits_every_target(folder: Path) -> None:
    found = check(folder)
    assert found.refused == ()
    assert found.exit_status == 0
    states = {(one.target, one.file): one.state for one in found.files}
    assert states["transformers.js@2.5", "onnx/model_fp16.onnx"] == "not for it"
    assert states["transformers.js@2.17", "onnx/model_fp16.onnx"] == "fits"


@pytest.mark.parametrize(
    ("target", "opset"),
    [("transformers.js@2.5", 19), ("transformers.js@2.17", 19), ("transformers.js@3", 23), ("supabase-edge", 22),
     ("transformers.js@4", 27)],
)  # fmt: skip
def test_an_opset_above_the_clients(folder: Path, target: str, opset: int) -> None:
    change(folder, lambda model: setattr(model.opset_import[0], "version", opset))
    assert ("onnx/model.onnx", "opset") in refusals(folder, target)


@pytest.mark.parametrize(
    ("target", "version"), [("transformers.js@2.5", 9), ("transformers.js@3", 11), ("transformers.js@4", 14)]
)
def test_an_ir_version_above_the_clients(folder: Path, target: str, version: int) -> None:
    change(folder, lambda model: setattr(model, "ir_version", version))
    assert refusals(folder, target) == {("onnx/model.onnx", "ir")}


def test_float16_at_an_opset_whose_layer_normalisation_the_client_lacks(folder: Path) -> None:
    change(folder, lambda model: setattr(model.opset_import[0], "version", 18), "model_fp16")
    assert refusals(folder, "transformers.js@2.17") == {("onnx/model_fp16.onnx", "fp16-opset")}
    assert refusals(folder, "transformers.js@4") == set()


def add_contrib(model: onnx.ModelProto, name: str, **attributes: int) -> None:
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    model.graph.node.append(helper.make_node(name, ["a"], ["b"], domain="com.microsoft", **attributes))


@pytest.mark.parametrize(
    ("name", "lacking"),
    [
        ("MatMulNBits", {"transformers.js@2.5", "transformers.js@2.17"}),
        ("GatherBlockQuantized", {"transformers.js@2.5", "transformers.js@2.17", "transformers.js@3-webgpu"}),
        ("Attention", {"transformers.js@3-webgpu"}),
        ("MoE", set(TARGETS)),
    ],
)
def test_an_operator_that_the_client_lacks(folder: Path, name: str, lacking: set[str]) -> None:
    change(folder, lambda model: add_contrib(model, name))
    assert {target for target in TARGETS if ("onnx/model.onnx", "operator") in refusals(folder, target)} == lacking


def test_eight_bit_blocks_run_in_version_4_alone(folder: Path) -> None:
    change(folder, lambda model: add_contrib(model, "MatMulNBits", bits=8))
    assert refusals(folder, "transformers.js@3") == {("onnx/model.onnx", "bits")}
    assert refusals(folder, "transformers.js@4") == set()


def test_an_operator_that_the_opset_does_not_have(folder: Path) -> None:
    change(folder, lambda model: model.graph.node.append(helper.make_node("Gelu", ["a"], ["b"])))
    assert refusals(folder, "transformers.js@4") == {("onnx/model.onnx", "operator")}


@pytest.mark.parametrize("name", ["MatMulInteger", "DynamicQuantizeLinear", "DequantizeLinear"])
def test_integer_arithmetic_on_version_3s_webgpu(folder: Path, name: str) -> None:
    change(folder, lambda model: model.graph.node.append(helper.make_node(name, ["a"], ["b"])))
    assert refusals(folder, "transformers.js@3-webgpu") == {("onnx/model.onnx", "operator")}
    assert refusals(folder, "transformers.js@3") == refusals(folder, "transformers.js@4-webgpu") == set()


def test_float16_outputs(folder: Path) -> None:
    change(folder, lambda model: setattr(model.graph.output[0].type.tensor_type, "elem_type", TensorProto.FLOAT16))
    assert refusals(folder, "transformers.js@3") == {("onnx/model.onnx", "output-type")}


def test_names_that_clients_do_not_know(folder: Path) -> None:
    def edit(model: onnx.ModelProto) -> None:
        model.graph.input[0].name = "ids"
        model.graph.input[1].type.tensor_type.elem_type = TensorProto.INT32
        model.graph.output[0].name = "sentence_embedding"

    change(folder, edit)
    (findings,) = (one.findings for one in check(folder, "transformers.js@4").files if one.file == "onnx/model.onnx")
    assert {finding.rule for finding in findings} == {"input", "output"}
    assert any("'ids', which no client feeds" in finding.got for finding in findings)
    assert any(finding.got == "attention_mask of int32" for finding in findings)


def externalise(folder: Path, location: str) -> None:
    model = onnx.load(folder / "onnx/model.onnx")
    onnx.save(model, folder / "onnx/model.onnx", save_as_external_data=True, location=location, size_threshold=0)


def test_external_data_under_the_wrong_name(folder: Path) -> None:
    externalise(folder, "model.onnx.data")
    change_json(folder / "config.json", **{"transformers.js_config": {"use_external_data_format": True}})
    assert refusals(folder, "transformers.js@4") == {("onnx/model.onnx", "external-data")}


def test_external_data_needs_its_key_and_a_client_that_reads_it(folder: Path) -> None:
    externalise(folder, "model.onnx_data")
    assert refusals(folder, "transformers.js@4") == {("onnx/model.onnx", "external-data")}
    change_json(folder / "config.json", **{"transformers.js_config": {"use_external_data_format": True}})
    assert refusals(folder, "transformers.js@4") == set()
    for target in ("transformers.js@2.5", "supabase-edge"):
        assert refusals(folder, target) == {("onnx/model.onnx", "external-data")}


def test_external_data_that_is_missing(folder: Path) -> None:
    externalise(folder, "model.onnx_data")
    change_json(folder / "config.json", **{"transformers.js_config": {"use_external_data_format": True}})
    (folder / "onnx/model.onnx_data").unlink()
    (one,) = (one for one in check(folder, "transformers.js@4").files if one.file == "onnx/model.onnx")
    assert one.state == "refused"
    assert "'model.onnx_data', which is missing" in str(one.findings[0])


@pytest.mark.parametrize(
    ("key", "fits"), [(2, True), ({"model.onnx": 2}, True), ({"model": 2}, True), (True, False), (1, False)]
)
def test_two_external_files_are_loaded_where_the_key_counts_them(folder: Path, key: object, fits: bool) -> None:
    externalise(folder, "model.onnx_data")
    model = onnx.load(folder / "onnx/model.onnx", load_external_data=False)
    last = model.graph.initializer[-1]
    del last.external_data[:]
    last.external_data.add(key="location", value="model.onnx_data_1")
    (folder / "onnx/model.onnx").write_bytes(model.SerializeToString())
    shutil.copyfile(folder / "onnx/model.onnx_data", folder / "onnx/model.onnx_data_1")
    change_json(folder / "config.json", **{"transformers.js_config": {"use_external_data_format": key}})
    assert (refusals(folder, "transformers.js@4") == set()) is fits


@pytest.mark.parametrize(("batch", "length"), [(2, 8), (1, None), (None, 128)])
def test_shapes_that_are_baked_in(folder: Path, batch: int | None, length: int | None) -> None:
    def edit(model: onnx.ModelProto) -> None:
        for value in model.graph.input:
            for dim, size in zip(value.type.tensor_type.shape.dim, (batch, length), strict=True):
                if size is not None:
                    dim.dim_value = size

    change(folder, edit)
    assert refusals(folder, "transformers.js@4") == {("onnx/model.onnx", "shape")}
    (one,) = (one for one in check(folder, "transformers.js@4").files if one.file == "onnx/model.onnx")
    assert one.findings[0].got == f"input_ids [{batch or 'batch_size'}, {length or 'sequence_length'}]"


def test_a_model_in_the_root_is_no_file_that_clients_load_and_the_refusal_says_so(folder: Path) -> None:
    (folder / "onnx/model.onnx").rename(folder / "model.onnx")
    (folder / "onnx/model_fp16.onnx").unlink()
    (one,) = check(folder, "transformers.js@4").files
    assert (one.state, one.findings[0].rule) == ("refused", "files")
    assert "only model.onnx" in one.findings[0].got
    assert "onnx/model.onnx" in one.findings[0].needed


@pytest.mark.parametrize("target", ["transformers.js@2.5", "transformers.js@4", "supabase-edge"])
def test_every_refusal_has_a_reason(folder: Path, target: str) -> None:
    shutil.rmtree(folder / "onnx")
    assert refusals(folder, target) == {("", "files")}


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 1\n", "Git LFS pointer"),
        (b"\n<!DOCTYPE html><html><body>404</body></html>", "HTML page"),
        (b"", "is empty"),
        (bytes(600), "nothing but zero bytes"),
    ],
)
def test_what_is_left_in_place_of_a_model_is_named(folder: Path, content: bytes, what: str) -> None:
    (folder / "onnx/model.onnx").write_bytes(content)
    with pytest.raises(ArtifactError, match=what):
        check(folder, "transformers.js@4")
    with pytest.raises(ArtifactError, match=what):
        inspect_path(folder / "onnx/model.onnx")


@pytest.mark.parametrize(
    "baked",
    [
        {"padding": {"strategy": {"Fixed": 128}, "pad_id": 0}},
        {"truncation": {"direction": "Right", "max_length": 128, "strategy": "LongestFirst", "stride": 0}},
        {"truncation": {"direction": "Left", "max_length": 512, "strategy": "LongestFirst", "stride": 0}},
        {"truncation": {"direction": "Right", "strategy": "LongestFirst", "stride": 0}},
        {"truncation": "yes"},
    ],
)
def test_a_tokenizer_file_with_baked_in_padding_or_another_truncation(folder: Path, baked: dict[str, object]) -> None:
    change_json(folder / "tokenizer.json", **baked)
    assert refusals(folder, "transformers.js@4") == {("", "tokenizer")}


@pytest.mark.parametrize(
    "truncation",
    [None, {"direction": "Right", "max_length": 512, "strategy": "LongestFirst", "stride": 0}, {"max_length": 512}],
)
def test_a_tokenizer_file_that_truncates_at_the_longest_input_or_not_at_all(folder: Path, truncation: object) -> None:
    change_json(folder / "tokenizer.json", truncation=truncation)
    assert refusals(folder, "transformers.js@4") == set()


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_missing_or_broken_json_file(folder: Path, name: str) -> None:
    (folder / name).write_text("{", "utf-8")
    assert ("", "json") in refusals(folder, "transformers.js@4")
    (folder / name).unlink()
    assert ("", "json") in refusals(folder, "transformers.js@4")


@pytest.mark.parametrize(
    ("name", "changes", "lacking"),
    [
        ("config.json", {"model_type": None}, set(TARGETS)),
        ("config.json", {"transformers.js_config": {"dtype": "float16"}}, set(TARGETS)),
        ("tokenizer_config.json", {"model_max_length": None}, set(TARGETS)),
        ("tokenizer_config.json", {"model_max_length": 10**30}, set(TARGETS)),
        ("tokenizer_config.json", {"model_max_length": 1024}, set(TARGETS)),
        ("tokenizer_config.json", {"tokenizer_class": "TokenizersBackend"},
         {"transformers.js@2.5", "transformers.js@2.17"}),
        ("tokenizer_config.json", {"tokenizer_class": "BertTokenizerFast"}, set()),
    ],
)  # fmt: skip
def test_json_keys(folder: Path, name: str, changes: dict[str, object], lacking: set[str]) -> None:
    change_json(folder / name, **changes)
    assert {target for target in TARGETS if ("", "json") in refusals(folder, target)} == lacking


@pytest.mark.parametrize(
    ("snippet", "refused"),
    [
        ("await embed(text, { pooling: 'mean', normalize: true });", True),
        ('await embed(text, { pooling: "mean" });', True),
        ("await embed(text, { pooling: 'cls', normalize: true });", False),
        ("await embed(text, { pooling: 'none' });", False),
        ("import '@xenova/transformers@2.5.0';\nawait embed(text, { pooling: 'cls' });", True),
        ("import '@xenova/transformers@2.17.2';\nawait embed(text, { pooling: 'cls' });", False),
    ],
)
def test_mean_pooling_in_an_example_of_the_card(folder: Path, snippet: str, refused: bool) -> None:
    (folder / "README.md").write_text(f"# Card\n\n```js\n{snippet}\n```\n\nNot pooling: 'mean'.\n", "utf-8")
    assert (("", "card") in refusals(folder, "transformers.js@4")) is refused


def test_a_host_whose_limits_no_file_keeps(folder: Path) -> None:
    large = Measured(peak_bytes=257 * MIB, cold_seconds=1.0, cold_cpu_seconds=2.5, warm_seconds=0.1)
    found = check(folder, "supabase-edge", measured=large)
    assert found.refused == ("supabase-edge",)
    assert {one.state for one in found.files if one.file} == {"too large"}
    assert refusals(folder, "supabase-edge", large) == {
        (f"onnx/{name}.onnx", rule) for name in ("model", "model_fp16") for rule in ("memory", "cpu")
    }
    unknown = Measured(peak_bytes=None, cold_seconds=1.0, cold_cpu_seconds=float("nan"), warm_seconds=0.1)
    assert refusals(folder, "supabase-edge", unknown) == refusals(folder, "supabase-edge", large)


def test_one_file_that_fits_a_host_is_enough(folder: Path) -> None:
    def measuring(artifact, device):
        peak = 300 * MIB if artifact.model == "onnx/model.onnx" else 200 * MIB
        return Measured(peak_bytes=peak, cold_seconds=1.0, cold_cpu_seconds=1.0, warm_seconds=0.1)

    found = check_targets(folder, ["supabase-edge"], measuring=measuring)
    assert [one.state for one in found.files] == ["fits", "too large", "fits"]
    assert found.refused == ()
    found = check_targets(folder, ["supabase-edge"], dtypes=["fp32"], measuring=measuring)
    assert found.exit_status == 1


def test_a_folder_without_a_file_for_the_target_is_refused(folder: Path) -> None:
    (folder / "onnx/model.onnx").unlink()
    assert check(folder, "transformers.js@2.5").refused == ("transformers.js@2.5",)
    shutil.rmtree(folder / "onnx")
    assert check(folder, "transformers.js@4").refused == ("transformers.js@4",)


def test_arguments_that_are_none(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no target 'bun': transformers\.js@2\.5"):
        check(folder, "bun")
    with pytest.raises(UsageError, match="no dtype 'fp8'"):
        check_targets(folder, ["transformers.js@4"], dtypes=["fp8"])
    with pytest.raises(ArtifactError, match="is not a folder"):
        check(tmp_path / "none", "transformers.js@4")
    (folder / "onnx/model.onnx").write_bytes(b"no model")
    with pytest.raises(ArtifactError, match="is not a valid ONNX file"):
        check(folder, "transformers.js@4")


def test_the_command_measures_a_host_and_its_exit_status_is_the_verdict(folder: Path, bge) -> None:
    needs_client("edge@3")
    done = bge("check", folder, "--target", "transformers.js@2.5", "--target", "supabase-edge", "--json")
    assert done.returncode == 0, done.stderr
    files = json.loads(done.stdout)["files"]
    measured = [one["measured"] for one in files if one["target"] == "supabase-edge" and one["file"]]
    assert len(measured) == 2
    for figures in measured:
        assert 50 * MIB < figures["peak_bytes"] < 256 * MIB
        assert 0 < figures["warm_seconds"] < figures["cold_seconds"]
        assert 0 < figures["cold_cpu_seconds"] < 2
    change_json(folder / "tokenizer.json", padding={"strategy": "BatchLongest"})
    done = bge("check", folder, "--target", "transformers.js@4")
    assert done.returncode == 1
    assert "REFUSED: transformers.js@4" in done.stdout
    assert "tokenizer.json with padding baked in" in done.stdout


def test_the_command_says_what_the_gate_says(folder: Path, tiny: Path, tmp_path: Path, bge) -> None:
    """A folder that fits may hold wrong vectors, and one of somebody else's has no verdict."""

    def said(place: Path) -> str:
        done = bge("check", place, "--target", "transformers.js@4", "--json")
        assert json.loads(done.stdout)["refused"] == []
        assert done.returncode == 0
        return str(json.loads(done.stdout)["gate"])

    assert said(folder) == "none: the folder holds no report"
    (folder / "bge_export.json").unlink()
    assert said(folder) == "None"
    proven = tmp_path / "proven"
    assert bge("onnx", tiny, "--output", proven).returncode == 0
    assert said(proven) == "passed"
    change_json(proven / "parity.json", digest="0" * 64)
    done = bge("check", proven, "--target", "transformers.js@4")
    assert "Are its embeddings right? The gate: REFUSED for 1 reason; see: bge-export gate " in done.stdout
