import json
import os
import shutil
import subprocess
import sys
import warnings
import zipfile
from dataclasses import replace
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import pytest
import torch
from architectures import KINDS, build
from exporting import export_model
from packaging.requirements import Requirement
from tokenizers import Tokenizer

from bge_export.bundle.manifest import read_bundle, read_manifest
from bge_export.bundle.origin import files_of, held_files, other_files
from bge_export.checkpoint.model import load_model
from bge_export.checkpoint.opening import open_checkpoint
from bge_export.commands import Exported
from bge_export.errors import ExportError
from bge_export.exporters.onnx import OnnxExporter
from bge_export.exporters.torchscript import ELAND_INPUTS, NAMES, TorchScriptExporter
from bge_export.exporters.torchscript import eland_inputs as inputs_of
from bge_export.formats.torchscript import BESIDE_ELAND, ELAND_CONFIG, ELAND_FILE, ELAND_VOCABULARY, PLAIN_FILE
from bge_export.graph import tracing
from bge_export.heads.dense import dense_head
from bge_export.oracle.eager import embed_texts
from bge_export.oracle.golden import golden_of
from bge_export.texts.corpus import builtin_corpus
from bge_export.texts.tokens import TextTokenizer

POOLINGS = ("cls", "mean", "last")
FOUR_INPUTS = {"bert", "distilbert"}


@pytest.fixture(scope="module")
def plain(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    out = tmp_path_factory.mktemp("torchscript") / "tiny"
    return export_model(TorchScriptExporter(sentence_embedding=True), str(tiny), out)


@pytest.fixture(scope="module")
def eland(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export_model(TorchScriptExporter(layout="eland"), str(tiny), tmp_path_factory.mktemp("eland") / "tiny")


def load(path: Path, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript's deprecation
        return torch.jit.load(str(path), **options)


def tokens(batch: int, length: int) -> dict[str, torch.Tensor]:
    """Ragged texts of ordinary ids, padded on the right."""
    generator = torch.Generator().manual_seed(batch * 1000 + length)
    lengths = torch.randint(1, length + 1, (batch,), generator=generator)
    lengths[0] = length
    mask = (torch.arange(length)[None] < lengths[:, None]).long()
    ids = torch.randint(5, 60, (batch, length), generator=generator)
    return {"input_ids": torch.where(mask == 1, ids, 1), "attention_mask": mask, "token_type_ids": mask * 0}


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_architecture_and_pooling_is_proven(kind: str, pooling: str, tmp_path: Path) -> None:
    checkpoint = build(kind, tmp_path / kind, pooling)
    done = export_model(TorchScriptExporter(sentence_embedding=True), str(checkpoint), tmp_path / "out")
    assert done.proof is not None
    assert [bad.message for bad in done.proof.verdict.failures] == []
    assert {(lane.target, lane.runtime, lane.output) for lane in done.proof.report.lanes} == {
        ("torchscript-fp32", "torchscript", output) for output in ("last_hidden_state", "sentence_embedding")
    }
    artifact = read_bundle(done.folder)[1][0]
    assert artifact.model == PLAIN_FILE
    assert ("token_type_ids" in artifact.inputs) == (kind == "bert")


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_elands_form_is_proven_with_the_inputs_that_elasticsearch_gives(
    kind: str, pooling: str, tmp_path: Path
) -> None:
    checkpoint = build(kind, tmp_path / kind, pooling)
    done = export_model(TorchScriptExporter(layout="eland"), str(checkpoint), tmp_path / "out")
    assert done.proof is not None
    assert [bad.message for bad in done.proof.verdict.failures] == []
    artifact = read_bundle(done.folder)[1][0]
    assert artifact.model == ELAND_FILE
    assert artifact.inputs == (ELAND_INPUTS if kind in FOUR_INPUTS else ELAND_INPUTS[:2])
    assert artifact.outputs == ("sentence_embedding",)

    # What Elasticsearch tokenises with is what the folder's own tokenizer has.
    tokenizer = Tokenizer.from_file(str(done.folder / "tokenizer.json"))
    written = json.loads((done.folder / ELAND_VOCABULARY).read_text("utf-8"))
    assert written["vocabulary"] == [tokenizer.id_to_token(number) for number in range(tokenizer.get_vocab_size())]
    assert ("merges" in written, "scores" in written) == (kind == "roberta", kind == "xlm-roberta")
    assert len(written.get("scores", written["vocabulary"])) == len(written["vocabulary"])
    (name,) = json.loads((done.folder / ELAND_CONFIG).read_text("utf-8"))["inference_config"]["text_embedding"][
        "tokenization"
    ]
    assert name == {"distilbert": "bert", "xlm-roberta": "xlm_roberta"}.get(kind, kind)


@pytest.mark.parametrize(
    ("tokenizer", "count"),
    [
        ("BertTokenizer", 4), ("XLMRobertaTokenizer", 2), ("XLMRobertaTokenizerFast", 2), ("MPNetTokenizerFast", 2),
        ("PreTrainedTokenizerFast", 4), ("TokenizersBackend", 4), (None, 4),
    ],
)  # fmt: skip
def test_the_tokenizer_decides_how_many_inputs_elasticsearch_gives(
    tokenizer: str | None, count: int, tiny: Path, tmp_path: Path
) -> None:
    settings = {} if tokenizer is None else {"tokenizer_class": tokenizer}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    checkpoint = replace(open_checkpoint(tiny), root=tmp_path)
    assert len(inputs_of(checkpoint)) == count
    if tokenizer not in ("BertTokenizer",):
        assert len(inputs_of(replace(checkpoint, model_type="xlm-roberta"))) == 2


def test_elands_file_takes_four_positions_and_gives_the_oracles_embedding(eland: Exported, tiny: Path) -> None:
    corpus = builtin_corpus()
    reference = embed_texts(open_checkpoint(tiny), corpus, threads=1)
    tokenizer = TextTokenizer.load(eland.folder, reference.spec.inputs.max_tokens)
    module = load(eland.folder / ELAND_FILE)
    for position in (0, 7, len(corpus.texts) - 1):
        feed = tokenizer.pad(tokenizer.encode([corpus.texts[position].text])).feed(ELAND_INPUTS)
        given = module(*(torch.from_numpy(array) for array in feed.values()))
        assert isinstance(given, torch.Tensor)
        np.testing.assert_allclose(given.numpy()[0], reference.truth[position], atol=1e-5)


def test_elands_layout_holds_all_that_its_importer_asks_for(eland: Exported, tiny: Path) -> None:
    written = json.loads((eland.folder / ELAND_CONFIG).read_text("utf-8"))
    assert written["model_type"] == "pytorch"
    assert written["inference_config"]["text_embedding"] == {
        "tokenization": {"bert": {"max_sequence_length": 512, "do_lower_case": True}},
        "embedding_size": 64,
    }
    assert written["prefix_strings"] == {"search": open_checkpoint(tiny).spec.inputs.prompts["query"]}


def test_other_layouts_hold_nothing_of_elands(plain: Exported) -> None:
    assert not any((plain.folder / name).exists() for name in BESIDE_ELAND)


def test_elands_files_are_of_the_checkpoint_and_a_folder_without_them_is_refused(
    eland: Exported, tiny: Path, tmp_path: Path
) -> None:
    manifest = read_manifest(eland.folder)
    checkpoint = open_checkpoint(tiny)
    files = held_files(eland.folder, files_of(checkpoint), golden_of(checkpoint))
    assert other_files(manifest, files) == ()

    for name in BESIDE_ELAND:
        other = manifest.model_copy(update={"files": {**manifest.files, name: "0" * 64}})
        assert other_files(other, files) == (name,)
        missing = {file: digest for file, digest in manifest.files.items() if file != name}
        assert other_files(manifest.model_copy(update={"files": missing}), files) == (name,)


def test_a_folder_that_is_extended_keeps_elands_files(eland: Exported, tiny: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(eland.folder, tmp_path / "tiny"))
    done = export_model(OnnxExporter(), str(tiny), folder)
    assert done.folder == folder
    assert done.proof is not None
    assert done.proof.verdict.passed
    assert {model.target for model in read_manifest(folder).models} == {"onnx-fp32", "torchscript-fp32"}
    assert all((folder / name).is_file() for name in BESIDE_ELAND)


def test_elands_file_needs_no_operator_that_elasticsearch_refuses(eland: Exported) -> None:
    # pytorch_inference refuses operators that are not on its list, which is made from Elastic's reference models. All
    # of these are used by one of them (elastic/ml-cpp, bin/pytorch_inference/unittest/testfiles/
    # reference_model_ops.json); look a new one up there before adding it here.
    assert {node.kind() for node in load(eland.folder / ELAND_FILE).graph.nodes()} <= {
        "aten::Int", "aten::add", "aten::clamp_min", "aten::contiguous", "aten::div", "aten::embedding", "aten::expand",
        "aten::expand_as", "aten::gelu", "aten::layer_norm", "aten::linalg_vector_norm", "aten::linear",
        "aten::matmul", "aten::mul", "aten::reshape", "aten::rsub", "aten::select", "aten::size", "aten::slice",
        "aten::softmax", "aten::to", "aten::transpose", "aten::unsqueeze", "aten::view",
        "prim::Constant", "prim::ListConstruct", "prim::NumToTensor",
    }  # fmt: skip


def test_without_the_head_the_one_output_is_a_tensor(tiny: Path, tmp_path: Path) -> None:
    done = export_model(TorchScriptExporter(), str(tiny), tmp_path / "out", check=False)
    assert read_bundle(done.folder)[1][0].outputs == ("last_hidden_state",)
    states = load(done.folder / PLAIN_FILE)(*tokens(2, 5).values())
    assert isinstance(states, torch.Tensor)
    assert states.shape == (2, 5, 64)


def test_inputs_are_given_by_name_or_by_position(plain: Exported) -> None:
    module, feed = load(plain.folder / PLAIN_FILE), tokens(3, 11)
    by_position = module(*feed.values())
    by_name = module(**dict(reversed(feed.items())))
    assert isinstance(by_position, tuple)
    for one, other in zip(by_position, by_name, strict=True):
        assert torch.equal(one, other)


def test_the_file_says_what_its_inputs_and_outputs_are(plain: Exported, eland: Exported) -> None:
    for place, file in ((plain.folder, PLAIN_FILE), (eland.folder, ELAND_FILE)):
        extra = {NAMES: ""}
        load(place / file, _extra_files=extra)
        artifact = read_bundle(place)[1][0]
        assert json.loads(extra[NAMES]) == {"inputs": list(artifact.inputs), "outputs": list(artifact.outputs)}


@pytest.mark.parametrize("kind", KINDS)
def test_every_batch_size_and_length_gives_what_the_checkpoint_gives(kind: str, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(build(kind, tmp_path / kind, "mean"))
    written = next(TorchScriptExporter().export(checkpoint, tmp_path, ["fp32"])[0])
    module, model = load(tmp_path / written.files[0]), load_model(checkpoint)
    for batch, length in ((1, 1), (1, checkpoint.spec.inputs.max_tokens), (7, 3), (3, 100), (2, 16)):
        feed = {name: value for name, value in tokens(batch, length).items() if name in written.inputs}
        with torch.inference_mode():
            states, wanted = module(*feed.values()), model(**feed).last_hidden_state
        assert states.shape == (batch, length, dense_head(checkpoint.spec).dim)
        real = feed["attention_mask"] == 1
        torch.testing.assert_close(states[real], wanted[real], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_in_the_graph_is_tied_to_the_device_of_the_tracing(kind: str, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(build(kind, tmp_path / kind, "mean"))
    written = next(TorchScriptExporter(sentence_embedding=True).export(checkpoint, tmp_path, ["fp32"])[0])
    graph = load(tmp_path / written.files[0]).graph
    constants = [node for node in graph.nodes() if node.kind() == "prim::Constant"]
    assert [node for node in constants if str(node.output().type()) == "Device"] == []


def test_another_process_that_traced_something_else_writes_the_same_bytes(
    plain: Exported, eland: Exported, tiny: Path, tmp_path: Path
) -> None:
    script = """
import sys, warnings, torch
from pathlib import Path
from bge_export.checkpoint.opening import open_checkpoint
from bge_export.exporters.torchscript import TorchScriptExporter
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2))
for options in ({"sentence_embedding": True}, {"layout": "eland"}):
    TorchScriptExporter(**options).export(open_checkpoint(Path(sys.argv[1])), Path("again"), ["fp32"])
"""
    subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(tiny.resolve())],
        cwd=tmp_path, env={**os.environ, "PYTHONHASHSEED": "7"}, check=True, timeout=300,
    )  # fmt: skip
    for place, file in ((plain.folder, PLAIN_FILE), (eland.folder, ELAND_FILE)):
        assert (tmp_path / "again" / file).read_bytes() == (place / file).read_bytes(), file


def test_the_file_holds_no_path_of_this_machine(plain: Exported, eland: Exported) -> None:
    for path in (plain.folder / PLAIN_FILE, eland.folder / ELAND_FILE):
        content = path.read_bytes()
        for trace in (b"site-packages", b"transformers", os.fsencode(Path.cwd()), os.fsencode(Path.home()) + b"/"):
            assert trace not in content, trace
        with zipfile.ZipFile(path) as archive:
            assert all(entry.date_time == (1980, 1, 1, 0, 0, 0) for entry in archive.infolist())
            assert not [name for name in archive.namelist() if name.endswith((".debug_pkl", "serialization_id"))]


def test_tensors_lie_where_torch_can_map_them(plain: Exported) -> None:
    path = plain.folder / PLAIN_FILE
    with zipfile.ZipFile(path) as archive, path.open("rb") as stream:
        entries = [entry for entry in archive.infolist() if "/constants/" in entry.filename]
        assert entries
        for entry in entries:
            stream.seek(entry.header_offset + 26)
            name, extra = np.frombuffer(stream.read(4), "<u2")
            assert (entry.header_offset + 30 + int(name) + int(extra)) % 64 == 0, entry.filename
            assert entry.compress_type == zipfile.ZIP_STORED


def test_a_model_that_cannot_be_traced_is_an_export_error(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no such operator\nand a page of C++ frames")

    monkeypatch.setattr(tracing, "trace_inputs", fail)
    with pytest.raises(ExportError, match=r"tiny: torch cannot trace the architecture 'bert': no such operator[.]"):
        TorchScriptExporter().export(open_checkpoint(tiny), tmp_path, ["fp32"])
    assert not list(tmp_path.iterdir())


RUN = """
import importlib.util, json, sys, warnings
if sys.argv[3]:
    sys.path.append(sys.argv[3])
    missing = [name for name in ("transformers", "bge_export") if importlib.util.find_spec(name)]
    assert not missing, missing
else:
    sys.modules["transformers"] = None
warnings.simplefilter("ignore")
import torch
module = torch.jit.load(sys.argv[1])
ids, mask = (torch.tensor(rows) for rows in json.loads(sys.argv[2]))
print(json.dumps(module(input_ids=ids, attention_mask=mask, token_type_ids=mask * 0)[1].tolist()))
"""


def embedding_in(place: Path, *arguments: str, libraries: str) -> np.ndarray:
    feed = tokens(2, 9)
    rows = json.dumps([feed["input_ids"].tolist(), feed["attention_mask"].tolist()])
    command = [sys.executable, *arguments, "-c", RUN, str(place / PLAIN_FILE), rows, libraries]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return np.array(json.loads(done.stdout), dtype=np.float32)


def test_the_file_runs_where_transformers_cannot_be_imported(plain: Exported) -> None:
    wanted = load(plain.folder / PLAIN_FILE)(*tokens(2, 9).values())[1].numpy()
    np.testing.assert_allclose(embedding_in(plain.folder, libraries=""), wanted, atol=1e-6)


def test_the_file_runs_in_an_environment_that_has_torch_only(plain: Exported, tmp_path: Path) -> None:
    wanted = load(plain.folder / PLAIN_FILE)(*tokens(2, 9).values())[1].numpy()
    libraries = tmp_path / "torch-only"
    libraries.mkdir()
    for name in with_dependencies("torch"):
        own = distribution(name)
        for part in {file.parts[0] for file in own.files or () if file.parts[0] not in ("..", "__pycache__")}:
            link = libraries / part
            if not link.exists():
                link.symlink_to(Path(str(own.locate_file(part))))
    given = embedding_in(plain.folder, "-I", "-S", libraries=str(libraries))
    np.testing.assert_allclose(given, wanted, atol=1e-6)


def with_dependencies(name: str) -> set[str]:
    """The distribution and all that it needs, with the extras that it asks for."""
    pending, done = [Requirement(name)], set()
    while pending:
        wanted = pending.pop()
        if (wanted.name, frozenset(wanted.extras)) in done:
            continue
        done.add((wanted.name, frozenset(wanted.extras)))
        for needed in map(Requirement, distribution(wanted.name).requires or ()):
            if any(not needed.marker or needed.marker.evaluate({"extra": one}) for one in wanted.extras or {""}):
                pending.append(needed)
    return {name for name, _ in done}
