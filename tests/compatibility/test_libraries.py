"""What a library gets wrong without a word is said from a folder's bytes, with the setting that mends it."""

import json
import shutil
from pathlib import Path

import pytest
from exporting import export_transformersjs
from tiny_checkpoint import change_json

from bge_export.cli import run
from bge_export.compatibility.check import check_targets
from bge_export.compatibility.libraries import LIBRARIES
from bge_export.errors import UsageError

PROMPT = "Represent this sentence for searching relevant passages: "
OF_OPENVINO = "optimum-intel"


@pytest.fixture(scope="module")
def written(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("libraries") / "out"
    return export_transformersjs(str(tiny), out, dtypes=["fp32", "fp16"], check=False).folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "out"))


def advice(folder: Path, library: str) -> dict[str, str]:
    """Return rule -> setting, of the folder alone."""
    found = check_targets(folder, [library])
    assert found.refused == ()
    return {one.rule: one.setting for one in found.files[0].advice if one.rule != "remark"}


def pool(folder: Path, pooling: str) -> None:
    kinds = {f"pooling_mode_{kind}": kind == pooling for kind in ("cls_token", "mean_tokens", "lasttoken")}
    change_json(folder / "1_Pooling/config.json", **kinds, pooling_mode=pooling.partition("_")[0])


def test_every_library_opens_what_the_exporter_writes_but_those_of_other_formats(folder: Path) -> None:
    assert check_targets(folder, list(LIBRARIES)).refused == (OF_OPENVINO,)


def test_who_reads_the_folder_is_told_of_queries_alone(folder: Path) -> None:
    for library in ("sentence-transformers@5", "langchain", "llama-index", "chromadb", "flagembedding"):
        assert list(advice(folder, library)) == ["prompt"], library
    assert advice(folder, "flagembedding") == {"prompt": f"query_instruction_for_retrieval={PROMPT!r}"}


def test_who_reads_nothing_is_told_pooling_norm_and_prompt(folder: Path) -> None:
    assert advice(folder, "fastembed") == {
        "pooling": "add_custom_model(pooling=PoolingType.CLS)",
        "norm": "add_custom_model(normalization=True)",
        "prompt": f"embed([{PROMPT!r} + query]): query_embed puts nothing before a query",
    }
    assert advice(folder, "vespa") == {
        "pooling": "<pooling-strategy>cls</pooling-strategy>",
        "norm": "<normalize>true</normalize>",
        "length": "<max-tokens>512</max-tokens>",
        "prompt": f"<prepend><query>{PROMPT}</query></prepend>",
    }


def test_another_pooling_asks_for_other_settings(folder: Path) -> None:
    pool(folder, "mean_tokens")
    assert "pooling" not in advice(folder, "vespa")
    assert advice(folder, "fastembed")["pooling"] == "add_custom_model(pooling=PoolingType.MEAN)"
    assert advice(folder, "flagembedding")["pooling"] == 'pooling_method="mean"'
    assert advice(folder, "fastembed-rs")["pooling"] == "with_pooling(Pooling::Mean)"


def test_a_pooling_that_no_setting_gives_is_refused(folder: Path) -> None:
    pool(folder, "lasttoken")
    lacking = [name for name, facts in LIBRARIES.items() if "last" not in facts.poolings]
    assert {"fastembed", "fastembed-rs", "langchain4j", "vespa"} <= set(lacking)
    for library in lacking:
        found = check_targets(folder, [library])
        assert [one.rule for one in found.files[0].findings] == ["pooling"]
        assert found.exit_status == 1


def test_a_norm_that_the_folder_does_not_promise_is_not_asked_for(folder: Path) -> None:
    kept = json.loads((folder / "modules.json").read_text("utf-8"))[:2]
    (folder / "modules.json").write_text(json.dumps(kept), "utf-8")
    assert "norm" not in advice(folder, "fastembed")
    assert advice(folder, "langchain4j")["norm"] == "compare by the cosine"


def test_a_tokenizer_that_truncates_by_itself_is_what_some_need(folder: Path) -> None:
    assert "length" not in advice(folder, "langchain4j")
    tokenizer = json.loads((folder / "tokenizer.json").read_text("utf-8")) | {"truncation": None}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")
    assert "tokenizer.json must truncate" in advice(folder, "langchain4j")["length"]


def test_padding_on_the_left_of_a_first_token_is_named(folder: Path) -> None:
    change_json(folder / "tokenizer_config.json", padding_side="left")
    for library in LIBRARIES.keys() - {OF_OPENVINO}:
        assert advice(folder, library)["padding"] == 'padding_side: "right"', library


def test_a_folder_without_prompts_needs_none(folder: Path) -> None:
    change_json(folder / "config_sentence_transformers.json", prompts={"query": "", "document": ""})
    for library in LIBRARIES.keys() - {OF_OPENVINO}:
        assert "prompt" not in advice(folder, library)


def test_another_file_is_named_by_a_setting(folder: Path) -> None:
    found = {one.file: one.advice for one in check_targets(folder, ["fastembed"]).files}
    assert found["onnx/model.onnx"] == ()
    (named,) = found["onnx/model_fp16.onnx"]
    assert named.setting == "model_file='onnx/model_fp16.onnx'"

    files = {one.file for one in check_targets(folder, ["tei"]).files}
    assert files == {"", "onnx/model.onnx"}


def test_a_folder_whose_files_cannot_be_read_is_refused(folder: Path) -> None:
    (folder / "1_Pooling/config.json").write_text("{", "utf-8")
    found = check_targets(folder, ["vespa"])
    assert [one.rule for one in found.files[0].findings] == ["json"]


def test_the_command_says_it_and_a_target_of_nobody_is_answered_with_those_that_are_known(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["check", str(folder), "--target", "vespa"]) == 0
    shown = capfd.readouterr().out
    assert (
        "to set in vespa folder: pooling: unasked it takes 'mean'; the folder's is 'cls': <pooling-strategy>" in shown
    )
    assert "PASSED" in shown

    assert run(["check", str(folder), "--target", "fastembed", "--json"]) == 0
    files = json.loads(capfd.readouterr().out)["files"]
    assert {one["rule"] for one in files[0]["advice"]} == {"pooling", "norm", "prompt"}

    with pytest.raises(UsageError, match="supabase-edge, sentence-transformers@5"):
        check_targets(folder, ["nobody"])
