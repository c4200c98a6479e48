"""Which languages a tokenizer knows, and so which texts are everyday for its checkpoint and which are stress.

A checkpoint embeds a language that its tokenizer does not know as a row of unknown tokens: what rounding does to such
a text says nothing about the texts that people give it.
"""

from collections.abc import Sequence
from typing import Protocol

from bge_export.texts.corpus import Corpus, Kind

MOST_UNKNOWN = 0.05
"""A language is known where at most this share of its texts' tokens is unknown.

Measured on the fixture's Chinese texts: bge-small-zh 0.011 (a full-width letter, rare marks), bge-small-en 0.53.
"""


class CountsUnknown(Protocol):
    """What `tokens.TextTokenizer` does."""

    def unknown_share(self, texts: Sequence[str]) -> float:
        """Return which share of the texts' tokens stands for what the vocabulary does not hold, from 0 to 1."""


def knows(tokenizer: CountsUnknown, texts: Sequence[str]) -> bool:
    """Return whether a tokenizer knows the language of texts."""
    return tokenizer.unknown_share(texts) <= MOST_UNKNOWN


def kinds_for(tokenizer: CountsUnknown, corpus: Corpus) -> list[Kind]:
    """Return the kind of each text for the checkpoint of a tokenizer: its own, or stress in an unknown language."""
    by_language: dict[str, list[str]] = {}
    for text in corpus.texts:
        if text.language:
            by_language.setdefault(text.language, []).append(text.text)

    unknown = {language for language, texts in by_language.items() if not knows(tokenizer, texts)}
    return ["stress" if text.language in unknown else text.kind for text in corpus.texts]
