"""Every exported folder holds its contract and its golden texts, both held to manifest and checkpoint."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bundles import checkpoint_of, seal, write_bundle

from bge_export.bundle.contract import CONTRACT, SCHEMA_FILE, Contract, read_contract
from bge_export.bundle.manifest import read_bundle, read_manifest
from bge_export.checkpoint.opening import open_checkpoint
from bge_export.cli import run
from bge_export.commands.extension import Kept
from bge_export.contracts import InputSpec
from bge_export.errors import ArtifactError
from bge_export.files.digest import file_sha256
from bge_export.parity.report import read_report
from bge_export.texts.corpus import builtin_corpus
from bge_export.texts.golden import GOLDEN, OVER_LONG, agree, golden_texts, read_rows, vectors_of, write_rows
from bge_export.texts.tokens import TextTokenizer


def test_a_contract_says_how_the_folder_is_used(tiny_export) -> None:
    root = tiny_export.folder
    said = json.loads((root / CONTRACT).read_text("utf-8"))
    assert said["embedding"] == {"width": 64, "pooling": "cls", "normalize": True}
    assert said["text"]["max_tokens"] == 512
    assert said["text"]["prompts"]["query"].startswith("Represent this sentence")
    assert said["text"]["prompts"]["document"] == ""
    assert [one["token"] for one in said["tokens"]["before"]] == ["[CLS]"]
    assert [one["token"] for one in said["tokens"]["after"]] == ["[SEP]"]
    assert said["tokens"]["padding"]["token"] == "[PAD]"
    assert said["tokens"]["token_type_ids"] == 0

    for one in said["files"]:
        assert one["outputs"] == {"last_hidden_state": "token states", "sentence_embedding": "embedding"}
        assert one["sha256"] == {name: file_sha256(root / name) for name in one["sha256"]}
    assert said["golden"]["sha256"] == file_sha256(root / GOLDEN)
    assert said["tokens"]["sha256"] == file_sha256(root / "tokenizer.json")


def test_the_schema_that_is_shipped_is_that_of_contracts() -> None:
    assert json.loads(SCHEMA_FILE.read_text("utf-8")) == Contract.model_json_schema()


def test_golden_texts_are_the_checkpoints(tiny_export) -> None:
    root = tiny_export.folder
    rows = read_rows((root / GOLDEN).read_bytes())
    assert len(rows) == 25
    assert len({row.id for row in rows}) == 25
    contract = read_contract(root)

    tokenizer = TextTokenizer.load(root, contract.text.max_tokens)
    assert [tuple(row.token_ids) for row in rows] == tokenizer.encode([row.prompt + row.text for row in rows])
    assert {row.prompt for row in rows if row.use == "query"} == {contract.text.prompts["query"]}
    assert [len(row.token_ids) for row in rows if row.kind == OVER_LONG] == [contract.text.max_tokens]
    assert vectors_of(rows).shape == (25, contract.embedding.width)
    assert np.allclose(np.linalg.norm(vectors_of(rows), axis=1), 1.0, atol=1e-5)


def test_golden_texts_hold_what_programs_get_wrong() -> None:
    texts = "".join(one.text for one in golden_texts(InputSpec(512, {})))
    for part in ("\n", "\r\n", "\t", "é", "e\u0301", "山", "🎉", "\u200d", "\u00a0"):
        assert part in texts
    assert "" in [one.text for one in golden_texts(InputSpec(512, {}))]


def test_the_longest_text_takes_no_gigabytes() -> None:
    lengths = [max(len(one.text.split()) for one in golden_texts(InputSpec(most, {}))) for most in (512, 2048, 100_000)]
    assert lengths[0] > 512
    assert 2048 < lengths[1] == lengths[2] < 2100


def changed_golden(root: Path, change: Callable[[dict[str, object]], object]) -> None:
    rows = [json.loads(line) for line in (root / GOLDEN).read_text("utf-8").split("\n") if line]
    change(rows[0])
    (root / GOLDEN).write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def turned(row: dict) -> None:
    row["vector"] = [-value for value in row["vector"]]


def a_little(row: dict) -> None:
    row["vector"][0] += 1e-4


GOLDEN_CHANGES: dict[str, Callable[[Path], object]] = {
    "a vector": lambda root: changed_golden(root, turned),
    "a component": lambda root: changed_golden(root, a_little),
    "a text": lambda root: changed_golden(root, lambda row: row.update(text="another")),
    "a prompt": lambda root: changed_golden(root, lambda row: row.update(prompt="passage: ")),
    "token ids": lambda root: changed_golden(root, lambda row: row.update(token_ids=[1, 2])),
    "fewer texts": lambda root: (root / GOLDEN).write_bytes((root / GOLDEN).read_bytes().split(b"\n")[0] + b"\n"),
    "no texts": lambda root: (root / GOLDEN).write_bytes(b""),
    "no file": lambda root: (root / GOLDEN).unlink(),
}


@pytest.mark.parametrize("change", GOLDEN_CHANGES)
def test_other_golden_texts_are_refused_though_the_folder_was_sealed_again(
    bundle: Path, change: str, capfd: pytest.CaptureFixture[str]
) -> None:
    GOLDEN_CHANGES[change](bundle)
    seal(bundle)
    assert run(["gate", str(bundle)]) == 1
    assert f"{GOLDEN} is not the file that an export of tiny writes" in capfd.readouterr().out


def test_other_golden_vectors_are_refused_when_they_are_measured(
    bundle: Path, tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    vectors = str(tmp_path / "reference.npz")
    assert run(["reference", str(tiny), "-o", vectors]) == 0

    changed_golden(bundle, turned)
    seal(bundle)
    for reference in (str(tiny), vectors):
        capfd.readouterr()
        assert run(["gate", str(bundle), "--reference", reference]) == 1
        assert f"{GOLDEN} is not the file" in capfd.readouterr().out

    measure = ["parity", str(bundle), "--reference", vectors, "--runtime", "onnxruntime"]
    assert run([*measure, "--report", str(tmp_path / "parity.json")]) == 1
    assert f"{GOLDEN} is not the file" in capfd.readouterr().out


def test_vectors_that_another_machine_computed_are_right(
    bundle: Path, tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    changed_golden(bundle, lambda row: row["vector"].__setitem__(0, row["vector"][0] + 2e-7))
    seal(bundle)
    report = ["--report", str(tmp_path / "parity.json")]
    assert run(["parity", str(bundle), "--reference", str(tiny), "--runtime", "onnxruntime", *report]) == 0
    assert run(["gate", str(tmp_path / "parity.json"), "--bundle", str(bundle), "--reference", str(tiny)]) == 0


CONTRACT_CHANGES: dict[str, Callable[[dict], object]] = {
    "pooling": lambda said: said["embedding"].update(pooling="mean"),
    "normalisation": lambda said: said["embedding"].update(normalize=False),
    "prompt": lambda said: said["text"]["prompts"].update(query=""),
    "longest input": lambda said: said["text"].update(max_tokens=256),
    "digest": lambda said: said["golden"].update(sha256="0" * 64),
    "output": lambda said: said["files"][0]["outputs"].update(last_hidden_state="embedding"),
}


@pytest.mark.parametrize("change", CONTRACT_CHANGES)
def test_a_contract_that_says_other_things_is_refused_though_it_was_sealed_again(bundle: Path, change: str) -> None:
    said = json.loads((bundle / CONTRACT).read_text("utf-8"))
    CONTRACT_CHANGES[change](said)
    (bundle / CONTRACT).write_text(json.dumps(said, indent=2, ensure_ascii=False) + "\n", "utf-8")
    seal(bundle, contract=False)
    with pytest.raises(ArtifactError, match="says other things than the folder's manifest"):
        read_bundle(bundle)
    assert run(["gate", str(bundle)]) == 3


def test_a_folder_without_contract_is_refused(bundle: Path) -> None:
    (bundle / CONTRACT).unlink()
    seal(bundle, contract=False)
    with pytest.raises(ArtifactError, match=r"embedding\.json is missing"):
        read_bundle(bundle)


def test_an_extension_keeps_golden_vectors_of_another_machine_and_replaces_wrong_ones(
    bundle: Path, tiny: Path, tmp_path: Path
) -> None:
    right = (bundle / GOLDEN).read_bytes()
    changed_golden(bundle, lambda row: row["vector"].__setitem__(0, row["vector"][0] + 2e-7))
    seal(bundle)
    other = (bundle / GOLDEN).read_bytes()
    assert agree(other, right)
    assert other != right
    assert run(["torchscript", str(tiny), "-o", str(bundle), "--no-check"]) == 0
    assert (bundle / GOLDEN).read_bytes() == other

    changed_golden(bundle, turned)
    seal(bundle)
    assert run(["torchscript", str(tiny), "-o", str(bundle), "--no-check", "--overwrite"]) == 0
    assert (bundle / GOLDEN).read_bytes() == right


def test_measurements_that_know_no_golden_texts_are_made_again(bundle: Path, tiny: Path) -> None:
    checkpoint, artifacts = open_checkpoint(tiny), read_bundle(bundle)[1]
    report = read_report(bundle / "parity.json")
    assert Kept(bundle, report=report).lanes(artifacts, builtin_corpus(), checkpoint)

    runs = {}
    for name, run_ in report.runs.items():
        files = {file: digest for file, digest in run_.files.items() if file != GOLDEN}
        runs[name] = run_.model_copy(update={"files": files})
    before = report.model_copy(update={"runs": runs}).sealed()
    assert Kept(bundle, report=before).lanes(artifacts, builtin_corpus(), checkpoint) == ()


def test_files_are_deterministic(tiny_export, tiny: Path, tmp_path: Path) -> None:
    assert run(["onnx", str(tiny), "-o", str(tmp_path / "a"), "--no-check"]) == 0
    assert (tmp_path / "a" / GOLDEN).read_bytes() == (tiny_export.folder / GOLDEN).read_bytes()


def test_a_file_of_golden_texts_that_is_none_is_named() -> None:
    for content in (b"", b"{}\n", b'{"id": 1}\n'):
        with pytest.raises(ValueError, match=r"line 1|no texts"):
            read_rows(content)


def test_vectors_of_several_widths_are_refused() -> None:
    rows = [*read_rows(GOOD)]
    with pytest.raises(ValueError, match="several widths"):
        read_rows(write_rows([rows[0], rows[0].model_copy(update={"vector": [1.0]})]))


GOOD = b'{"id":"a","kind":"plain","use":"document","prompt":"","text":"x","token_ids":[1],"vector":[0.5,0.5]}\n'


def test_a_folder_without_golden_texts_is_as_it_says(tmp_path: Path) -> None:
    root = write_bundle(tmp_path / "bundle")
    assert read_contract(root).golden is None
    assert GOLDEN not in read_manifest(root).files
    assert checkpoint_of(root).digest == read_contract(root).model.digest
    shutil.rmtree(root)
