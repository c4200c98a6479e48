"""Every reader of files that others give, with a small valid input of it."""

import json
import shutil
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from tiny_checkpoint import write_checkpoint

from bge_export.contracts import Artifact, Target
from bge_export.texts.corpus import Corpus, Text

TINY = Path(__file__).resolve().parents[2] / "parity_fixtures" / "tiny"
LIMITS = Path(__file__).resolve().parents[2] / "parity_fixtures" / "thresholds.toml"
TEXTS = ("", "hello worlds", "x" * 300, "你好 é\u0301 \U0001f600", "[CLS] [MASK]", "\0\n\t")


@dataclass(frozen=True)
class Reader:
    """How one kind of file is read.

    Attributes:
        write: writes a valid input into an empty folder.
        files: file -> how it is made wrong (`mutations.MUTATE`).
        read: reads the folder; raises nothing of its own for the valid input.
    """

    write: Callable[[Path], object]
    files: Mapping[str, str]
    read: Callable[[Path], object]


def _read_checkpoint(root: Path) -> None:
    from bge_export.checkpoint.opening import open_checkpoint

    open_checkpoint(root)


def _write_tokenizers(root: Path) -> None:
    """Write tokenizers of three kinds, each in a folder of its own, with all parts that a file may hold."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    letters = [*"abcdehlorswx", "▁", "Ġ", "##s", "he", "l", "<unk>"]
    ids = {token: number for number, token in enumerate(dict.fromkeys(("[PAD]", "[CLS]", "[SEP]", *letters)))}
    merges = [("h", "e"), ("l", "l")]
    kinds = {
        "wordpiece": models.WordPiece(ids, unk_token="<unk>"),
        "unigram": models.Unigram([(token, -float(number)) for token, number in ids.items()], ids["<unk>"], False),
        "bpe": models.BPE({**ids, "ll": len(ids)}, merges, unk_token="<unk>", fuse_unk=True),
    }
    for name, model in kinds.items():
        tokenizer = Tokenizer(model)
        replace = normalizers.Replace(Regex("x{3,}"), "x")
        parts = [normalizers.NFKC(), replace, normalizers.Strip(), normalizers.BertNormalizer()]
        tokenizer.normalizer = normalizers.Sequence(parts)
        split = pre_tokenizers.Split(Regex(r"\d"), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [split, pre_tokenizers.Metaspace(), pre_tokenizers.ByteLevel()]
        )
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
        )
        tokenizer.decoder = decoders.Metaspace()
        tokenizer.add_special_tokens(["[PAD]", "[CLS]", "[MASK]"])
        tokenizer.enable_padding(pad_token="[PAD]", pad_id=0)
        tokenizer.enable_truncation(8, stride=1)
        (root / name).mkdir()
        tokenizer.save(str(root / name / "tokenizer.json"))
        settings = {"pad_token": "[PAD]", "model_max_length": 16, "tokenizer_class": "PreTrainedTokenizer"}
        (root / name / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")


def _write_tiny(root: Path) -> None:
    shutil.copytree(TINY, root, dirs_exist_ok=True)


def _read_model(root: Path) -> None:
    from bge_export.checkpoint.model import load_model
    from bge_export.checkpoint.opening import open_checkpoint

    load_model(open_checkpoint(root))


def _read_tokens(root: Path) -> None:
    from bge_export.texts.tokens import TextTokenizer

    for folder in sorted(root.iterdir()):
        tokenizer = TextTokenizer.load(folder, 16)
        tokenizer.vocabulary()
        tokenizer.pad(tokenizer.encode(TEXTS))
        tokenizer.unknown_share(TEXTS)


def _read_auto_tokens(root: Path) -> None:
    from bge_export.oracle.auto_tokens import other_token_ids

    corpus = Corpus("x", tuple(Text(str(number), text, "") for number, text in enumerate(TEXTS)))
    for folder in sorted(root.iterdir()):
        other_token_ids(folder, corpus, [(1,)] * len(TEXTS))


def _read_client_files(root: Path) -> None:
    from bge_export.compatibility.json_keys import check_folder, client_config
    from bge_export.compatibility.targets import TARGETS

    for facts in TARGETS.values():
        check_folder(root, facts)
    client_config(root)


def _write_client_files(root: Path) -> None:
    write_checkpoint(root)
    config = json.loads((root / "config.json").read_text("utf-8"))
    config["transformers.js_config"] = {"dtype": {"model": "fp32"}, "use_external_data_format": True}
    (root / "config.json").write_text(json.dumps(config), "utf-8")
    (root / "README.md").write_text("```js\n// transformers@2.10\npooling: 'cls'\n```\n", "utf-8")


def _write_vectors(root: Path) -> None:
    from fakes import reference_of, small_corpus

    reference_of(small_corpus(3)).write(root / "reference.npz")


def _read_vectors(root: Path) -> None:
    from bge_export.oracle.vectors import ReferenceVectors

    ReferenceVectors.read(root / "reference.npz")


def _read_limits(root: Path) -> None:
    from bge_export.parity.gate.policy import ThresholdPolicy

    ThresholdPolicy.read(root / "limits.toml")


def _write_manifest(root: Path) -> None:
    from bundles import seal

    from bge_export.files.digest import file_sha256

    write_checkpoint(root)
    (root / "model.safetensors").unlink()
    (root / "onnx").mkdir()
    (root / "onnx/model.onnx").write_bytes(b"graph")
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    model = {"target": "onnx-fp32", "files": ["onnx/model.onnx"], "inputs": ["input_ids"],
             "outputs": ["last_hidden_state"], "tools": {"onnx": "1"}, "options": {"a": [1]}}  # fmt: skip
    manifest = {
        "schema": "bge_export.manifest/1",
        "source": {"id": "tiny", "revision": None, "digest": "a" * 64, "model_type": "bert"},
        "spec": {
            "inputs": {"max_tokens": 16, "prompts": {}},
            "heads": {"dense": {"dim": 4, "pooling": "cls", "normalize": True}},
        },
        "models": [model], "weights": [], "files": {name: file_sha256(root / name) for name in names}, "checked": True,
    }  # fmt: skip
    (root / "bge_export.json").write_text(json.dumps(manifest), "utf-8")
    seal(root)


def _read_manifest(root: Path) -> None:
    from bge_export.bundle.foreign import foreign_files
    from bge_export.bundle.manifest import read_bundle

    foreign_files(root)
    read_bundle(root, verify=False)
    read_bundle(root)


def _write_golden(root: Path) -> None:
    from bge_export.texts.golden import GoldenRow, write_rows

    row = GoldenRow(id="a", kind="plain", use="query", prompt="p: ", text="x", token_ids=[1], vector=[0.5, 0.5])
    (root / "golden.jsonl").write_bytes(write_rows([row, row.model_copy(update={"id": "b"})]))


def _read_golden(root: Path) -> None:
    from bge_export.commands.programs import read_golden

    read_golden(root)


def _write_contract(root: Path) -> None:
    from bundles import write_bundle

    write_bundle(root / "bundle")


def _read_contract(root: Path) -> None:
    from bge_export.bundle.contract import read_contract

    read_contract(root / "bundle")


def _write_report(root: Path) -> None:
    from fakes import report_of, small_corpus

    from bge_export.parity.report import write_report

    write_report(report_of(corpus=small_corpus(3)), root / "parity.json")


def _read_report(root: Path) -> None:
    from fakes import POLICY, small_corpus

    from bge_export.parity.gate.judge import judge
    from bge_export.parity.report import read_report
    from bge_export.parity.show.render import as_json, render

    report = read_report(root / "parity.json")
    verdict = judge(report, POLICY, small_corpus(3))
    render(report, verdict)
    as_json(report, verdict)


def _write_bench(root: Path) -> None:
    report = {"schema": "bge_export.bench/1", "environment": {"cpu": "x"}, "base": "a", "shapes": ["1x1"], "rounds": 1,
              "seed": 1, "vocabulary": 9, "files": [], "lanes": []}  # fmt: skip
    (root / "bench.json").write_text(json.dumps(report), "utf-8")


def _read_bench(root: Path) -> None:
    from bge_export.bench.report import read_bench

    _ = read_bench(root / "bench.json").warnings


def _write_texts(root: Path) -> None:
    (root / "a.txt").write_text("one\n\ntwo\n", "utf-8")
    (root / "a.jsonl").write_text('{"text": "one", "id": "a", "tag": "b"}\n\n{"text": ""}\n', "utf-8")
    (root / "a.tsv").write_text("text\nhello\nworld\n", "utf-8")
    (root / "a.csv").write_text('text\n"a, b"\n"c ""d"""\n', "utf-8")
    (root / "pairs.tsv").write_text("score\tsentence1\tsentence2\n1.5\ta\tb\n2\tc\td\n", "utf-8")


def _read_texts(root: Path) -> None:
    from bge_export.evaluate.similarity import read_pairs
    from bge_export.texts.corpus import load_corpus

    for name in ("a.txt", "a.jsonl", "a.tsv", "a.csv"):
        _ = load_corpus(root / name).digest
    read_pairs(root / "pairs.tsv")


def small_graph() -> onnx.ModelProto:
    """Return a product of 8-bit activations with an int8 weight, as clients take it."""
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["x"]),
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["a"]),
        helper.make_node("Transpose", ["w"], ["v"], perm=[1, 0]),
        helper.make_node("DequantizeLinear", ["v", "s", "u"], ["b"]),
        helper.make_node("MatMul", ["a", "b"], ["last_hidden_state"]),
    ]
    values = {"table": np.ones((8, 4), np.float32), "s": np.float32(0.02), "z": np.uint8(128), "u": np.int8(0),
              "w": np.full((3, 4), 90, np.int8)}  # fmt: skip
    axes = ["B", "S"]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info(name, 7, axes) for name in ("input_ids", "attention_mask")],
        [helper.make_tensor_value_info("last_hidden_state", 1, [*axes, 3])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _write_onnx(root: Path) -> None:
    onnx.save(small_graph(), root / "model.onnx")


def _read_onnx(root: Path) -> None:
    from bge_export.compatibility.graphs import check_graph, read_graph
    from bge_export.compatibility.targets import TARGETS
    from bge_export.errors import ArtifactError
    from bge_export.formats.onnx import read as read_onnx
    from bge_export.inspection.folder import inspect_path
    from bge_export.saturation import facts_of

    path = root / "model.onnx"
    refused: list[ArtifactError] = []
    for read in (read_onnx, inspect_path, lambda one: facts_of(one, "onnx")):
        try:
            read(path)
        except ArtifactError as error:
            refused.append(error)
    model = read_graph(path)
    for facts in TARGETS.values():
        check_graph(model, path, facts, {}, "last_hidden_state")
    if refused:
        raise refused[0]


def _write_openvino(root: Path) -> None:
    import openvino

    onnx.save(small_graph(), root / "model.onnx")
    openvino.save_model(openvino.Core().read_model(root / "model.onnx"), root / "model.xml", compress_to_fp16=False)
    (root / "model.onnx").unlink()


def _read_openvino(root: Path) -> None:
    from bge_export.errors import ArtifactError
    from bge_export.formats.openvino import read as read_openvino
    from bge_export.saturation import facts_of

    try:
        read_openvino(root / "model.xml")
    except ArtifactError:
        facts_of(root / "model.xml", "openvino")
        raise
    facts_of(root / "model.xml", "openvino")


CODE = """class M(Module):
  __parameters__ = ["weight", ]
  __buffers__ = []
  weight : Tensor
  training : bool
  def forward(self: __torch__.M,
    input_ids: Tensor) -> Tensor:
    weight = self.weight
    x = torch.embedding(weight, input_ids, -1, False, False)
    _0 = torch.dropout(x, 0.10000000000000001, False)
    return torch.add(_0, torch.matmul(x, CONSTANTS.c0), alpha=1)
"""

STORED = (
    b"\x80\x02c__torch__\nM\nq\x00)\x81q\x01}(X\x06\x00\x00\x00weightctorch._utils\n_rebuild_tensor_v2\nq\x02("
    b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nq\x03X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x10tQK\x00(K\x04K\x04t"
    b"(K\x04K\x01t\x89tR(X\x07\x00\x00\x00storageh\x03X\x01\x00\x00\x001X\x03\x00\x00\x00cpuM\x00\x01tQub."
)
"""What torch writes of an object with two tensors; no reader may unpickle it."""


def _write_torchscript(root: Path) -> None:
    with zipfile.ZipFile(root / "model.pt", "w") as archive:
        archive.writestr("m/data.pkl", STORED)
        archive.writestr("m/constants.pkl", STORED)
        archive.writestr("m/code/__torch__.py", CODE)
        archive.writestr("m/version", "3\n")


def _read_contents(target: Target, model: str) -> Callable[[Path], None]:
    """Return what reads a model file as the gate does: what it holds, its operators and its int8 weights."""

    def read(root: Path) -> None:
        from bge_export.heads.dense import UNDECLARED
        from bge_export.parity.gate.contents import content_failures
        from bge_export.parity.measure.operators import known_operators
        from bge_export.saturation import known_facts

        artifact = Artifact(target, root, model, (model,), "a" * 64, UNDECLARED, (), ("last_hidden_state",))
        list(content_failures(artifact))
        known_operators([artifact])
        known_facts([artifact])

    return read


SMALL = {
    "config.json": "json", "modules.json": "json", "1_Pooling/config.json": "json", "sentence_bert_config.json": "json",
    "config_sentence_transformers.json": "json", "tokenizer_config.json": "json", "tokenizer.json": "json",
    "vocab.txt": "lines", "model.safetensors": "safetensors",
}  # fmt: skip

TOKENIZERS = {
    f"{kind}/{name}": "json"
    for kind in ("wordpiece", "unigram", "bpe")
    for name in ("tokenizer.json", "tokenizer.json", "tokenizer_config.json")
}

READERS: Mapping[str, Reader] = {
    "checkpoint": Reader(write_checkpoint, SMALL, _read_checkpoint),
    "model": Reader(_write_tiny, {"config.json": "json", "model.safetensors": "safetensors"}, _read_model),
    "tokens": Reader(_write_tokenizers, TOKENIZERS, _read_tokens),
    "auto tokens": Reader(_write_tokenizers, TOKENIZERS, _read_auto_tokens),
    "client files": Reader(_write_client_files, {**{name: kind for name, kind in SMALL.items() if kind == "json"},
                                                 "README.md": "lines"}, _read_client_files),
    "vectors": Reader(_write_vectors, {"reference.npz": "npz"}, _read_vectors),
    "limits": Reader(lambda root: shutil.copyfile(LIMITS, root / "limits.toml"), {"limits.toml": "toml"}, _read_limits),
    "golden texts": Reader(_write_golden, {"golden.jsonl": "lines"}, _read_golden),
    "contract": Reader(_write_contract, {"bundle/embedding.json": "json"}, _read_contract),
    "manifest": Reader(_write_manifest, {"bge_export.json": "json", "modules.json": "json"}, _read_manifest),
    "report": Reader(_write_report, {"parity.json": "json"}, _read_report),
    "bench": Reader(_write_bench, {"bench.json": "json"}, _read_bench),
    "texts": Reader(_write_texts, {"a.txt": "lines", "a.jsonl": "lines", "a.tsv": "lines", "a.csv": "lines",
                                   "pairs.tsv": "lines"}, _read_texts),
    "onnx": Reader(_write_onnx, {"model.onnx": "onnx"}, _read_onnx),
    "openvino": Reader(_write_openvino, {"model.xml": "xml", "model.bin": "bytes"}, _read_openvino),
    "onnx contents": Reader(_write_onnx, {"model.onnx": "onnx"}, _read_contents(Target("onnx", "int8"), "model.onnx")),
    "openvino contents": Reader(_write_openvino, {"model.xml": "xml", "model.bin": "bytes"},
                                _read_contents(Target("openvino", "int8"), "model.xml")),
    "torchscript contents": Reader(_write_torchscript, {"model.pt": "torch"},
                                   _read_contents(Target("torchscript", "fp32"), "model.pt")),
}  # fmt: skip
