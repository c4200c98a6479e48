"""The texts that an artifact is measured on, with a digest that ties a report to them.

Texts are read unchanged: white space, control characters and empty texts are cases to measure, not dirt. Only line
endings (LF or CRLF) and a byte order mark at the start of the file are removed.

    .txt     one text per line; an empty line is the empty text. The id is the line number.
    .jsonl   one object per line with `text` and optionally `id` (default: the line number), `tag`, `kind` ("everyday",
             the default, or "stress") and `language`; other keys are ignored.
             Lines that contain only white space are skipped.
    .tsv     the first line names the columns, the others hold texts; quotes have no meaning. The id is the line number.
"""

import csv
import hashlib
import json
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

from bge_export.errors import TextsError
from bge_export.files.reading import reading
from bge_export.files.regular import TEXTS_BYTES, read_regular
from bge_export.texts.fixtures import fixtures_folder

BUILTIN = "texts.jsonl"
PAIRS = "pairs.jsonl"
SHOWN = 60
"""Number of characters that reports show of a text."""

Kind = Literal["everyday", "stress"]
BLANK = frozenset({"Zs", "Zl", "Zp", "Cc", "Cf"})
"""Unicode categories of spaces, controls and characters of no width: tokenizers drop them, or make spaces of them."""

EXAMPLE = '{"id": "greeting", "text": "Hello", "tag": "short"}'
PAIR = '{"id": "moon-1", "query": "how far is the moon", "text": "About 384,400 km.", "tag": "short"}'


@dataclass(frozen=True)
class Text:
    """One text.

    Attributes:
        id: its name in reports and refusals.
        text: the text as it is.
        tag: the case that it covers, such as "question" or "emoji"; "" for none.
        kind: "everyday" for texts that users embed, "stress" for texts that probe weak spots: single characters, one
            repeated word, special tokens. Rounded weights have a separate limit for each kind.
        language: set only if the text is everyday for some checkpoints and stress for those whose tokenizer does not
            know the language (`languages`); "" for all other texts.
        query: the query that stands before the text, if both are read as a pair; None for a text alone.
    """

    id: str
    text: str
    tag: str
    kind: Kind = "everyday"
    language: str = ""
    query: str | None = None

    @property
    def shown(self) -> str:
        """Return what reports show of it: the beginning of the text, or of both sides of a pair."""
        if self.query is None:
            return self.text[:SHOWN]
        side = SHOWN // 2 - 2
        return f"{self.query[:side]} | {self.text[:side]}"


@dataclass(frozen=True)
class Corpus:
    """N texts in a fixed order."""

    name: str
    texts: tuple[Text, ...]

    @cached_property
    def digest(self) -> str:
        """Return the sha256 of the ids, texts and queries in their order."""
        rows = [[one.id, one.text, *([] if one.query is None else [one.query])] for one in self.texts]
        return hashlib.sha256(json.dumps(rows, ensure_ascii=False, separators=(",", ":")).encode()).hexdigest()


def builtin_corpus(*, pairs: bool = False) -> Corpus:
    """Return the package's own texts, or its own pairs of texts.

    Raises:
        TextsError: the installation's file of texts is damaged.
    """
    return load_corpus(fixtures_folder() / (PAIRS if pairs else BUILTIN), pairs=pairs)


def load_corpus(path: Path, column: str | None = None, *, pairs: bool = False) -> Corpus:
    """Read a file of texts; its suffix determines the format.

    Args:
        path: a `.txt` (one text per line), `.jsonl`, `.tsv` or `.csv` file in UTF-8.
        column: the column that holds the texts; only for `.tsv` and `.csv`, and required if there are several.
        pairs: whether each text follows a query, the key `query` of a `.jsonl` file; other formats hold no pairs.

    Raises:
        TextsError: the file is missing, not UTF-8 or malformed, holds no texts or only blank ones, or repeats an id.
    """
    suffix = path.suffix.lower()
    if suffix not in (".txt", ".jsonl", ".tsv", ".csv"):
        raise TextsError(f"{path}: unknown kind of file {suffix!r}. Give a .txt, .jsonl, .tsv or .csv file.")
    if column is not None and suffix not in (".tsv", ".csv"):
        raise TextsError(f"{path}: only .tsv and .csv files have columns. Leave out the column {column!r}.")
    if pairs and suffix != ".jsonl":
        raise TextsError(f"{path}: a reranker reads pairs, which only .jsonl files hold. Write lines like {PAIR}")

    lines = _lines(path)
    if suffix == ".txt":
        texts = tuple(Text(str(number), line, "") for number, line in enumerate(lines, 1))
    elif suffix == ".jsonl":
        texts = tuple(_json_texts(path, lines, pairs=pairs))
    else:
        rows = [line.split("\t") for line in lines] if suffix == ".tsv" else _csv_rows(path, lines)
        texts = tuple(_column_texts(path, rows, column))

    _refuse_unusable(path, texts)
    return Corpus(path.name, texts)


def _lines(path: Path) -> list[str]:
    """Return the lines of a file without line endings. Not `splitlines`: a text may hold U+2028 or a form feed."""
    try:
        with reading(path, TextsError, missing=f"{path} does not exist. Give the path of a file of texts."):
            content = read_regular(path, TEXTS_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise TextsError(f"{path}, line {line}: not UTF-8 ({error.reason}). Save the file as UTF-8.") from error

    if "\0" in content:
        raise TextsError(f"{path} holds zero bytes, as UTF-16 does and no text in UTF-8. Save the file as UTF-8.")

    lines = content.split("\n")
    if lines[-1] == "":
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def _json_texts(path: Path, lines: Sequence[str], *, pairs: bool) -> Iterator[Text]:
    example = PAIR if pairs else EXAMPLE
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue

        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise TextsError(f"{path}, line {number}: no JSON object: {error}. Write a line like {example}") from error

        if not isinstance(record, dict) or "text" not in record:
            raise TextsError(f'{path}, line {number}: no object with the key "text". Write a line like {example}')

        fields = {"id": str(number), "tag": "", "kind": "everyday", "language": "", **record}

        for key in ("id", "text", "tag", "language"):
            if not isinstance(fields[key], str):
                raise TextsError(f'{path}, line {number}: "{key}" is not a string. Write a line like {example}')

        if fields["kind"] not in get_args(Kind):
            raise TextsError(
                f'{path}, line {number}: the kind {json.dumps(fields["kind"])} is unknown. Write "kind": "everyday" or '
                '"kind": "stress", or leave it out for an everyday text.'
            )

        # Of a text alone, a key of that name says nothing.
        query = fields.get("query") if pairs else None
        if pairs and not isinstance(query, str):
            raise TextsError(f'{path}, line {number}: no pair, "query" is not a string. Write a line like {PAIR}')

        yield Text(fields["id"], fields["text"], fields["tag"], fields["kind"], fields["language"], query)


def _csv_rows(path: Path, lines: Sequence[str]) -> list[list[str]]:
    """Return the cells of each record; a quoted cell may hold commas and line endings."""
    reader = csv.reader((f"{line}\n" for line in lines), strict=True)
    try:
        return [row for row in reader if row]
    except csv.Error as error:
        raise TextsError(f"{path}, line {reader.line_num}: {error}. Correct the line.") from error


def _column_texts(path: Path, rows: Sequence[Sequence[str]], column: str | None) -> Iterator[Text]:
    """Yield the texts of one column; the id is the record's number, counted from 1 for the header."""
    header = list(rows[0]) if rows else []
    names = ", ".join(repr(name) for name in header)

    if path.suffix.lower() == ".csv" and len(header) == 1 and ";" in header[0]:
        raise TextsError(
            f"{path} separates its columns by semicolons: {header[0]!r}. Save it with commas (.csv) or tabs (.tsv)."
        )
    if column is None and len(header) > 1:
        raise TextsError(f"{path} has {len(header)} columns: {names}. Say which one holds the texts with --column.")
    if column is not None and header.count(column) != 1:
        raise TextsError(f"{path} has {header.count(column)} columns named {column!r}; its columns are: {names}.")

    position = 0 if column is None else header.index(column)
    for number, cells in enumerate(rows[1:], 2):
        if len(cells) != len(header):
            raise TextsError(f"{path}, line {number}: {len(cells)} cells, but {len(header)} columns. Correct the line.")
        yield Text(str(number), cells[position], "")


def says_something(text: str) -> bool:
    """Return whether a text has a character that tokenizers keep: they drop spaces, controls and zero widths."""
    return any(unicodedata.category(character) not in BLANK for character in text)


def _refuse_unusable(path: Path, texts: Sequence[Text]) -> None:
    """Raise TextsError if no text can be measured, or if a report could not name a text."""
    if not texts:
        raise TextsError(f"{path} holds no texts, so nothing could be measured. Give a file with at least one text.")
    if not any(says_something(text.text) for text in texts):
        raise TextsError(
            f"{path}: every text is blank, and the embeddings of blank texts tell no two artifacts apart. "
            "Give a file with at least one text that says something."
        )

    seen: set[str] = set()
    for text in texts:
        if text.id in seen or not text.id:
            problem = f"the id {text.id!r} appears twice" if text.id else "a text has an empty id"
            raise TextsError(f"{path}: {problem}. Give every text an id of its own.")
        seen.add(text.id)

        # A JSON escape can produce half of a surrogate pair, which UTF-8 cannot encode.
        every = text.id + text.text + text.tag + text.language + (text.query or "")
        if any("\ud800" <= character <= "\udfff" for character in every):
            raise TextsError(f"{path}: text {text.id!r} holds half of a surrogate pair, which is not text. Correct it.")
