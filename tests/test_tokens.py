import json
from pathlib import Path

import pytest

from bge_export.errors import ArtifactError
from bge_export.texts.tokens import TextTokenizer


def copy_tokenizer(tiny: Path, folder: Path, **changes: object) -> Path:
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).write_bytes((tiny / name).read_bytes())
    tokenizer = json.loads((folder / "tokenizer.json").read_text("utf-8")) | changes
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")
    return folder


def test_texts_are_truncated_with_their_special_tokens(tiny: Path) -> None:
    (ids,) = TextTokenizer.load(tiny, 16).encode(["hello " * 40])
    first, last = TextTokenizer.load(tiny, 16).encode([""])[0]
    assert len(ids) == 16
    assert (ids[0], ids[-1]) == (first, last)


def test_padding_and_truncation_baked_into_the_file_do_not_act(tiny: Path, tmp_path: Path) -> None:
    padding = {
        "strategy": {"Fixed": 32}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
        "pad_token": "[PAD]",
    }  # fmt: skip
    truncation = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    folder = copy_tokenizer(tiny, tmp_path / "t", padding=padding, truncation=truncation)
    text = ["hello world, this is a text"]
    assert TextTokenizer.load(folder, 512).encode(text) == TextTokenizer.load(tiny, 512).encode(text)


def test_rows_are_padded_on_the_right_with_the_padding_token(tiny: Path) -> None:
    batch = TextTokenizer.load(tiny, 512).pad([(5, 6, 7), (8,)], 4)
    assert batch.input_ids.tolist() == [[5, 6, 7, 0], [8, 0, 0, 0]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 0], [1, 0, 0, 0]]
    assert batch.token_type_ids.tolist() == [[0] * 4] * 2


@pytest.mark.parametrize("content", ["", "{}", "not json", '{"version": "1.0"'])
def test_a_broken_tokenizer_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"tokenizer\.json is not a valid tokenizer"):
        TextTokenizer.load(tmp_path, 512)


def test_a_missing_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"tokenizer\.json is missing"):
        TextTokenizer.load(tmp_path, 512)


def test_no_padding_token_is_guessed(tiny: Path, tmp_path: Path) -> None:
    folder = copy_tokenizer(tiny, tmp_path / "t")
    text = (folder / "tokenizer.json").read_text("utf-8").replace("[PAD]", "[FILL]")
    (folder / "tokenizer.json").write_text(text, "utf-8")
    with pytest.raises(ArtifactError, match="no padding token"):
        TextTokenizer.load(folder, 512)
