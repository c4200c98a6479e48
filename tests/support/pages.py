"""What a browser makes of a page: read by a parser of our own, and by Chromium."""

import os
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

IN_CI = os.environ.get("CI") == "true"
VOID = {"meta", "br"}


class Page(HTMLParser):
    """What a browser would make of a page: elements, attributes, rows of tables, scripts."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.table = self.script = self.text = ""
        self.feed(content)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.table = dict(attrs).get("id") or dict(attrs)["class"]
            self.tables[self.table] = []
        elif tag == "tr":
            self.tables[self.table].append([])
        elif tag in ("th", "td"):
            self.tables[self.table][-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.script += data
        elif "style" not in self.open:
            self.text += data
            if "td" in self.open or "th" in self.open:
                self.tables[self.table][-1][-1] += data

    def rows(self, table: str) -> list[list[str]]:
        """Return the cells of a table without its head, white space folded."""
        return [[" ".join(cell.split()) for cell in row] for row in self.tables[table][1:]]


def browser() -> str:
    """Return Chromium; its absence fails in CI and is left out elsewhere."""
    names = (os.environ.get("BGE_EXPORT_CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    for name in names:
        if name and (path := shutil.which(name)):
            return path
    reason = "no chromium on PATH, and BGE_EXPORT_CHROMIUM names none"
    if IN_CI:
        pytest.fail(reason)
    pytest.skip(reason)


def dumped(path: Path, folder: Path) -> str:
    """Return the document that Chromium makes of a file, scripts run where it would run any."""
    done = subprocess.run(
        [
            browser(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={folder}", "--dump-dom", path.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout
