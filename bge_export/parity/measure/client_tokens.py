"""Kinds of text that a client's own tokenizer may tokenize differently from the checkpoint's, as predicates.

JavaScript tokenizers are ports. Their differences were found by comparing them over every code point. A difference
that no kind explains is a fault, and the gate refuses it under any policy.
"""

import unicodedata
from collections.abc import Callable, Iterator, Mapping

LATIN_MARKS = range(0x300, 0x370)
ASTRAL_CJK = range(0x20000, 0x32400)
LONGEST_WORD = 100
"""The longest word, in characters, that BERT's tokenizer splits; it maps longer words to the unknown token."""


def _over_long(_text: str, tokens: int, max_tokens: int) -> bool:
    return tokens >= max_tokens


def _final_sigma(text: str, _tokens: int, _max_tokens: int) -> bool:
    return "\u03a3" in text


def _astral_cjk(text: str, _tokens: int, _max_tokens: int) -> bool:
    return any(ord(character) in ASTRAL_CJK for character in text)


def _marks(text: str, _tokens: int, _max_tokens: int) -> bool:
    decomposed = unicodedata.normalize("NFD", text)
    return any(unicodedata.category(one) == "Mn" and ord(one) not in LATIN_MARKS for one in decomposed)


def _controls(text: str, _tokens: int, _max_tokens: int) -> bool:
    kinds = {unicodedata.category(one) for one in text if one not in "\t\n\r"}
    return bool(kinds & {"Cc", "Cf", "Co", "Cn"}) or "\ufffd" in text


def _long_word(text: str, _tokens: int, _max_tokens: int) -> bool:
    return any(len(word) > LONGEST_WORD for word in text.split())


KINDS: Mapping[str, Callable[[str, int, int], bool]] = {
    "over-long": _over_long,
    "final-sigma": _final_sigma,
    "astral-cjk": _astral_cjk,
    "marks": _marks,
    "controls": _controls,
    "long-word": _long_word,
}
"""Kind -> predicate on the text, its number of tokens and the longest input, in tokens.

    over-long    reaches the longest input: clients truncate the ids, and the final separator is lost
    final-sigma  a capital sigma: JavaScript lowercases a word-final one to a different letter
    astral-cjk   ideographs beyond the Basic Multilingual Plane: not split into separate words
    marks        combining marks outside U+0300..036F: version 2 keeps them, and the word becomes unknown
    controls     control, format, private and unassigned characters: 2.5.0 does not remove them
    long-word    a word of more than 100 characters: 2.5.0 splits it instead of mapping it to unknown
"""


def kinds_of(text: str, tokens: int, max_tokens: int) -> Iterator[str]:
    """Yield every kind that a text belongs to."""
    for name, holds in KINDS.items():
        if holds(text, tokens, max_tokens):
            yield name
