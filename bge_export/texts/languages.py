"""Sorts texts into everyday and stress for a checkpoint, by the languages that its tokenizer knows.

A tokenizer turns an unknown language into a row of unknown tokens: the rounding error of such a text says nothing about
the texts that users embed.
"""

from collections.abc import Sequence
from typing import Protocol

from bge_export.texts.corpus import Corpus, Kind

MOST_UNKNOWN = 0.05
"""A language is known if at most this share of its texts' tokens is unknown.

Measured on the fixture's Chinese texts: bge-small-zh 0.011 (a full-width letter, rare marks), bge-small-en 0.53.
"""


class CountsUnknown(Protocol):
    """The part of `tokens.TextTokenizer` that is used here."""

    def unknown_share(self, texts: Sequence[str]) -> float:
        """Return the share of unknown tokens among the texts' tokens, from 0 to 1."""


def knows(tokenizer: CountsUnknown, texts: Sequence[str]) -> bool:
    """Return whether a tokenizer knows the language of the texts."""
    return tokenizer.unknown_share(texts) <= MOST_UNKNOWN


def kinds_for(tokenizer: CountsUnknown, corpus: Corpus) -> list[Kind]:
    """Return each text's kind for the tokenizer's checkpoint: its own kind, or stress if its language is unknown."""
    by_language: dict[str, list[str]] = {}
    for text in corpus.texts:
        if text.language:
            by_language.setdefault(text.language, []).append(text.text)

    unknown = {language for language, texts in by_language.items() if not knows(tokenizer, texts)}
    return ["stress" if text.language in unknown else text.kind for text in corpus.texts]
