import pytest

from bge_export.errors import PolicyError
from bge_export.exporters import find_exporter, format_names
from bge_export.parity.gate.policy import TARGETS, Requirement, ThresholdPolicy
from bge_export.texts.fixtures import fixtures_folder

TABLE = (
    "min_cosine = 0.9\nmax_abs = 0.1\nmax_norm_error = 0.2\n"
    "min_batch_cosine = 0.8\nmin_token_cosine = 0.5\nmin_sequence_cosine = 0.5\n"
)
GOOD = f'require = []\n["onnx-fp32"]\n{TABLE}'
TWO = (
    "min_cosine = 0.9\nmin_stress_cosine = 0.7\nmax_norm_error = 0.2\n"
    "min_batch_cosine = 0.8\nmin_token_cosine = 0.5\nmin_sequence_cosine = 0.5\n"
)
FLOATS = ("fp32", "fp16", "bf16")


def read(tmp_path, content):
    path = tmp_path / "limits.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return ThresholdPolicy.read(path)


def test_the_package_brings_its_limits():
    policy = ThresholdPolicy.read(fixtures_folder() / "thresholds.toml")
    limits = policy.limits_for("onnx-fp32", "onnxruntime", "cpu")
    assert limits is not None
    assert limits.min_cosine >= 0.999999
    assert policy.limits_for("onnx-fp16", "onnxruntime", "cpu") is not None
    assert policy.limits_for("onnx-int3", "onnxruntime", "cpu") is None


def test_each_target_of_int8_weights_says_how_many_pairs_may_saturate():
    """None may be: vectors would depend on the processor. A table that forgets it lets in what nobody looked at."""
    tables = ThresholdPolicy.read(fixtures_folder() / "thresholds.toml").tables
    named = {name: limits.max_broken_pairs for name, limits in tables.items() if name.endswith("-int8")}
    assert named == dict.fromkeys(named, 0)
    assert all(limits.max_broken_pairs in (None, 0) for limits in tables.values())


def test_saturating_pairs_are_limited_for_a_file_not_for_a_lane(tmp_path):
    limits = read(tmp_path, f"{GOOD}max_broken_pairs = 0\n").tables["onnx-fp32"]
    assert limits.max_broken_pairs == 0
    with pytest.raises(PolicyError, match=r'max_broken_pairs.*Write it in \["onnx-fp32"\]'):
        read(tmp_path, f'{GOOD}["onnx-fp32@onnxruntime:cpu"]\n{TABLE}max_broken_pairs = 0\n')


@pytest.mark.parametrize("value", ["-1", "0.5", "true", "'0'"])
def test_a_number_of_saturating_pairs_that_is_not_sane(tmp_path, value):
    with pytest.raises(PolicyError, match="max_broken_pairs"):
        read(tmp_path, f"{GOOD}max_broken_pairs = {value}\n")


def test_the_more_specific_table_wins(tmp_path):
    special = TABLE.replace("0.9", "0.5")
    content = f'{GOOD}["onnx-fp32@onnxruntime:cuda"]\n{special}["onnx-fp16@onnxruntime:cpu"]\n{TABLE}'
    policy = read(tmp_path, content)
    assert policy.limits_for("onnx-fp32", "onnxruntime", "cpu").min_cosine == 0.9
    assert policy.limits_for("onnx-fp32", "onnxruntime", "cuda").min_cosine == 0.5
    assert policy.limits_for("onnx-fp16", "onnxruntime", "cuda") is None


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("onnx-fp32@onnxrumtime:cuda", "no runtime 'onnxrumtime'.*Known: .*onnxruntime"),
        ("onnx-fp32@onnxruntime:cude", "onnxruntime has no device 'cude'.*Known: cpu, cuda"),
        ("openvino-fp32@onnxruntime:cuda", "onnxruntime does not read 'openvino-fp32'.*Known: onnx-"),
        ("onxn-fp32@onnxruntime:cuda", "there is no target 'onxn-fp32'.*Known: onnx-fp32"),
        ("onnx-fp23", "there is no target 'onnx-fp23'.*Known: .*torchscript-fp32"),
        ("torchscript-fp16", "there is no target 'torchscript-fp16'"),
    ],
)
def test_a_table_of_a_lane_that_does_not_exist_is_named(tmp_path, table, message):
    """Limits that were tightened there would hold nowhere, and the looser ones of the target in their stead."""
    with pytest.raises(PolicyError, match=rf'\["{table}"\]: {message}'):
        read(tmp_path, f'{GOOD}["{table}"]\n{TABLE}')


def test_every_target_that_is_written_may_have_limits(tmp_path):
    written = {f"{name}-{one}" for name in format_names() for one in find_exporter(name).precisions}
    assert written < set(TARGETS)
    assert set(TARGETS) - written == {f"checkpoint-{one}" for one in FLOATS}
    for target in TARGETS:
        assert target in read(tmp_path, f"{GOOD.replace('onnx-fp32', target)}").tables


def test_what_is_required(tmp_path):
    policy = read(tmp_path, GOOD.replace("[]", '["ort:cpu", "onnx-fp32@ort:cuda:0"]', 1))
    assert policy.require == (Requirement(None, "ort", "cpu"), Requirement("onnx-fp32", "ort", "cuda:0"))
    assert [str(one) for one in policy.require] == ["ort:cpu", "onnx-fp32@ort:cuda:0"]


def test_a_table_may_have_a_limit_for_each_kind_of_text(tmp_path):
    limits = read(tmp_path, f'require = []\n["onnx-int8"]\n{TWO}').tables["onnx-int8"]
    assert (limits.least_cosine("everyday"), limits.least_cosine("stress"), limits.max_abs) == (0.9, 0.7, None)
    one = read(tmp_path, GOOD).tables["onnx-fp32"]
    assert (one.least_cosine("everyday"), one.least_cosine("stress"), one.max_abs) == (0.9, 0.9, 0.1)


def test_stress_texts_may_have_the_limit_of_everyday_ones(tmp_path):
    limits = read(tmp_path, f'require = []\n["onnx-int8"]\n{TWO.replace("0.7", "0.9")}').tables["onnx-int8"]
    assert limits.by_kind
    assert limits.least_cosine("stress") == 0.9


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (TWO.replace("min_stress_cosine = 0.7\n", ""), "max_abs is missing.*min_stress_cosine in its place"),
        (f"{TWO}max_abs = 0.1\n", "max_abs and min_stress_cosine are both there. Remove max_abs"),
        (TWO.replace("0.7", "0.91"), "min_stress_cosine 0.91 is above min_cosine 0.9"),
        (f"{TWO}max_raw_norm_error = 0.1\n", "max_raw_norm_error and max_norm_shift belong together"),
        (f"{TWO}max_norm_shift = 0.1\n", "max_raw_norm_error and max_norm_shift belong together"),
        (f"{TWO}max_raw_stress_norm_error = 0.1\n", ".* Give max_raw_norm_error and min_stress_cosine too"),
        (
            f"{TWO}max_raw_norm_error = 0.1\nmax_norm_shift = 0.1\nmax_raw_stress_norm_error = 0.05\n",
            "max_raw_stress_norm_error 0.05 is below max_raw_norm_error 0.1",
        ),
        (TWO.replace("0.7", "0.0"), "min_stress_cosine: "),
        (TWO.replace("0.7", "nan"), "min_stress_cosine: "),
        (TWO.replace("0.7", "'0.7'"), "min_stress_cosine: "),
        (TWO.replace("min_cosine = 0.9\n", ""), "min_cosine: "),
        (TWO.replace("max_norm_error = 0.2\n", ""), "max_norm_error: "),
        (TWO.replace("min_batch_cosine = 0.8\n", ""), "min_batch_cosine: "),
    ],
)
def test_limits_of_two_kinds_that_do_not_fit_together(tmp_path, table, message):
    with pytest.raises(PolicyError, match=rf'limits.toml: \["onnx-int8"\] {message}'):
        read(tmp_path, f'require = []\n["onnx-int8"]\n{table}')


def test_every_rounded_target_has_two_limits_and_every_other_one():
    tables = ThresholdPolicy.read(fixtures_folder() / "thresholds.toml").tables
    rounded = {name for name in tables if not name.partition("@")[0].endswith(FLOATS)}
    assert len(rounded) >= 9
    assert {name for name, limits in tables.items() if limits.by_kind} == rounded
    assert all(limits.max_norm_error < 0.01 for limits in tables.values())


@pytest.mark.parametrize("field", ["min_cosine", "max_abs", "max_norm_error", "min_batch_cosine"])
def test_no_limit_has_a_default(tmp_path, field):
    table = "".join(line for line in TABLE.splitlines(keepends=True) if not line.startswith(field))
    with pytest.raises(PolicyError, match=rf'\["onnx-fp32"\] {field}'):
        read(tmp_path, f'require = []\n["onnx-fp32"]\n{table}')


@pytest.mark.parametrize("field", ["min_cosine", "max_abs", "max_norm_error", "min_batch_cosine"])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-0.1", "1.5", "'0.9'", "true"])
def test_a_limit_that_is_not_sane(tmp_path, field, value):
    table = "".join(
        f"{field} = {value}\n" if line.startswith(field) else line for line in TABLE.splitlines(keepends=True)
    )
    with pytest.raises(PolicyError, match=rf'\["onnx-fp32"\] {field}'):
        read(tmp_path, f'require = []\n["onnx-fp32"]\n{table}')


def test_a_cosine_of_zero_is_no_limit(tmp_path):
    with pytest.raises(PolicyError, match="min_cosine"):
        read(tmp_path, GOOD.replace("min_cosine = 0.9", "min_cosine = 0"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"{GOOD}max_mean = 1.0\n", "max_mean"),
        (GOOD.replace("require = []\n", ""), "'require' is missing"),
        (GOOD.replace("[]", '"ort:cpu"', 1), "'require' is missing"),
        (GOOD.replace("[]", '["ort"]', 1), "'ort' is not a valid requirement"),
        (GOOD.replace("[]", '["fp32@ort:cpu"]', 1), "not a valid requirement"),
        (GOOD.replace("[]", "[1]", 1), "not a valid requirement"),
        ("require = []\n", "holds no limits"),
        ("require = []\nmin_cosine = 0.9\n", "'min_cosine' is not a table"),
        (f"require = []\n[fp32]\n{TABLE}", "'fp32' is not a table"),
        (f'require = []\n["onnx-fp32@ort"]\n{TABLE}', "'onnx-fp32@ort' is not a table"),
        (f"{GOOD}{GOOD}", "not valid TOML"),
        ("require = [", "not valid TOML"),
        (b"\xff", "not valid TOML"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path, content, message):
    with pytest.raises(PolicyError, match=message) as caught:
        read(tmp_path, content)
    assert "limits.toml" in str(caught.value)
    assert caught.value.exit_status == 2


def test_a_missing_file(tmp_path):
    with pytest.raises(PolicyError, match="does not exist"):
        ThresholdPolicy.read(tmp_path / "no.toml")


@pytest.mark.parametrize("key", ['""', '" "', "limit", '"a.b"'])
def test_a_limit_that_nobody_knows_is_named(tmp_path, key):
    with pytest.raises(PolicyError, match=r'\["onnx-fp32"\] .*Extra inputs are not permitted'):
        read(tmp_path, f"{GOOD}{key} = 1\n")
