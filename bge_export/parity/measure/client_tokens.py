"""Why a client's own tokenizer may make other tokens of a text than the checkpoint's: the kinds of text, as predicates.

JavaScript tokenizers are ports. What sets them apart was found by comparing them over every code point; a difference
that none of these explains is a fault, and the gate refuses it whatever the policy says.
"""

import unicodedata
from collections.abc import Callable, Iterator, Mapping

LATIN_MARKS = range(0x300, 0x370)
ASTRAL_CJK = range(0x20000, 0x32400)
LONGEST_WORD = 100
"""Characters after which BERT's tokenizer takes a word as unknown."""


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
"""Kind -> whether a text of so many tokens, where the longest input is so long, is of it.

    over-long    reaches the longest input: clients chop the ids, and the final separator is lost
    final-sigma  a capital sigma: JavaScript lowercases one that ends a word to another letter
    astral-cjk   ideographs beyond the Basic Multilingual Plane: not split into words of their own
    marks        combining marks outside U+0300..036F: version 2 keeps them, and the word becomes unknown
    controls     control, format, private and unassigned characters: 2.5.0 does not remove them
    long-word    a word of more than 100 characters: 2.5.0 splits it instead of calling it unknown
"""


def kinds_of(text: str, tokens: int, max_tokens: int) -> Iterator[str]:
    """Yield the kinds that a text is of."""
    for name, holds in KINDS.items():
        if holds(text, tokens, max_tokens):
            yield name
