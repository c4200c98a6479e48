"""The model card: figures by lane, what stress texts lose, what is not proven, front matter that stays whole."""

import json
from pathlib import Path

import pytest
import yaml
from fakes import LIMITS, ROUNDED, SPEC, artifact_of, on_text, report_of, turned

from bge_export.bundle.integrity import CARD
from bge_export.bundle.manifest import SCHEMA, Manifest, Model, Source
from bge_export.files.spec import SpecRecord
from bge_export.parity.figures import cosine_figure, difference_figure
from bge_export.parity.gate.policy import ThresholdPolicy
from bge_export.publish.card import card_text
from bge_export.publish.facts import CardFacts, facts_of
from bge_export.publish.figures import other_figures
from bge_export.texts.corpus import Corpus, Text

TEXTS = Corpus(
    "kinds.jsonl",
    (
        Text("everyday", "a sentence", ""),
        Text("character-full-stop", ".", "character", "stress"),
        Text("repeated-x-3", "x x x", "repeated", "stress"),
    ),
)
POLICY = ThresholdPolicy((), {"onnx-int8": ROUNDED, "onnx-fp32": LIMITS})
INT8 = artifact_of("int8").model


FACTS = CardFacts("somebody/tiny", clients=True)


def manifest_of(*models: str, source: str = "tiny", **changes: object) -> Manifest:
    """Return a manifest of this world's models: file -> target."""
    records = [
        Model(target=target, files=[file], inputs=["input_ids"], outputs=["last_hidden_state"], tools={}, options={})
        for file, target in (one.split(" ") for one in models or (f"{INT8} onnx-int8",))
    ]
    origin = Source(id=source, revision=None, digest="d" * 64, model_type="bert")
    fields = {"weights": [], "files": {}, "checked": True} | changes
    return Manifest(schema_=SCHEMA, source=origin, spec=SpecRecord.of(SPEC), models=records, **fields)


def card_of(folder: Path, report, facts: CardFacts = FACTS, manifest: Manifest | None = None) -> str:
    manifest = manifest or manifest_of()
    for model in manifest.models:
        (folder / model.files[0]).parent.mkdir(exist_ok=True)
        (folder / model.files[0]).write_bytes(b"model")
    text = card_text(folder, manifest, facts, report, POLICY)
    (folder / CARD).write_text(text, "utf-8")
    return text


def front_matter(card: str) -> dict[str, object]:
    return yaml.safe_load(card.split("---\n")[1])


def measured(**cosines: float):
    """Return a report in which the texts of these ids, written with _, have these cosines."""

    def fault(rows, ids):
        for name, cosine in cosines.items():
            (text,) = [one.text for one in TEXTS.texts if one.id == name.replace("_", "-")]
            on_text(text, turned(cosine))(rows, ids)

    return report_of(fault, TEXTS, artifacts=[artifact_of("int8")])


def test_what_a_stress_text_loses_beyond_the_everyday_limit_is_named(tmp_path: Path) -> None:
    report = measured(everyday=0.9990, character_full_stop=0.9875, repeated_x_3=0.9925)
    card = card_of(tmp_path, report)
    rows = {row.id: row.cosine for row in report.lanes[0].rows}
    everyday, mark, word = (rows[text.id] for text in TEXTS.texts)
    assert f"sentence_embedding | {cosine_figure(everyday)} | {cosine_figure(mark)} |" in card
    losses = f"{difference_figure(1 - mark)} on character texts, {difference_figure(1 - word)} on repeated texts"
    assert f"`{INT8}` loses up to {losses} (1 - cosine)" in card
    assert "\n\n\n" not in card


@pytest.mark.parametrize("cosine", [0.9981, 1.0])
def test_a_stress_text_within_the_everyday_limit_is_not(tmp_path: Path, cosine: float) -> None:
    card = card_of(tmp_path, measured(character_full_stop=cosine))
    assert "loses up to" not in card
    assert "of stress texts" in card


def test_a_card_without_a_measurement_names_no_loss(tmp_path: Path) -> None:
    card = card_of(tmp_path, None)
    assert "Not measured" in card
    assert "loses" not in card
    assert "cosine" not in card


def test_a_card_whose_figures_are_not_the_reports_is_named(tmp_path: Path) -> None:
    report = measured(everyday=0.9990, character_full_stop=0.9875)
    card = card_of(tmp_path, report)
    models = [INT8, "openvino_model.xml"]
    assert other_figures(tmp_path, models, report) == ()

    worse = measured(everyday=0.9985, character_full_stop=0.9875)
    assert other_figures(tmp_path, models, worse) == (INT8,)
    (tmp_path / CARD).write_text(card.replace("| 0.99", "| 1.00"), "utf-8")
    assert other_figures(tmp_path, models, report) == (INT8,)
    (tmp_path / CARD).write_text("".join(line for line in card.splitlines(keepends=True) if INT8 not in line), "utf-8")
    assert other_figures(tmp_path, models, report) == (INT8,)


def test_a_card_that_the_user_wrote_may_say_anything(tmp_path: Path) -> None:
    assert other_figures(tmp_path, [INT8], measured()) == ()
    (tmp_path / CARD).write_text(f"| `{INT8}` | perfect |", "utf-8")
    assert other_figures(tmp_path, [INT8], measured()) == ()


def test_a_file_that_nothing_measured_has_no_line_and_one_that_was_has_one_a_lane(tmp_path: Path) -> None:
    report = measured()
    again = report.model_copy(update={"lanes": (*report.lanes, report.lanes[0].model_copy(update={"device": "npu"}))})
    card = card_of(tmp_path, again, manifest=manifest_of(f"{INT8} onnx-int8", "onnx/model.onnx onnx-fp32"))
    assert [line.split(" | ")[1] for line in card.splitlines() if line.startswith(f"| `{INT8}`")] == [
        "fake:cpu",
        "fake:npu",
    ]
    assert not [line for line in card.splitlines() if line.startswith("| `onnx/model.onnx`")]


def test_what_could_not_be_measured_is_said(tmp_path: Path) -> None:
    report = measured()
    lane = report.lanes[0].model_copy(update={"device": "npu", "rows": (), "unavailable": "no such\ndevice | here"})
    card = card_of(tmp_path, report.model_copy(update={"lanes": (*report.lanes, lane)}))
    assert "- Not measured in fake:npu: no such\\ndevice | here (onnx-int8)." in card


def test_the_front_matter_names_base_licence_and_languages(tmp_path: Path) -> None:
    facts = CardFacts("somebody/tiny", "apache-2.0", ("en", "no"))
    card = card_of(tmp_path, measured(), facts, manifest_of(source="BAAI/bge-small-en"))
    fields = front_matter(card)
    assert fields["base_model"] == "BAAI/bge-small-en"
    assert (fields["base_model_relation"], fields["license"]) == ("quantized", "apache-2.0")
    assert (fields["language"], fields["library_name"]) == (["en", "no"], "onnx")
    assert "Transformers.js" not in card


@pytest.mark.parametrize("hostile", ["mit\ntags: [evil]", "'", "a: b", "x" * 200, "<script>"])
def test_what_is_no_licence_language_or_repository_stays_out(tmp_path: Path, hostile: str) -> None:
    facts = CardFacts("somebody/tiny", hostile, (hostile,))
    card = card_of(tmp_path, measured(), facts, manifest_of(source=hostile))
    fields = front_matter(card)
    assert not {"license", "language", "base_model", "base_model_relation"} & set(fields)
    assert "evil" not in fields["tags"]
    assert "\ntags: [evil]" not in card.split("---\n")[2]


@pytest.mark.parametrize("prompt", ["query: ", "a`b``c|d\n# not a heading", '"', "说："])
def test_a_prompt_is_shown_whole_and_in_its_cell(tmp_path: Path, prompt: str) -> None:
    spec = SPEC.__class__(SPEC.inputs.__class__(16, {"query": prompt}), SPEC.heads)
    manifest = manifest_of().model_copy(update={"spec": SpecRecord.of(spec)})
    card = card_of(tmp_path, measured(), CardFacts("somebody/tiny"), manifest)
    (line,) = [line for line in card.splitlines() if line.startswith('| `"query"`')]
    cell = line.partition(" | ")[2].removesuffix(" |").strip("`").strip()
    assert json.loads(cell.replace("\\|", "|")) == prompt


def test_what_a_card_says_besides_its_report_is_read_back(tmp_path: Path) -> None:
    facts = CardFacts("somebody/tiny", "mit", ("en",), clients=True)
    card_of(tmp_path, measured(), facts)
    assert facts_of(tmp_path) == facts
    (tmp_path / CARD).write_text("# Mine\n", "utf-8")
    assert facts_of(tmp_path) is None
