"""Hints for calls that people often get wrong: what they meant, in the words that the command line takes."""

import re

from bge_export.precision import precisions

CHOICE = re.compile(r"Invalid value for '(?P<option>--precision|--quantize)': '(?P<value>[^']*)' is not one of")


def hint_for(message: str) -> str:
    """Return a sentence that says what was meant by a call that click refuses with a message; empty if unknown."""
    match = CHOICE.search(message)
    if match is None:
        return ""

    named = {one.name: one for one in precisions()}
    found = named.get(match["value"]) or named.get(name_of(match["value"]))
    if found is None:
        return ""

    other = "--quantize" if found.rounded else "--precision"
    if other == match["option"] and found.name == match["value"]:
        return f"This format has no {found.name}."
    kind = "Rounded weights are" if found.rounded else "Weights that are not rounded are"
    return f"{kind} asked for with {other} {found.name}."


def name_of(dtype: str) -> str:
    """Return the precision that Transformers.js calls by a name such as `q8`; empty if none, or its own name too."""
    return next((one.name for one in precisions() if one.client_dtype == dtype != one.name), "")


def dtype_hint(dtype: str) -> str:
    """Return a sentence for a name that is the clients' name of a precision; empty for any other."""
    return f"{dtype!r} is what clients call {name_of(dtype)}: say that" if name_of(dtype) else ""
