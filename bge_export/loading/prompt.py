"""Finds the text that a prompt stands for: a name that a folder declares, or the text itself."""

import re
from collections.abc import Mapping

from bge_export.errors import UsageError

NAME = re.compile(r"[\w.-]+")
"""What is taken for a name: one word. A prompt's own text ends in a space or a colon, or has several words."""


def prompt_text(declared: Mapping[str, str], prompt: str) -> str:
    """Return what precedes each text.

    Args:
        declared: the folder's prompts by name.
        prompt: a name, or the text itself; "" is no prompt.

    Raises:
        UsageError: a name that the folder does not declare.
    """
    # Who declares how queries begin, and nothing else, embeds documents as they are.
    known = {**declared, "document": ""} if set(declared) == {"query"} else declared
    if prompt in known:
        return known[prompt]
    if not NAME.fullmatch(prompt):
        return prompt

    advice = "Give the text of the prompt itself, or leave it out."
    if not known:
        raise UsageError(f"the model declares no prompts, so there is none called {prompt!r}. {advice}")
    raise UsageError(f"the model declares no prompt {prompt!r}, only {', '.join(map(repr, known))}. {advice}")
