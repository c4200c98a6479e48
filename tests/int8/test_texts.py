"""The calibration texts: which are taken, and that none of them is measured later."""

from pathlib import Path

from bge_export.calibration.texts import (
    calibration_rows,
    edge_case_rows,
    punctuation_rows,
    random_rows,
    split_holdout,
    split_main,
)
from bge_export.checkpoint.opening import open_checkpoint
from bge_export.texts.corpus import builtin_corpus, load_corpus
from bge_export.texts.fixtures import fixtures_folder
from bge_export.texts.tokens import TextTokenizer


def plain(text: str) -> str:
    return "".join(letter for letter in text.casefold() if letter.isalnum()) or text.strip()


def test_no_text_is_both_calibrated_and_measured() -> None:
    measured = {plain(text.text) for text in builtin_corpus().texts}
    for file in (fixtures_folder() / "calibration").glob("*.txt"):
        lines = load_corpus(file).texts
        assert len({text.text for text in lines}) == len(lines) > (30 if file.stem.endswith("-odd") else 300)
        assert not [text.text for text in lines if plain(text.text) in measured and plain(text.text)]


def test_an_own_file_takes_the_place_of_the_packages(tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / "own.txt"
    file.write_text("a dog\na cat\n", "utf-8")
    checkpoint = open_checkpoint(str(tiny))
    tokenizer = TextTokenizer.load(checkpoint.root, checkpoint.spec.inputs.max_tokens)
    assert sorted(calibration_rows(tokenizer, file)) == sorted(tokenizer.encode(["a dog", "a cat"]))
    assert len(calibration_rows(tokenizer, None)) > 300


def test_odd_strings_are_among_the_texts_and_known_as_odd(tiny: Path) -> None:
    checkpoint = open_checkpoint(str(tiny))
    tokenizer = TextTokenizer.load(checkpoint.root, checkpoint.spec.inputs.max_tokens)
    odd = edge_case_rows(tokenizer)
    assert {*tokenizer.encode(["!", "…"])} <= odd <= {*calibration_rows(tokenizer, None)}
    assert not {*tokenizer.encode(["Whose turn is it?"])} & odd
    assert len(punctuation_rows(tokenizer)) == 32


def test_drawn_rows_fit_the_model_and_are_always_the_same(tiny: Path) -> None:
    checkpoint = open_checkpoint(str(tiny))
    tokenizer = TextTokenizer.load(checkpoint.root, checkpoint.spec.inputs.max_tokens)
    rows = random_rows(tokenizer, (1, 7, 8, 2), 10)
    assert rows == random_rows(tokenizer, (1, 7, 8, 2), 10)
    assert {(row[0], row[-1]) for row in rows} == {(1, 2)}
    assert {len(row) for row in rows} == {3, 5, 6, 10}
    assert any(len(row) == 10 and len({*row[1:-1]}) == 1 for row in rows)
    assert {token for row in rows for token in row} <= {*tokenizer.vocabulary()}
    assert len({token for row in rows for token in row}) > 100


def test_everything_is_chosen_on_all_odd_strings(tiny: Path) -> None:
    checkpoint = open_checkpoint(str(tiny))
    tokenizer = TextTokenizer.load(checkpoint.root, checkpoint.spec.inputs.max_tokens)
    main, rest = split_main(calibration_rows(tokenizer, None))
    odd = edge_case_rows(tokenizer)
    assert odd <= {*main}
    assert len(main) > 2 * len(odd)
    assert rest


def test_texts_held_back_are_not_calibrated_with() -> None:
    rows = [(number, 5, 6) for number in range(20_000)]
    kept, judge = split_holdout(rows)
    main, rest = split_main(kept)
    assert not {*judge} & {*main, *rest}
    assert len(judge) == 4_000
    assert {*judge, *main, *rest} == {*rows}
