"""What precisions and formats say of themselves agrees with exporters, limits, clients and runtimes."""

from dataclasses import replace
from pathlib import Path

import pytest
from fakes import artifact_of
from test_layers import FOR_FILES, HEAVY, loaded_after

from bge_export.cli.exports import DEFAULT_DTYPES
from bge_export.commands.measuring import default_devices, read_policy
from bge_export.contracts import Target
from bge_export.exporters import find_exporter, format_names
from bge_export.formats import find_format, format_of, formats
from bge_export.precision import find_conversion, find_precision, precision_names, precisions
from bge_export.runtimes import find_runtime, runtime_names

TARGETS = [Target(name, precision) for name in format_names() for precision in find_exporter(name).precisions]
CLIENT_FILES = {
    "fp32": "model.onnx",
    "fp16": "model_fp16.onnx",
    "q8": "model_quantized.onnx",
    "int8": "model_int8.onnx",
    "uint8": "model_uint8.onnx",
    "q4": "model_q4.onnx",
    "q4f16": "model_q4f16.onnx",
    "bnb4": "model_bnb4.onnx",
}
"""`dtype` -> file name, in `src/utils/dtypes.js` of Transformers.js 4."""


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_every_target_has_a_table_of_limits(target: Target) -> None:
    assert str(target) in read_policy(None).tables


def test_every_target_table_of_the_limits_is_of_a_target() -> None:
    known = {str(target) for target in TARGETS} | {f"checkpoint-{name}" for name in ("fp32", "fp16", "bf16")}
    assert {name.partition("@")[0] for name in read_policy(None).tables} == known


def test_names_for_clients_are_the_ones_that_they_look_for() -> None:
    assert {one.client_dtype: one.files["onnx"] for one in precisions("onnx")} == {
        dtype: f"onnx/{name}" for dtype, name in CLIENT_FILES.items()
    }


@pytest.mark.parametrize("name", precision_names())
def test_a_precision_is_found_by_its_name_and_can_be_made(name: str) -> None:
    precision = find_precision(name)
    assert precision.name == name
    assert set(precision.files) <= set(format_names())
    assert set(precision.lacked_by) <= set(runtime_names())
    assert precision.of is None or precision.of in precision_names()
    assert 0.5 <= precision.holds.share <= 1
    assert set(precision.holds.operators) <= set(precision.files)
    if name not in ("fp32", "int8"):  # traced, and quantized by the exporters themselves
        assert callable(find_conversion(name))


def test_no_two_precisions_share_a_file() -> None:
    files = [file for one in precisions() for file in one.files.values()]
    assert len(files) == len(set(files))


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_an_exporter_writes_the_precisions_that_name_a_file_of_its_format(name: str) -> None:
    assert find_exporter(name).precisions == precision_names(name)


def test_the_default_dtypes_exist() -> None:
    assert set(DEFAULT_DTYPES) <= set(precision_names("onnx"))


def test_a_runtime_says_no_to_what_it_lacks_operators_for() -> None:
    lacking = {one.name for one in precisions() if "openvino" in one.lacked_by}
    refused = {
        one.name
        for one in precisions("onnx")
        if not find_runtime("openvino").reads(replace(artifact_of(), target=Target("onnx", one.name)), "cpu")  # type: ignore[attr-defined]
    }
    assert refused == lacking == {"bnb4"}


def test_what_is_written_can_be_read_and_run() -> None:
    assert tuple(formats()) == format_names()
    for name, one in formats().items():
        assert one.runtimes
        assert all(name in find_runtime(runtime).formats for runtime in one.runtimes)
        assert format_of(Path(f"model{one.suffixes[0]}")) == name


def test_a_format_that_nobody_knows_is_measured_nowhere() -> None:
    unknown = replace(artifact_of(), target=Target("unheard-of", "fp32"))
    assert find_format("unheard-of").runtimes == ()
    assert default_devices([unknown], all_devices=False) == []


def test_listing_precisions_and_formats_loads_nothing_heavy() -> None:
    listed = "from bge_export.precision import precisions\nassert len(precisions()) > 7"
    assert not loaded_after(listed) & (HEAVY | FOR_FILES | {"pydantic"})

    read = "from bge_export.formats import formats\nassert len(formats()) > 2"
    assert not loaded_after(read) & (HEAVY | {"pydantic"})
