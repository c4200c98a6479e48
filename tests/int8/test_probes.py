"""The texts that variants are tried on: both kinds, from the checkpoint's own tokenizer, none that parity measures."""

from pathlib import Path

import pytest

from bge_export.calibration.texts import calibration_rows, edge_case_rows, punctuation_rows, split_main
from bge_export.checkpoint.opening import open_checkpoint
from bge_export.precision.int8.search.probes import STRESS_TOKENS, Probes, make_probes
from bge_export.texts.corpus import builtin_corpus
from bge_export.texts.tokens import TextTokenizer


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    from bge_export.texts.fixtures import fixtures_folder

    return TextTokenizer.load(fixtures_folder() / "tiny", 512)


@pytest.fixture(scope="module")
def probes(tokenizer: TextTokenizer) -> Probes:
    _, lines = split_main(calibration_rows(tokenizer, None))
    return make_probes(tokenizer, lines, 512)


def test_there_are_lines_and_short_phrases(probes: Probes) -> None:
    assert len(probes.everyday) > 80
    assert sum(len(row) <= 6 for row in probes.everyday) > 20
    assert sum(len(row) > 10 for row in probes.everyday) > 20


def test_every_special_token_stands_inside_sentences(tokenizer: TextTokenizer, probes: Probes) -> None:
    special = tokenizer.special_tokens()
    assert len(special) == 5
    for token in special:
        assert any(token in row[1:-1] and len({*row[1:-1]}) > 2 for row in probes.stress), token


def test_words_are_repeated_up_to_the_longest_input(probes: Probes) -> None:
    repeated = [len(row) for row in probes.stress if len(row) > 4 and len({*row[1:-1]}) == 1]
    assert max(repeated) == 512
    assert sum(length > STRESS_TOKENS + 2 for length in repeated) >= 2


def test_marks_and_short_edge_cases_are_stress_probes(tokenizer: TextTokenizer, probes: Probes) -> None:
    assert {*punctuation_rows(tokenizer)} <= {*probes.stress}
    assert {row for row in edge_case_rows(tokenizer) if len(row) <= STRESS_TOKENS} <= {*probes.stress}


def test_no_text_that_parity_measures_is_a_probe_but_single_characters(
    tokenizer: TextTokenizer, probes: Probes
) -> None:
    measured = {row for row in tokenizer.encode([text.text for text in builtin_corpus().texts]) if len(row) > 3}
    assert not measured & {*probes.everyday, *probes.stress}


def test_probes_fit_a_short_input_and_are_always_the_same(tokenizer: TextTokenizer) -> None:
    _, lines = split_main(calibration_rows(tokenizer, None))
    short = make_probes(tokenizer, [row for row in lines if len(row) <= 24], 24)
    assert short == make_probes(tokenizer, [row for row in lines if len(row) <= 24], 24)
    repeated = [row for row in short.stress if len(row) > 4 and len({*row[1:-1]}) == 1]
    assert max(len(row) for row in repeated) <= 24 or not repeated
    assert len({*short.everyday, *short.stress}) == len(short.everyday) + len(short.stress)


def test_a_checkpoint_needs_no_special_words(tiny: Path) -> None:
    """Whatever the tokenizer calls special is used: nothing is spelled out."""
    checkpoint = open_checkpoint(str(tiny))
    tokenizer = TextTokenizer.load(checkpoint.root, checkpoint.spec.inputs.max_tokens)
    assert tokenizer.special_tokens() == sorted(set(tokenizer.special_tokens()))
