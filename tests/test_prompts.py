"""Queries have the instruction that their model was trained with, in every file that says so."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_checkpoint import change_json

from bge_export.bundle.layout import write_layout
from bge_export.bundle.manifest import read_manifest, write_manifest
from bge_export.bundle.origin import files_of
from bge_export.checkpoint.opening import open_checkpoint
from bge_export.checkpoint.prompts import INSTRUCTIONS, MODELS, published_instruction
from bge_export.cli import run
from bge_export.commands.measuring import open_reference
from bge_export.contracts import Checkpoint
from bge_export.errors import CheckpointError, UsageError
from bge_export.texts.corpus import builtin_corpus

ENGLISH = INSTRUCTIONS["en"]
PROMPTS = "config_sentence_transformers.json"


def sizes_of(name: str, **changes: object) -> dict[str, Any]:
    model = MODELS[name]
    sizes = {"hidden_size": model.width, "num_hidden_layers": model.layers, "vocab_size": model.tokens}
    return {**sizes, **changes}


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch, tiny: Path) -> None:
    """Take the embedded checkpoint's sizes for those of bge-small-en."""
    config = json.loads((tiny / "config.json").read_text("utf-8"))
    tiny_model = type(MODELS["bge-small-en"])(
        "en", config["hidden_size"], config["num_hidden_layers"], config["vocab_size"]
    )
    monkeypatch.setattr("bge_export.checkpoint.prompts.MODELS", {**MODELS, "bge-small-en": tiny_model})


def silent(tiny: Path, folder: Path, prompts: object = None) -> Path:
    """A copy of the embedded checkpoint that declares no prompts, or empty ones."""
    shutil.copytree(tiny, folder)
    change_json(folder / PROMPTS, prompts=prompts)
    return folder


@pytest.mark.parametrize(
    ("name", "language"),
    [
        ("BAAI/bge-small-en", "en"),
        ("bge-base-en-v1.5", "en"),
        ("BAAI/bge-large-en", "en"),
        ("BAAI/bge-small-zh-v1.5", "zh"),
        ("bge-large-zh", "zh"),
    ],
)
def test_models_of_the_family_have_the_instruction_of_their_language(name: str, language: str) -> None:
    assert published_instruction(name, sizes_of(name.rpartition("/")[2])) == INSTRUCTIONS[language]


@pytest.mark.parametrize(
    "name", ["BAAI/bge-m3", "BAAI/bge-large-zh-noinstruct", "Xenova/bge-small-en", "my-bge-small-en", "checkpoint", ""]
)
def test_other_models_have_none(name: str) -> None:
    assert published_instruction(name, sizes_of("bge-small-en")) is None


@pytest.mark.parametrize("change", [{"hidden_size": 512}, {"num_hidden_layers": 3}, {"vocab_size": 21128}])
def test_a_model_of_another_size_only_has_the_name(change: dict[str, int]) -> None:
    assert published_instruction("bge-small-en", sizes_of("bge-small-en", **change)) is None


def test_added_tokens_make_no_other_model_of_it() -> None:
    assert published_instruction("bge-small-en", sizes_of("bge-small-en", vocab_size=30600)) == ENGLISH


def test_every_published_instruction_is_proven_on_queries() -> None:
    texts = [text.text for text in builtin_corpus().texts]
    for instruction in INSTRUCTIONS.values():
        queries = [text for text in texts if text.startswith(instruction) and text != instruction]
        assert len(queries) >= 3, instruction


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("declared", [None, {"query": "", "document": ""}])
def test_a_model_that_declares_none_gets_the_published_one_and_its_user_is_told(
    tiny: Path, tmp_path: Path, declared: object
) -> None:
    checkpoint = open_checkpoint(silent(tiny, tmp_path / "bge-small-en", declared))

    assert checkpoint.spec.inputs.prompts == {"query": ENGLISH, "document": ""}
    assert checkpoint.prompts_from == "published"
    assert ENGLISH in checkpoint.notes[0]
    assert "--query-prefix ''" in checkpoint.notes[0]

    write_layout(checkpoint, tmp_path / "out")
    written = json.loads((tmp_path / "out" / PROMPTS).read_text("utf-8"))
    assert written["prompts"] == {"query": ENGLISH, "document": ""}


@pytest.mark.usefixtures("known")
def test_it_can_be_refused_and_another_given(tiny: Path, tmp_path: Path) -> None:
    folder = silent(tiny, tmp_path / "bge-small-en")

    refused = open_checkpoint(folder, query_prefix="")
    assert (refused.spec.inputs.prompts, refused.prompts_from, refused.notes) == ({}, "given", ())

    given = open_checkpoint(folder, query_prefix="query: ")
    assert (given.spec.inputs.prompts["query"], given.prompts_from) == ("query: ", "given")


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("origin", ["BAAI/bge-small-en", "/cache/sentence_transformers/BAAI_bge-small-en/"])
def test_what_descends_from_a_model_gets_an_offer_and_no_instruction(tiny: Path, tmp_path: Path, origin: str) -> None:
    folder = silent(tiny, tmp_path / "my-fine-tune")
    change_json(folder / "config.json", _name_or_path=origin)
    checkpoint = open_checkpoint(folder)

    assert (checkpoint.spec.inputs.prompts, checkpoint.prompts_from) == ({}, "checkpoint")
    assert f"--query-prefix {ENGLISH!r}" in checkpoint.notes[0]
    assert open_checkpoint(folder, query_prefix="").notes == ()


def test_an_unknown_model_gets_neither(tiny: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(silent(tiny, tmp_path / "bge-small-en"))
    assert (checkpoint.spec.inputs.prompts, checkpoint.notes) == ({}, ())


def test_a_declared_prompt_is_not_overruled(tiny: Path) -> None:
    assert open_checkpoint(tiny, query_prefix=ENGLISH).prompts_from == "checkpoint"
    with pytest.raises(CheckpointError, match="Leave --query-prefix out"):
        open_checkpoint(tiny, query_prefix="query: ")


@pytest.mark.parametrize("names", [("document",), ("passage",), ("corpus",), ("passage", "corpus")])
def test_the_prompt_of_documents_is_the_one_that_encode_document_takes(
    tiny: Path, tmp_path: Path, names: tuple[str, ...]
) -> None:
    prompts = {name: f"{name}: " for name in ("query", *names, "clustering")}
    folder = silent(tiny, tmp_path / "checkpoint", prompts)
    checkpoint = open_checkpoint(folder)
    assert checkpoint.spec.inputs.prompts == {"query": "query: ", "document": f"{names[0]}: "}

    write_layout(checkpoint, tmp_path / "out")
    written = json.loads((tmp_path / "out" / PROMPTS).read_text("utf-8"))["prompts"]
    assert written == {**prompts, "document": f"{names[0]}: "}


def written(checkpoint: Checkpoint, folder: Path) -> Path:
    write_layout(checkpoint, folder)
    write_manifest(folder, checkpoint, [], checked=False)
    return folder


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("prefix", [None, "", "query: "])
def test_the_reference_of_a_folder_has_its_prompts_whatever_its_own_folder_is_called(
    tiny: Path, tmp_path: Path, prefix: str | None
) -> None:
    checkpoint = open_checkpoint(silent(tiny, tmp_path / "bge-small-en"), query_prefix=prefix)
    manifest = read_manifest(written(checkpoint, tmp_path / "out"))

    moved = Path(shutil.copytree(checkpoint.root, tmp_path / "elsewhere"))
    again = open_reference(str(moved), None, manifest)

    assert again.spec == checkpoint.spec
    assert files_of(again) == files_of(checkpoint)


@pytest.mark.usefixtures("known")
def test_a_manifest_that_gives_another_prompt_than_the_checkpoint_declares_is_no_excuse(
    tiny: Path, tmp_path: Path
) -> None:
    manifest = read_manifest(written(open_checkpoint(tiny), tmp_path / "out"))
    forged = manifest.model_copy(
        update={
            "source": manifest.source.model_copy(update={"prompts_from": "given"}),
            "spec": manifest.spec.model_copy(
                update={"inputs": manifest.spec.inputs.model_copy(update={"prompts": {"query": "x", "document": ""}})}
            ),
        }
    )
    with pytest.raises((CheckpointError, UsageError), match="declares the query prompt"):
        open_reference(str(tiny), None, forged)


@pytest.mark.usefixtures("known")
def test_export_says_what_it_takes_and_inspect_where_it_is_from(
    tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = silent(tiny, tmp_path / "bge-small-en")
    out = tmp_path / "out"
    assert run(["onnx", str(folder), "-o", str(out), "--no-check"]) == 0
    said = capfd.readouterr()
    assert ENGLISH in said.err
    assert ENGLISH not in said.out

    assert run(["inspect", str(out)]) == 0
    shown = capfd.readouterr().out
    assert "published by its authors" in shown
    assert "document prefix" in shown

    assert run(["onnx", str(folder), "-o", str(out), "--no-check", "--query-prefix", "", "--overwrite"]) == 0
    assert ENGLISH not in capfd.readouterr().err
    assert run(["inspect", str(out)]) == 0
    assert "none, as the export was told" in capfd.readouterr().out
