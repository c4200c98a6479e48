"""Which languages a tokenizer knows, and which kind a text has for its checkpoint."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from bge_export.texts.corpus import Corpus, Text, builtin_corpus
from bge_export.texts.languages import MOST_UNKNOWN, kinds_for, knows
from bge_export.texts.tokens import TextTokenizer

CORPUS = Corpus(
    "c",
    (
        Text("a", "hello", ""),
        Text("b", "!", "", "stress"),
        Text("c", "你好", "", language="zh"),
        Text("d", "您好", "", language="zh"),
        Text("e", "。", "", "stress", "zh"),
        Text("f", "こんにちは", "", language="ja"),
    ),
)


class Counting:
    """A tokenizer to which a share of each character's tokens is unknown."""

    def __init__(self, **shares: float) -> None:
        self.shares = shares

    def unknown_share(self, texts: Sequence[str]) -> float:
        japanese = any("\u3040" <= letter <= "\u30ff" for letter in "".join(texts))
        return self.shares["ja" if japanese else "zh"]


@pytest.mark.parametrize(
    ("shares", "kinds"),
    [
        ({"zh": 0.0, "ja": 0.0}, ("everyday", "everyday", "everyday")),
        ({"zh": MOST_UNKNOWN, "ja": MOST_UNKNOWN + 1e-9}, ("everyday", "everyday", "stress")),
        ({"zh": 1.0, "ja": 0.0}, ("stress", "stress", "everyday")),
    ],
)
def test_each_language_is_everyday_or_stress_as_a_whole(shares: dict[str, float], kinds: tuple[str, ...]) -> None:
    found = kinds_for(Counting(**shares), CORPUS)
    assert found[:2] == ["everyday", "stress"]
    assert (found[2], found[3], found[5]) == kinds
    assert found[4] == "stress"


def without_chinese(tiny: Path, folder: Path) -> TextTokenizer:
    """Return the tiny checkpoint's tokenizer with no Chinese character in its vocabulary."""
    content = json.loads((tiny / "tokenizer.json").read_text("utf-8"))
    vocabulary = content["model"]["vocab"]
    content["model"]["vocab"] = {
        token: number for token, number in vocabulary.items() if not any("\u4e00" <= c <= "\u9fff" for c in token)
    }
    (folder / "tokenizer.json").write_text(json.dumps(content), "utf-8")
    return TextTokenizer.load(folder, 512)


def test_the_packages_chinese_texts_are_everyday_where_the_vocabulary_holds_them(tiny: Path, tmp_path: Path) -> None:
    corpus = builtin_corpus()
    chinese = [index for index, text in enumerate(corpus.texts) if text.language == "zh"]
    own = [text.kind for text in corpus.texts]

    known = kinds_for(TextTokenizer.load(tiny, 512), corpus)
    assert known == own
    assert {known[index] for index in chinese} == {"everyday"}

    unknown = kinds_for(without_chinese(tiny, tmp_path), corpus)
    assert {unknown[index] for index in chinese} == {"stress"}
    assert [kind for index, kind in enumerate(unknown) if index not in chinese] == [
        kind for index, kind in enumerate(own) if index not in chinese
    ]


def test_a_language_of_which_the_vocabulary_holds_nothing_is_not_known(tiny: Path, tmp_path: Path) -> None:
    texts = [text.text for text in builtin_corpus().texts if text.language == "zh"]
    assert knows(TextTokenizer.load(tiny, 512), texts)
    assert not knows(without_chinese(tiny, tmp_path), texts)
