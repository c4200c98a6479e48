"""`bge_export.load` embeds texts as the checkpoint does, with the light libraries alone."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from exporting import export_model
from tiny_checkpoint import change_json, write_json

import bge_export
from bge_export.checkpoint.opening import open_checkpoint
from bge_export.commands import Exported
from bge_export.errors import ArtifactError, ReportError, TextsError, UsageError
from bge_export.exporters.onnx import OnnxExporter
from bge_export.exporters.openvino import OpenVinoExporter
from bge_export.exporters.torchscript import TorchScriptExporter
from bge_export.files.digest import file_sha256
from bge_export.heads.dense import dense_head
from bge_export.oracle.eager import embed_texts
from bge_export.parity.report import read_report, write_report
from bge_export.texts.corpus import Corpus, Text

TEXTS = ("", "a", "That is a happy person", "ΟΔΟΣ [MASK] 漢字", "word " * 700, "two words", "x " * 90, "That is sad")
QUERY = "Represent this sentence for searching relevant passages: "
HEAVY = {"torch", "transformers", "onnx", "openvino", "scipy", "huggingface_hub", "safetensors", "jinja2", "rich"}

Oracle = Callable[..., np.ndarray]


@pytest.fixture(scope="module")
def oracle(tiny: Path) -> Oracle:
    """The checkpoint's own vectors of texts."""

    def vectors(*texts: str, checkpoint: Path = tiny) -> np.ndarray:
        opened = open_checkpoint(checkpoint)
        corpus = Corpus("some.txt", tuple(Text(str(number), text, "") for number, text in enumerate(texts)))
        return embed_texts(opened, corpus, threads=1).vectors[dense_head(opened.spec).pooling]

    return vectors


def assert_same(found: np.ndarray, wanted: np.ndarray) -> None:
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_texts_of_all_lengths_get_the_oracles_vectors_in_their_order(tiny_export: Exported, oracle: Oracle) -> None:
    with bge_export.load(tiny_export.folder) as model:
        assert_same(model.encode(TEXTS), oracle(*TEXTS))
        assert_same(model.encode(TEXTS, batch_size=1), oracle(*TEXTS))
        assert model.width == 64


def test_more_texts_than_are_tokenised_at_once_keep_their_order(
    tiny_export: Exported, oracle: Oracle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bge_export.loading.model.WINDOW", 3)
    told: list[int] = []
    model = bge_export.load(tiny_export.folder)
    assert_same(model.encode(TEXTS, progress=lambda done, _: told.append(done)), oracle(*TEXTS))
    assert told == [3, 6, 8]


def test_a_prompt_is_named_or_given_and_precedes_each_text(tiny_export: Exported, oracle: Oracle) -> None:
    model = bge_export.load(tiny_export.folder)
    assert_same(model.encode(TEXTS, prompt="query"), oracle(*(QUERY + text for text in TEXTS)))
    assert_same(model.encode(TEXTS[:2], prompt="document"), oracle(*TEXTS[:2]))
    assert_same(model.encode(TEXTS[:2], prompt="Say this: "), oracle(*("Say this: " + text for text in TEXTS[:2])))
    assert_same(model.encode(TEXTS[:2], prompt=""), oracle(*TEXTS[:2]))


def test_a_prompt_that_is_not_declared_is_refused_with_those_that_are(tiny_export: Exported) -> None:
    model = bge_export.load(tiny_export.folder)
    with pytest.raises(UsageError, match="no prompt 'qeury', only 'query', 'document'"):
        model.encode(["a"], prompt="qeury")


def test_a_model_without_prompts_has_no_query(tiny: Path, tmp_path: Path) -> None:
    checkpoint = Path(shutil.copytree(tiny, tmp_path / "silent"))
    change_json(checkpoint / "config_sentence_transformers.json", prompts=None)
    done = export_model(OnnxExporter(), str(checkpoint), tmp_path / "out", check=False)
    with pytest.raises(UsageError, match="declares no prompts, so there is none called 'query'"):
        bge_export.load(done.folder, unchecked=True).encode("a", prompt="query")


def test_one_text_gives_one_vector_and_none_give_none(tiny_export: Exported, oracle: Oracle) -> None:
    model = bge_export.load(str(tiny_export.folder))
    assert_same(model.encode("That is a happy person"), oracle("That is a happy person")[0])
    assert model.encode([]).shape == (0, 64)


@pytest.mark.parametrize("given", [[b"bytes"], [None], ["a", 3], [["nested"]]])
def test_what_is_no_text_is_named(tiny_export: Exported, given: list[object]) -> None:
    with pytest.raises(TextsError, match=f"text {len(given) - 1} is "):
        bge_export.load(tiny_export.folder).encode(given)


def test_a_batch_of_no_texts_is_refused(tiny_export: Exported) -> None:
    with pytest.raises(UsageError, match="give at least 1"):
        bge_export.load(tiny_export.folder).encode(["a"], batch_size=0)


def test_progress_is_told_after_each_batch(tiny_export: Exported) -> None:
    told: list[tuple[int, int]] = []
    model = bge_export.load(tiny_export.folder)
    model.encode(TEXTS, batch_size=3, progress=lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert told[-1] == (len(TEXTS), len(TEXTS))
    assert len(told) > 1


@pytest.mark.parametrize(
    ("pooling", "modules"), [("mean", 3), ("mean", 2), ("lasttoken", 3)], ids=["mean", "undivided", "last"]
)
def test_pooling_and_norm_are_those_of_the_checkpoint(
    pooling: str, modules: int, tiny: Path, tmp_path: Path, oracle: Oracle
) -> None:
    checkpoint = Path(shutil.copytree(tiny, tmp_path / "other"))
    kinds = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": pooling == "mean"}
    change_json(checkpoint / "1_Pooling/config.json", **kinds, pooling_mode_lasttoken=pooling == "lasttoken")
    kept = json.loads((checkpoint / "modules.json").read_text("utf-8"))[:modules]
    write_json(checkpoint / "modules.json", kept)

    done = export_model(OnnxExporter(), str(checkpoint), tmp_path / "out", check=False)
    wanted = oracle(*TEXTS, checkpoint=checkpoint)
    np.testing.assert_allclose(bge_export.load(done.folder, unchecked=True).encode(TEXTS), wanted, rtol=1e-4, atol=2e-5)


@pytest.mark.filterwarnings("ignore:.*torch.jit.load:FutureWarning")
def test_every_format_is_opened_in_its_own_runtime(tiny: Path, tmp_path: Path, oracle: Oracle) -> None:
    out = tmp_path / "out"
    for exporter in (TorchScriptExporter(), OpenVinoExporter(), OnnxExporter()):
        export_model(exporter, str(tiny), out, check=False)
        model = bge_export.load(out, unchecked=True)
        assert model.artifact.target.format == exporter.format
        assert_same(model.encode(TEXTS), oracle(*TEXTS))

    # By now the folder holds all three; OpenVINO takes its own file, though it reads ONNX too.
    for runtime, format_name in (("openvino", "openvino"), ("torchscript", "torchscript")):
        model = bge_export.load(out, runtime=runtime, unchecked=True)
        assert model.artifact.target.format == format_name
        assert_same(model.encode(TEXTS[:3]), oracle(*TEXTS[:3]))


@pytest.mark.filterwarnings("ignore:.*torch.jit.load:FutureWarning")
def test_a_file_that_returns_vectors_alone_is_loaded(tiny: Path, tmp_path: Path, oracle: Oracle) -> None:
    done = export_model(TorchScriptExporter(layout="eland"), str(tiny), tmp_path / "out", check=False)
    assert_same(bge_export.load(done.folder, unchecked=True).encode(TEXTS), oracle(*TEXTS))


def test_a_precision_is_chosen_by_name(tiny_export: Exported) -> None:
    assert bge_export.load(tiny_export.folder).artifact.target.precision == "fp32"
    assert bge_export.load(tiny_export.folder, precision="fp16").artifact.target.precision == "fp16"
    with pytest.raises(UsageError, match="holds no int8, only fp32, fp16"):
        bge_export.load(tiny_export.folder, precision="int8")


def test_a_runtime_that_reads_nothing_in_the_folder_is_refused(tiny_export: Exported) -> None:
    with pytest.raises(UsageError, match=r"torchscript reads nothing in .*, which holds onnx-fp16, onnx-fp32"):
        bge_export.load(tiny_export.folder, runtime="torchscript")
    with pytest.raises(UsageError, match="there is no 'onnx' among the runtimes"):
        bge_export.load(tiny_export.folder, runtime="onnx")


@pytest.mark.parametrize("name", ["onnx/model.onnx", "tokenizer.json", "1_Pooling/config.json"])
def test_a_changed_file_is_refused_unless_it_is_not_to_be_verified(bundle: Path, name: str) -> None:
    content = (bundle / name).read_bytes()
    (bundle / name).write_bytes(content.rstrip() + b"\n \n" if name.endswith("json") else content + b" ")
    with pytest.raises(ArtifactError, match=f"{name} is not the file that was exported"):
        bge_export.load(bundle)
    if name != "onnx/model.onnx":
        assert bge_export.load(bundle, verify=False).encode(["a"]).shape == (1, 64)


def test_a_file_of_another_model_is_not_looked_at(bundle: Path) -> None:
    (bundle / "onnx/model_fp16.onnx").write_bytes(b"other")
    (bundle / "notes.txt").write_text("mine", "utf-8")
    assert bge_export.load(bundle).encode(["a"]).shape == (1, 64)


def test_a_folder_of_others_is_refused_with_what_to_do(tiny: Path) -> None:
    with pytest.raises(ArtifactError, match=r"holds no bge_export\.json"):
        bge_export.load(tiny)


def test_loading_and_encoding_import_nothing_heavy(tiny_export: Exported) -> None:
    code = (
        "import sys, bge_export\n"
        f"model = bge_export.load({str(tiny_export.folder)!r}, threads=1)\n"
        "assert model.encode(['a'], prompt='query').shape == (1, 64)\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert loaded >= {"onnxruntime", "tokenizers", "numpy"}
    assert loaded & HEAVY == set()


def refused(folder: Path, name: str, cosine: float) -> None:
    """Write into a folder's report that the first text of a target has a cosine, and seal it again."""
    report = read_report(folder / "parity.json")
    lanes = [
        lane.model_copy(update={"rows": (lane.rows[0].model_copy(update={"cosine": cosine}), *lane.rows[1:])})
        if lane.target == name
        else lane
        for lane in report.lanes
    ]
    write_report(report.model_copy(update={"lanes": tuple(lanes)}), folder / "parity.json")


def test_a_model_that_the_folders_report_refuses_is_not_loaded(bundle: Path) -> None:
    refused(bundle, "onnx-fp16", 0.5)
    with pytest.raises(ArtifactError, match=r"parity\.json refuses onnx-fp16: .*cosine 0.5.* Load another precision"):
        bge_export.load(bundle, precision="fp16")
    assert bge_export.load(bundle, precision="fp16", unchecked=True).encode(["a"]).shape == (1, 64)

    # Another target of the same folder is what it was.
    assert bge_export.load(bundle).encode(["a"]).shape == (1, 64)


def test_an_edited_report_lets_nothing_be_loaded(bundle: Path) -> None:
    change_json(bundle / "parity.json", requested=["openvino:cpu"])
    with pytest.raises(ArtifactError, match=r"refuses onnx-fp32: .*digest"):
        bge_export.load(bundle)


def test_a_report_about_other_bytes_lets_nothing_be_loaded(bundle: Path) -> None:
    path = bundle / "onnx/model.onnx"
    path.write_bytes(path.read_bytes() + b"\x72\x00")
    change_json(
        bundle / "bge_export.json",
        files=json.loads((bundle / "bge_export.json").read_text("utf-8"))["files"]
        | {"onnx/model.onnx": file_sha256(path)},
    )
    with pytest.raises(ArtifactError, match=r"speaks of other files than onnx/model\.onnx"):
        bge_export.load(bundle)
    with pytest.raises(ArtifactError, match=r"speaks of other files than onnx/model\.onnx"):
        bge_export.load(bundle, verify=False)
    assert bge_export.load(bundle, unchecked=True).encode(["a"]).shape == (1, 64)


def test_a_damaged_report_is_an_error_with_what_to_do(bundle: Path) -> None:
    (bundle / "parity.json").write_text("{}", "utf-8")
    with pytest.raises(ReportError, match="Measure again"):
        bge_export.load(bundle)


def test_a_folder_without_a_report_is_loaded_with_one_warning(bundle: Path) -> None:
    (bundle / "parity.json").unlink()
    with pytest.warns(UserWarning, match=r"has no parity\.json, so nobody knows whether onnx-fp32 gives") as told:
        bge_export.load(bundle)
    assert len(told) == 1
    assert told[0].filename == __file__
    assert bge_export.load(bundle, unchecked=True).width == 64


def test_a_report_on_texts_of_ones_own_is_judged_by_what_it_measured(bundle: Path) -> None:
    report = read_report(bundle / "parity.json")
    own = "0" * 64
    runs = {
        name: run.model_copy(update={"reference": run.reference.model_copy(update={"texts_digest": own})})
        for name, run in report.runs.items()
    }
    changed = report.model_copy(update={"runs": runs, "texts": report.texts.model_copy(update={"digest": own})})
    write_report(changed, bundle / "parity.json")
    assert bge_export.load(bundle).encode(["a"]).shape == (1, 64)
    refused(bundle, "onnx-fp32", 0.99)
    with pytest.raises(ArtifactError, match=r"refuses onnx-fp32.*To load it all the same, give unchecked=True"):
        bge_export.load(bundle)
