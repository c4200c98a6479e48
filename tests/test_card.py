"""The model card: the figures of both kinds of text, and what stress texts lose."""

from pathlib import Path

import pytest
from fakes import LIMITS, ROUNDED, artifact_of, on_text, report_of, turned

from bge_export.bundle.integrity import CARD
from bge_export.checkpoint.opening import open_checkpoint
from bge_export.parity.figures import cosine_figure, difference_figure
from bge_export.parity.gate.policy import ThresholdPolicy
from bge_export.publish.card import CardFacts, other_figures, write_card
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


def card_of(tiny: Path, folder: Path, report) -> str:
    (folder / INT8).parent.mkdir()
    (folder / INT8).write_bytes(b"model")
    facts = CardFacts("somebody/tiny", "tiny", None, weights=False)
    write_card(folder, open_checkpoint(tiny), [artifact_of("int8")], facts, report, POLICY)
    return (folder / CARD).read_text("utf-8")


def measured(**cosines: float):
    """Return a report in which the texts of these ids, written with _, have these cosines."""

    def fault(rows, ids):
        for name, cosine in cosines.items():
            (text,) = [one.text for one in TEXTS.texts if one.id == name.replace("_", "-")]
            on_text(text, turned(cosine))(rows, ids)

    return report_of(fault, TEXTS, artifacts=[artifact_of("int8")])


def test_what_a_stress_text_loses_beyond_the_everyday_limit_is_named(tiny: Path, tmp_path: Path) -> None:
    report = measured(everyday=0.9990, character_full_stop=0.9875, repeated_x_3=0.9925)
    card = card_of(tiny, tmp_path, report)
    rows = {row.id: row.cosine for row in report.lanes[0].rows}
    everyday, mark, word = (rows[text.id] for text in TEXTS.texts)
    assert f"MB | {cosine_figure(everyday)} | {cosine_figure(mark)} |" in card
    losses = f"{difference_figure(1 - mark)} on character texts, {difference_figure(1 - word)} on repeated texts"
    assert f"`{INT8}` loses up to {losses} (1 - cosine)" in card
    assert "\n\n\n" not in card


@pytest.mark.parametrize("cosine", [0.9981, 1.0])
def test_a_stress_text_within_the_everyday_limit_is_not(tiny: Path, tmp_path: Path, cosine: float) -> None:
    card = card_of(tiny, tmp_path, measured(character_full_stop=cosine))
    assert "loses up to" not in card
    assert "of stress texts" in card


def test_a_card_without_a_measurement_names_no_loss(tiny: Path, tmp_path: Path) -> None:
    card = card_of(tiny, tmp_path, None)
    assert card.count("not measured |") == 2
    assert "loses" not in card


def test_a_card_whose_figures_are_not_the_reports_is_named(tiny: Path, tmp_path: Path) -> None:
    report = measured(everyday=0.9990, character_full_stop=0.9875)
    card = card_of(tiny, tmp_path, report)
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
