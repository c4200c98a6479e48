"""The page on refusals knows every rule of the gate, and the words that messages begin with."""

import re
from pathlib import Path

import pytest

from bge_export.parity.gate.verdict import RULES

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/how-to/troubleshoot.md").read_text("utf-8")


def test_every_rule_is_explained_once_and_no_other() -> None:
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    explained = [rule for row in rows for rule in re.findall(r"`([a-z-]+)`", row)]
    assert sorted(explained) == sorted(RULES)


@pytest.mark.parametrize("words", [*re.findall(r"^\| \*([^*]+)\*", PAGE, re.MULTILINE)])
def test_the_words_of_messages_are_those_of_the_code(words: str) -> None:
    code = "".join(path.read_text("utf-8") for path in (ROOT / "bge_export").rglob("*.py"))
    assert words in re.sub(r'"\s+f?"', "", code)
