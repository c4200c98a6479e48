"""The page on models names every tested architecture."""

import re
from pathlib import Path

from bge_export.checkpoint.tested import TESTED

PAGE = (Path(__file__).parents[1] / "docs/reference/models.md").read_text("utf-8")


def test_every_tested_architecture_is_on_the_page() -> None:
    plain = re.sub(r"[^a-z0-9]", "", PAGE.lower().replace("v3", "v2"))
    assert [name for name in sorted(TESTED) if re.sub(r"[^a-z0-9]", "", name) not in plain] == []
