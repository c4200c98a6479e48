"""What consumers read beside a model: tokenizer and pooling files, and whether they say what the checkpoint says."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from exporting import export_model
from tiny_checkpoint import change_json

from bge_export.bundle.layout import write_layout
from bge_export.bundle.manifest import read_bundle
from bge_export.checkpoint.opening import open_checkpoint
from bge_export.commands import Exported, judge_report
from bge_export.exporters.onnx import OnnxExporter
from bge_export.oracle.auto_tokens import other_token_ids
from bge_export.oracle.eager import embed_texts
from bge_export.parity.report import read_report
from bge_export.texts.corpus import Corpus, Text

SHOUTED = Corpus("shouted.txt", (Text("low", "the water", ""), Text("high", "The WATER", "")))


@pytest.fixture
def cased(tiny: Path, tmp_path: Path) -> Path:
    """The embedded checkpoint as a cased one whose tokenizer is `tokenizer.json` and nothing else."""
    folder = Path(shutil.copytree(tiny, tmp_path / "cased"))
    tokenizer = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    tokenizer["normalizer"] |= {"lowercase": False, "strip_accents": False}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")
    change_json(
        folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast", do_lower_case=None,
        do_basic_tokenize=None,
    )  # fmt: skip
    change_json(folder / "sentence_bert_config.json", do_lower_case=False)
    return folder


def settings(folder: Path, name: str) -> dict[str, object]:
    return dict(json.loads((folder / name).read_text("utf-8")))


def test_a_cased_checkpoint_stays_cased_for_readers_that_build_the_tokenizer_anew(cased: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(cased)
    write_layout(checkpoint, tmp_path / "out")
    written = settings(tmp_path / "out", "tokenizer_config.json")
    assert written["tokenizer_class"] == "BertTokenizer"
    assert (written["do_lower_case"], written["strip_accents"], written["tokenize_chinese_chars"]) == (
        False, False, True,
    )  # fmt: skip
    vectors = embed_texts(checkpoint, SHOUTED, threads=1)
    assert vectors.token_ids[0] != vectors.token_ids[1]
    assert other_token_ids(tmp_path / "out", SHOUTED, vectors.token_ids) == ()


def test_every_text_that_consumers_would_tokenise_otherwise_is_named(cased: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(cased)
    write_layout(checkpoint, tmp_path / "out")
    change_json(tmp_path / "out/tokenizer_config.json", do_lower_case=True)
    vectors = embed_texts(checkpoint, SHOUTED, threads=1)
    assert other_token_ids(tmp_path / "out", SHOUTED, vectors.token_ids) == ("high",)


def test_an_export_whose_auto_tokenizer_is_another_is_refused_by_the_texts(
    cased: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bge_export.bundle.layout.NORMALIZER_SETTINGS", {})
    done = export_model(OnnxExporter(), str(cased), tmp_path / "out")
    assert done.proof is not None
    assert done.folder.name == "out.refused"
    assert {bad.rule for bad in done.proof.verdict.failures} == {"token-ids"}
    assert "AutoTokenizer" in done.proof.verdict.failures[0].message
    assert done.proof.verdict.failures[0].row is not None
    assert not judge_report(done.proof.path).verdict.passed


def test_a_cased_checkpoint_is_exported_and_proven(cased: Path, tmp_path: Path) -> None:
    done = export_model(OnnxExporter(), str(cased), tmp_path / "out")
    assert done.folder == tmp_path / "out"
    assert read_report(tmp_path / "out/parity.json").runs[""].other_token_ids == ()


@pytest.mark.parametrize(
    ("change", "lowers"),
    [
        (lambda f: None, True),
        (lambda f: (f / "sentence_bert_config.json").unlink(), False),
        (lambda f: change_json(f / "sentence_bert_config.json", do_lower_case=None), False),
        (lambda f: (f / "sentence_bert_config.json").rename(f / "sentence_roberta_config.json"), True),
    ],
)
def test_only_the_checkpoints_own_settings_ask_to_lowercase_before_the_tokenizer(
    tiny: Path, tmp_path: Path, change: Callable[[Path], object], lowers: bool
) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "checkpoint"))
    change(folder)
    write_layout(open_checkpoint(folder), tmp_path / "out")
    assert settings(tmp_path / "out", "sentence_bert_config.json")["do_lower_case"] is lowers


def test_what_is_written_is_read_back_as_the_promise(tiny_export: Exported) -> None:
    manifest, _ = read_bundle(tiny_export.folder)
    assert manifest.promise.reads.prompts["query"]
