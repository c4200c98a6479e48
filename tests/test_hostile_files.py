"""Small files that would take all memory or time, and libraries that give up: each ends in an error for people."""

import io
import json
import time
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from fakes import reference_of, small_corpus
from fuzz.readers import READERS
from tiny_checkpoint import change_json, write_checkpoint

from bge_export.bundle.integrity import MANIFEST
from bge_export.bundle.manifest import read_bundle, read_manifest
from bge_export.checkpoint.opening import open_checkpoint
from bge_export.errors import ArtifactError, CheckpointError, PolicyError, ReportError
from bge_export.files.json_files import MOST_DEPTH, read_object
from bge_export.files.panics import LibraryPanicError, panics_as_errors
from bge_export.oracle.auto_tokens import other_token_ids
from bge_export.oracle.vectors import ReferenceVectors
from bge_export.parity.gate.policy import ThresholdPolicy
from bge_export.texts.tokens import TextTokenizer

BAD_TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "X", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
    "special_tokens": {},
}
PANICS = {
    "a template of a token that is not there": {"post_processor": BAD_TEMPLATE},
    "a table of characters that is none": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
}


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    path = tmp_path / "reference.npz"
    reference_of(small_corpus(3)).write(path)
    return path


def rewritten(path: Path, packing: int = zipfile.ZIP_STORED, **members: bytes) -> None:
    """Write an archive again with other members."""
    with zipfile.ZipFile(path) as archive:
        whole = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", packing) as archive:
        for name, content in {**whole, **{f"{name}.npy": content for name, content in members.items()}}.items():
            archive.writestr(name, content)


def array_bytes(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


@pytest.mark.parametrize("name", ["vectors_cls", "vectors_mean", "token_ids", "facts"])
def test_vectors_that_unpack_to_more_than_their_file_are_refused(vectors: Path, name: str) -> None:
    rewritten(vectors, zipfile.ZIP_DEFLATED, **{name: array_bytes(np.zeros(50_000_000, np.uint8))})
    assert vectors.stat().st_size < 1 << 20
    with pytest.raises(ReportError, match="compressed"):
        ReferenceVectors.read(vectors)


@pytest.mark.parametrize("shape", ["(1000000000000,)", "(2, 3)", "(-1,)", "()"])
def test_vectors_that_declare_what_they_do_not_hold_are_refused(vectors: Path, shape: str) -> None:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + b"\0" * 12
    rewritten(vectors, vectors_cls=content)
    with pytest.raises(ReportError, match="reference vectors"):
        ReferenceVectors.read(vectors)


def test_an_array_that_does_not_belong_there_is_refused(vectors: Path) -> None:
    rewritten(vectors, more=array_bytes(np.zeros(3)))
    with pytest.raises(ReportError, match="does not belong"):
        ReferenceVectors.read(vectors)


@pytest.mark.parametrize(
    ("key", "value"), [("dim", "8"), ("dim", 0), ("pooling", "median"), ("max_tokens", -1), ("normalize", 1)]
)
def test_facts_of_another_kind_are_refused_by_name(vectors: Path, key: str, value: object) -> None:
    with np.load(vectors) as data:
        facts = json.loads(data["facts"].tobytes())
    part = facts["spec"]["inputs"] if key == "max_tokens" else facts["spec"]["heads"]["dense"]
    part[key] = value
    rewritten(vectors, facts=array_bytes(np.frombuffer(json.dumps(facts).encode(), np.uint8)))
    with pytest.raises(ReportError, match=rf"spec\.[a-z.]+\.{key}"):
        ReferenceVectors.read(vectors)


def test_token_counts_that_do_not_fit_are_refused(vectors: Path) -> None:
    rewritten(vectors, token_counts=array_bytes(np.array([-1, 2, 3])))
    with pytest.raises(ReportError, match="token_counts"):
        ReferenceVectors.read(vectors)


@pytest.mark.parametrize(
    "line",
    [f"{'.'.join('a' * 20_000)} = 1", f"[{'.'.join('a' * 20_000)}]", f"a = {'[' * 5000}", f"a = {'{a = ' * 5000}"],
)
def test_limits_that_lie_thousands_deep_in_each_other_are_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "limits.toml"
    path.write_text(f"require = []\n{line}\n", "utf-8")
    start = time.monotonic()
    with pytest.raises(PolicyError, match=r"limits\.toml"):
        ThresholdPolicy.read(path)
    assert time.monotonic() - start < 2


@pytest.mark.parametrize("kinds", ["[[]]", "[{}]", "[1]", "1", "{}", '"x"'])
def test_differences_that_are_no_kinds_of_text_are_refused(tmp_path: Path, kinds: str) -> None:
    path = tmp_path / "limits.toml"
    path.write_text(f'require = []\n[token-differences]\n"*" = {kinds}\n', "utf-8")
    with pytest.raises(PolicyError, match="not a known kind of text"):
        ThresholdPolicy.read(path)


def nested(depth: int) -> str:
    """Return JSON objects in each other, `depth` of them in all."""
    return '{"a":' * (depth - 1) + "{}" + "}" * (depth - 1)


def test_json_is_read_down_to_a_depth_and_no_deeper(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(nested(MOST_DEPTH), "utf-8")
    read_object(path)
    for depth in (MOST_DEPTH + 1, 900, 100_000):
        path.write_text(nested(depth), "utf-8")
        with pytest.raises(CheckpointError, match="deeper"):
            read_object(path)


def test_a_deep_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text(nested(100_000), "utf-8")
    with pytest.raises(ArtifactError, match="deeper"):
        read_manifest(tmp_path)


def test_a_normalizer_that_is_deep_is_refused(tmp_path: Path) -> None:
    root, deep = write_checkpoint(tmp_path / "tiny"), {}
    for _ in range(400):
        deep = {"type": "Sequence", "normalizers": [deep]}
    change_json(root / "tokenizer.json", normalizer=deep)
    with pytest.raises(CheckpointError, match="deeper"):
        open_checkpoint(root)


@pytest.mark.parametrize(
    "models",
    [
        [{"files": []}],
        [{"files": ["not there"]}],
        [{"target": "onnx"}],
        [{"target": "onnx-fp32\n"}],
        [{"target": "../x-fp32"}],
    ],
)
@pytest.mark.parametrize("verify", [True, False])
def test_a_model_without_files_or_target_is_refused(tmp_path: Path, models: list[dict], verify: bool) -> None:
    READERS["manifest"].write(tmp_path)
    manifest = json.loads((tmp_path / MANIFEST).read_text("utf-8"))
    manifest["models"] = [manifest["models"][0] | change for change in models]
    (tmp_path / MANIFEST).write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(ArtifactError, match=MANIFEST):
        read_bundle(tmp_path, verify=verify)


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "../x", "/x", "", "."])
def test_a_name_that_no_file_of_the_folder_has_is_refused(tmp_path: Path, name: str) -> None:
    READERS["manifest"].write(tmp_path)
    manifest = json.loads((tmp_path / MANIFEST).read_text("utf-8"))
    manifest["files"][name] = "a" * 64
    (tmp_path / MANIFEST).write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(ArtifactError):
        read_bundle(tmp_path)


@pytest.mark.parametrize("panic", PANICS)
def test_a_panic_of_the_tokenizers_library_is_an_error_of_the_file(tmp_path: Path, panic: str) -> None:
    root = write_checkpoint(tmp_path / "tiny")
    change_json(root / "tokenizer.json", **PANICS[panic])
    with pytest.raises(ArtifactError, match="tokenizer"):
        TextTokenizer.load(root, 16).encode(["hello"])
    with suppress(ArtifactError):  # transformers builds some parts anew
        other_token_ids(root, small_corpus(1), [(1,)])


@pytest.mark.parametrize("content", ["{", "[]", '"x"', '{"pad_token": "[PAD]"', "\udcff"])
def test_settings_beside_a_tokenizer_that_cannot_be_read_are_named(tmp_path: Path, content: str) -> None:
    root = write_checkpoint(tmp_path / "tiny")
    (root / "tokenizer_config.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ArtifactError, match=r"tokenizer_config\.json"):
        TextTokenizer.load(root, 16)


def test_other_ends_of_a_program_are_no_panic() -> None:
    for end in (KeyboardInterrupt, SystemExit, ValueError):
        with pytest.raises(end), panics_as_errors():
            raise end
    panic = type("PanicException", (BaseException,), {})
    with pytest.raises(LibraryPanicError, match="gave up: no entry"), panics_as_errors():
        raise panic("no entry")


@pytest.mark.parametrize("half", [r"\ud800", r"\uDC00", r"\ud800\\udc00", r"\ud83d\ude00\udc00"])
def test_half_a_character_is_not_valid_json(half: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(f'{{"model_type": "{half}"}}', "utf-8")
    with pytest.raises(CheckpointError, match=r"config.json is not valid JSON: \S+ is half a character"):
        read_object(path)


@pytest.mark.parametrize("whole", [r"\ud83d\ude00", r"\\ud800", r"\\\\ud800", "\U0001f600", r"\uabcd"])
def test_whole_characters_are_read_however_they_are_written(whole: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(f'{{"model_type": "{whole}"}}', "utf-8")
    assert read_object(path) == json.loads(path.read_text("utf-8"))


@pytest.mark.parametrize("key", ["id", "revision", "digest"])
def test_a_manifest_with_half_a_character_is_refused(bundle: Path, key: str) -> None:
    path = bundle / MANIFEST
    fields = json.loads(path.read_text("utf-8"))
    fields["source"][key] = "\ud800"
    path.write_text(json.dumps(fields), "utf-8")
    with pytest.raises(ArtifactError, match="half a character"):
        read_bundle(bundle)
