"""What consumers read beside a model: tokenizer and pooling files, and whether they say what the checkpoint says."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from exporting import export_model
from tiny_checkpoint import change_json
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from bge_export.bundle.layout import write_layout
from bge_export.bundle.manifest import read_bundle
from bge_export.checkpoint.opening import open_checkpoint
from bge_export.commands import Exported, judge_report
from bge_export.exporters.onnx import OnnxExporter
from bge_export.oracle.auto_tokens import other_token_ids
from bge_export.oracle.eager import embed_texts
from bge_export.parity.report import read_report
from bge_export.texts.corpus import Corpus, Text
from bge_export.texts.tokens import TextTokenizer

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
    vectors = embed_texts(checkpoint, SHOUTED, threads=1, every_id=False)
    assert vectors.token_ids[0] != vectors.token_ids[1]
    assert other_token_ids(tmp_path / "out", SHOUTED, vectors.token_ids) == ()


def test_every_text_that_consumers_would_tokenise_otherwise_is_named(cased: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(cased)
    write_layout(checkpoint, tmp_path / "out")
    change_json(tmp_path / "out/tokenizer_config.json", do_lower_case=True)
    vectors = embed_texts(checkpoint, SHOUTED, threads=1, every_id=False)
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


def lowercased_by(normalizer: dict[str, object]) -> Callable[[Path], object]:
    """Return a change that gives a checkpoint another normalizer."""
    return lambda folder: (
        change_json(folder / "tokenizer.json", normalizer=normalizer),
        change_json(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast"),
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda f: None,
        lambda f: (f / "sentence_bert_config.json").unlink(),
        lambda f: change_json(f / "sentence_bert_config.json", do_lower_case=None),
        lambda f: (f / "sentence_bert_config.json").rename(f / "sentence_roberta_config.json"),
        lowercased_by({"type": "Lowercase"}),
        lowercased_by({"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]}),
    ],
)
def test_texts_are_not_lowercased_before_a_tokenizer_that_lowercases(
    tiny: Path, tmp_path: Path, change: Callable[[Path], object]
) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "checkpoint"))
    change(folder)
    write_layout(open_checkpoint(folder), tmp_path / "out")
    assert settings(tmp_path / "out", "sentence_bert_config.json")["do_lower_case"] is False


def test_texts_are_lowercased_before_a_tokenizer_that_does_not_if_the_checkpoint_asks_for_it(
    tiny: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "checkpoint"))
    (folder / "tokenizer.json").unlink()
    change_json(folder / "tokenizer_config.json", do_lower_case=False)
    write_layout(open_checkpoint(folder), tmp_path / "out")
    assert settings(tmp_path / "out", "sentence_bert_config.json")["do_lower_case"] is True


@pytest.mark.parametrize("longest", [512, 24])
@pytest.mark.parametrize(
    "baked", [{}, {"truncation": {"direction": "Right", "max_length": 8, "strategy": "OnlyFirst", "stride": 2}}]
)
def test_whoever_only_reads_the_tokenizer_file_gets_the_longest_input_and_no_padding(
    tiny: Path, tmp_path: Path, longest: int, baked: dict[str, object]
) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "checkpoint"))
    change_json(folder / "tokenizer.json", padding={"strategy": "BatchLongest"} if baked else None, **baked)
    change_json(folder / "sentence_bert_config.json", max_seq_length=longest)
    write_layout(open_checkpoint(folder), tmp_path / "out")

    alone = Tokenizer.from_file(str(tmp_path / "out/tokenizer.json"))
    auto = AutoTokenizer.from_pretrained(tmp_path / "out")
    texts = ["", "the water", "[CLS] water [SEP] [MASK]", "\u039f\u0394\u039f\u03a3", "water " * 600]

    for text, encoding in zip(texts, alone.encode_batch(texts), strict=True):
        assert encoding.ids == auto(text, truncation=True)["input_ids"]
        assert len(encoding.ids) <= longest
    assert len(alone.encode(texts[-1]).ids) == longest

    for pair in ((texts[-1], "water"), ("water", texts[-1]), (texts[-1], texts[-1])):
        assert alone.encode(*pair).ids == auto(*pair, truncation=True)["input_ids"]
        assert len(alone.encode(*pair).ids) == longest


def test_the_truncation_in_the_file_does_not_act_on_those_who_ask_for_none(tiny: Path, tmp_path: Path) -> None:
    write_layout(open_checkpoint(tiny), tmp_path / "out")
    auto = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert len(auto("water " * 600)["input_ids"]) == 602
    assert len(auto("water " * 600, truncation=True, max_length=16)["input_ids"]) == 16
    assert len(TextTokenizer.load(tmp_path / "out", 16).encode(["water " * 600])[0]) == 16


def test_what_is_written_is_read_back_as_the_promise(tiny_export: Exported) -> None:
    manifest, _ = read_bundle(tiny_export.folder)
    assert manifest.spec.inputs.prompts["query"]
