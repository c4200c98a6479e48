"""What a card says besides manifest and report: the repository, and the licence and languages of the base model."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from bge_export.bundle.foreign import is_generated_card
from bge_export.bundle.integrity import CARD
from bge_export.publish.scores import Score

REPOSITORY = re.compile(r"(?!.*(\.\.|--))[^\W_][\w.-]*/[^\W_][\w.-]{0,95}", re.ASCII)
LICENSE = re.compile(r"[A-Za-z0-9][\w.+-]{0,60}", re.ASCII)
LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})?", re.ASCII)
RECORD = re.compile(r"^<!-- card of (\{.*\}) -->$", re.MULTILINE)
"""The line of a generated card that holds its facts, so that it can be written again."""


@dataclass(frozen=True)
class CardFacts:
    """Facts of a card that neither manifest nor report holds. A value that is not one is left out.

    Attributes:
        id: the repository that the examples name.
        license: the checkpoint's licence, if known.
        languages: the checkpoint's languages, if known.
        clients: whether the folder is for Transformers.js.
        scores: scores of the folder's own files in tasks. They are not recorded: other files have others.
    """

    id: str
    license: str | None = None
    languages: tuple[str, ...] = ()
    clients: bool = False
    scores: tuple[Score, ...] = ()

    def __post_init__(self) -> None:
        """Leave out what a line of front matter could not hold: the values may come from anywhere."""
        if self.license is not None and not LICENSE.fullmatch(self.license):
            object.__setattr__(self, "license", None)
        known = tuple(one for one in self.languages if LANGUAGE.fullmatch(one))
        object.__setattr__(self, "languages", known)

    @property
    def record(self) -> str:
        """Return the line that `facts_of` reads."""
        values = {"id": self.id, "license": self.license, "languages": self.languages, "clients": self.clients}
        return f"<!-- card of {json.dumps(values)} -->"


def facts_of(folder: Path) -> CardFacts | None:
    """Return the facts in a folder's generated card; None if it has none that can be written again."""
    path = folder / CARD
    if not is_generated_card(path):
        return None

    match = RECORD.search(path.read_text("utf-8", errors="replace"))
    try:
        values = json.loads(match[1]) if match else {}
    except ValueError:
        return None

    name, license_name, languages = values.get("id"), values.get("license"), values.get("languages")
    if not isinstance(name, str) or not REPOSITORY.fullmatch(name):
        return None

    known = tuple(map(str, languages)) if isinstance(languages, list) else ()
    own = license_name if isinstance(license_name, str) else None
    return CardFacts(name, own, known, values.get("clients") is True)
