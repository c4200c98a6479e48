"""Inputs rebuilt from public reports (BGE_EXPORT_CASES): each opens, or is refused with a sentence on the cause."""

import re
import shutil
from pathlib import Path

import pytest
from conftest import outside
from exporting import export_model
from tiny_checkpoint import change_json

from bge_export.bundle.manifest import read_bundle
from bge_export.checkpoint.model import load_model
from bge_export.checkpoint.opening import open_checkpoint, open_wanted
from bge_export.checkpoint.spec import Wanted
from bge_export.commands.measuring import measure_folder, named_device, read_policy, run_oracle
from bge_export.compatibility.check import check_targets
from bge_export.errors import ArtifactError, BgeExportError, CheckpointError
from bge_export.exporters.onnx import OnnxExporter
from bge_export.inspection.folder import inspect_path
from bge_export.parity.gate.judge import judge
from bge_export.parity.measure.measurement import Measurement
from bge_export.texts.corpus import Corpus, builtin_corpus
from bge_export.texts.fixtures import fixtures_folder

OPENED = (
    "arch_ernie",
    "arch_modernbert",
    "cfg_chunk",
    "cfg_return_dict",
    "dt_buffers",
    "mean_nonorm",
    "mlm",
    "mod_twonorm",
    "no_flags",
    "prompts_names",
    "prompts_none",
    "shard",
    "tk_padleft",
    "tk_vocab_blank",
)
"""Checkpoints whose encoder is loaded."""

REFUSED = {
    "bin": "--allow-pickle",
    "cfg_quantcfg": "quantization_config",
    "colbert": "ColBERT",
    "mod_custom": "custom_st",
    "mod_normfirst": "the order",
    "mod_router": "Router",
    "mod_we": "WordEmbeddings",
    "only_cls_flag": "without pooling_mode_mean_tokens",
    "pool_two": r"pooling \w+ \+",
    "prefix_0_auto_model_": r"begin with '0\.auto_model\.'",
    "prefix__orig_mod_": r"begin with '_orig_mod\.'",
    "prefix_model_": r"begin with 'model\.'",
    "prefix_module_": r"begin with 'module\.'",
    "prompt_nopool": "include_prompt",
    "prompts_default": "before every text",
    "shard_stale": "two sets of weights",
    "sub0": "0_Transformer",
    "tk_beyond": "the added token",
    "tk_nopost": "no post-processor",
    "tk_strip": "strip_accents",
    "tk_truncleft": "truncates long texts on the left",
}
"""Checkpoint -> what its refusal names."""

EXPORTED = (
    "arch_deberta",
    "arch_deberta-v2",
    "arch_gemma3_text",
    "arch_mistral",
    "arch_nomic_bert",
    "arch_rembert",
    "arch_squeezebert",
    "arch_t5enc",
    "arch_xlmr_xl",
    "arch_xlnet",
    "dense",
    "layernorm",
    "pool_max",
    "pool_sqrt",
    "pool_weightedmean",
    "prompts_none",
    "static",
    "truncdim",
)
"""Checkpoints whose file is proven on some texts of every length."""

NOT_EXPORTED = {
    "arch_convbert": "another vector where padding follows it",
    "arch_mobilebert": "another vector where padding follows it",
    "arch_nystromformer": "another vector where padding follows it",
    "arch_qwen2": r"Qwen2Tokenizer makes other token ids of \d+ of 149 texts",
}
"""Checkpoint -> what the export's refusal names."""

CHECKED = {
    "ext": "use_external_data_format",
    "ext_key_missing": "is missing",
    "ext_key_othername": "the name 'model.onnx_data'",
    "fixed": r"input_ids \[2, 8\]",
    "fixed_b1": r"input_ids \[1, sequence\]",
    "fixed_s128": r"input_ids \[batch, 128\]",
    "kv": "past_key_values",
    "logits": "logits",
}
"""Folder of a client -> what its refusal names."""

MISTAKEN = {"html": "HTML page", "lfs": "Git LFS pointer", "zero": "is empty", "cut": "not a valid ONNX file"}


@pytest.mark.parametrize("name", OPENED)
def test_a_harmless_case_is_opened_and_loaded(name: str) -> None:
    load_model(open_checkpoint(outside("BGE_EXPORT_CASES", "checkpoints") / name))


@pytest.mark.parametrize(("name", "cause"), REFUSED.items())
def test_a_case_is_refused_with_its_cause_in_one_line(name: str, cause: str) -> None:
    folder = outside("BGE_EXPORT_CASES", "checkpoints") / name
    with pytest.raises(CheckpointError, match=cause) as caught:
        load_model(open_wanted(folder, None, Wanted(default_pooling="cls")))
    assert "\n" not in str(caught.value)


def test_an_adapter_alone_is_refused_by_the_base_that_it_is_not_of(tmp_path: Path) -> None:
    """Its factors are 32 wide, and the base that it names is on the Hub: another of that name stands for it."""
    folder = Path(shutil.copytree(outside("BGE_EXPORT_CASES", "checkpoints") / "adapter_only", tmp_path / "adapter"))
    change_json(folder / "adapter_config.json", base_model_name_or_path=str(fixtures_folder() / "tiny"))
    with pytest.raises(CheckpointError, match=r"'encoder\.layer.*\[64, 64\].*\[32, 32\]"):
        open_checkpoint(folder)


@pytest.mark.parametrize("name", EXPORTED)
def test_an_architecture_is_exported_and_proven(name: str, tmp_path: Path) -> None:
    folder = outside("BGE_EXPORT_CASES", "checkpoints") / name
    texts = builtin_corpus().texts
    longest = max(texts, key=lambda text: len(text.text))
    corpus = Corpus("some.jsonl", (*texts[::15], longest))

    export_model(OnnxExporter(), str(folder), tmp_path / "out", check=False)
    manifest, artifacts = read_bundle(tmp_path / "out")
    measurement = Measurement(corpus, run_oracle(open_checkpoint(folder), corpus, 1), 1)
    report = measure_folder(measurement, tmp_path / "out", artifacts, [named_device("onnxruntime:cpu")])

    verdict = judge(report, read_policy(None), corpus, artifacts=artifacts, checkpoint_digest=manifest.source.digest)
    assert [bad.message for bad in verdict.failures] == []


@pytest.mark.parametrize("name", ["ce_saved", "reranker"])
def test_a_reranker_is_exported_as_one_and_proven(name: str, tmp_path: Path) -> None:
    folder = outside("BGE_EXPORT_CASES", "checkpoints") / name
    done = export_model(OnnxExporter(), str(folder), tmp_path / "out")
    assert done.proof is not None
    assert [bad.message for bad in done.proof.verdict.failures] == []
    assert done.proof.report.spec.is_reranker


@pytest.mark.parametrize(("name", "cause"), NOT_EXPORTED.items())
def test_an_architecture_that_cannot_be_proven_is_refused_in_one_sentence(
    name: str, cause: str, tmp_path: Path
) -> None:
    folder = outside("BGE_EXPORT_CASES", "checkpoints") / name
    with pytest.raises(BgeExportError, match=cause) as caught:
        export_model(OnnxExporter(), str(folder), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "cause"), CHECKED.items())
def test_a_folder_is_refused_with_its_cause(name: str, cause: str) -> None:
    found = check_targets(outside("BGE_EXPORT_CASES", "clients") / name, ["transformers.js@4"])
    assert any(re.search(cause, str(finding)) for one in found.files for finding in one.findings)


@pytest.mark.parametrize("name", ["ext_key", "optimum"])
def test_a_folder_that_clients_load_is_not_refused(name: str) -> None:
    assert check_targets(outside("BGE_EXPORT_CASES", "clients") / name, ["transformers.js@4"]).refused == ()


def test_a_model_in_the_root_is_refused_with_its_place() -> None:
    found = check_targets(outside("BGE_EXPORT_CASES", "onnx") / "optimum", ["transformers.js@4"])
    assert "only model.onnx" in str(found.files[0].findings[0])


@pytest.mark.parametrize(("name", "what"), MISTAKEN.items())
def test_a_file_that_is_no_model_is_named(name: str, what: str) -> None:
    with pytest.raises(ArtifactError, match=what):
        inspect_path(outside("BGE_EXPORT_CASES", "onnx") / f"bad/{name}.onnx")


def test_external_data_is_read_from_any_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert inspect_path(outside("BGE_EXPORT_CASES", "onnx") / "ext/model.onnx").graphs[0].external_data
