"""Golden texts: 25 texts with their token ids and vectors, by which a program in any language is checked.

`golden.jsonl` in an exported folder holds one JSON object a line. Each text stands there as a user gives it, beside the
prompt that precedes it, because a program that leaves the prompt out must be found. The texts are few and odd: each
kind catches another fault, and a check says which kinds fail.
"""

import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bge_export.contracts import InputSpec
from bge_export.files.reading import first_fault
from bge_export.texts.corpus import Kind

GOLDEN: Final = "golden.jsonl"

Use = Literal["document", "query"]
USES: tuple[Use, ...] = get_args(Use)

OVER_LONG = "over-long"
LONGEST_TEXT = 2048
"""Most tokens that the longest text is made to exceed: plain attention over longer ones takes gigabytes."""

DECIMALS = 7
"""Decimals of a written vector: the last that float32 arithmetic keeps of a vector of norm 1."""

LARGEST_DIFFERENCE = 1e-5
"""Of two machines' vectors of one text, per component and relative to the norm: ten times what another order of
float32 sums does, and below what any limit of a precision lets pass."""


@dataclass(frozen=True)
class GoldenText:
    """One text.

    Attributes:
        id: its name.
        kind: what it checks, such as "tabs".
        text: the text as a user gives it, without a prompt.
        use: what it is embedded as, which decides the prompt.
        judged: the limits that hold for it, as for the corpus's texts: those of everyday or of stress texts.
    """

    id: str
    kind: str
    text: str
    use: Use = "document"
    judged: Kind = "everyday"


class GoldenRow(BaseModel):
    """One line of `golden.jsonl`.

    Attributes:
        id, kind, use, text: as in `GoldenText`.
        prompt: what precedes the text, "" for nothing.
        token_ids: the token ids of prompt and text, with special tokens, truncated and unpadded. A model without
            special tokens has none of an empty text.
        vector: its embedding, D numbers.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    id: str
    kind: str
    use: Use
    prompt: str
    text: str
    token_ids: list[int]
    vector: list[float] = Field(min_length=1)


_SENTENCE = "The ferry leaves the northern pier at seven, and the last bus meets it at the harbour square. "

_ACCENTS = "Zoë et André goûtent la crème brûlée à Århus"

_TEXTS = (
    GoldenText("sentence", "plain", "The bakery on the corner opens before the first train arrives."),
    GoldenText("word", "plain", "lighthouse"),
    GoldenText("question", "plain", "How long does fresh paint need to dry in winter?"),
    GoldenText("paragraph", "plain", (_SENTENCE * 4).strip()),
    GoldenText("empty", "empty", "", judged="stress"),
    GoldenText("spaces", "white space", "   ", judged="stress"),
    GoldenText("around", "white space", "  a title between spaces   ", judged="stress"),
    GoldenText("lines", "line breaks", "First line\nsecond line\n\nfourth line\n"),
    GoldenText("windows-lines", "line breaks", "First line\r\nsecond line\r\n"),
    GoldenText("tabs", "tabs", "name\tprice\tstock\nlamp\t19.90\t4"),
    GoldenText(
        "odd-spaces",
        "white space",
        "thin\u2009space, no\u00a0break, wide\u3000space, none\u200bat all",
        judged="stress",
    ),
    GoldenText("composed", "accents", _ACCENTS),
    GoldenText("decomposed", "accents", unicodedata.normalize("NFD", _ACCENTS)),
    GoldenText("capitals", "case", "THE ANNUAL REPORT OF THE STRASSE COMMITTEE, STRAßE 9"),
    GoldenText("chinese", "CJK", "雨天的山路很滑，请慢慢走。", judged="stress"),
    GoldenText("japanese", "CJK", "電車は次の駅で止まります。ドアにご注意ください。", judged="stress"),
    GoldenText("korean", "CJK", "오늘은 바람이 강하게 불어요.", judged="stress"),
    GoldenText("arabic", "other scripts", "الكتاب على الطاولة", judged="stress"),
    GoldenText("emoji", "emoji", "Party 🎉 tonight 👍🏽 with the family 👨\u200d👩\u200d👧", judged="stress"),
    GoldenText("code", "code", "if (path === \"C:\\\\temp\") { return `\\n${x}`; } // 100 % 'done'"),
    GoldenText(
        "special-words",
        "special words",
        "The words [CLS], [SEP], <s> and </s> stand in this sentence.",
        judged="stress",
    ),
    GoldenText("long-word", "long word", "Hafenkranführerprüfungsordnungsänderungsantragsformular", judged="stress"),
    GoldenText("over-long", OVER_LONG, _SENTENCE, judged="stress"),
    GoldenText("query", "query", "when does the ferry leave", "query"),
    GoldenText("query-lines", "query", "opening hours\nbakery near the station", "query"),
)


_STRESS = frozenset(one.id for one in _TEXTS if one.judged == "stress")


def judged_as(row: GoldenRow) -> Kind:
    """Return whose limits hold for a line: those of everyday texts, unless the text is known as a stress text."""
    return "stress" if row.id in _STRESS else "everyday"


def golden_texts(inputs: InputSpec) -> tuple[GoldenText, ...]:
    """Return the 25 texts; one of them is longer than a model reads, unless it reads more than `LONGEST_TEXT` tokens.

    A word is one token or more, so that words are counted.
    """
    words = min(inputs.max_tokens, LONGEST_TEXT) + 1
    repeats = -(-words // len(_SENTENCE.split()))

    return tuple(replace(one, text=one.text * repeats) if one.kind == OVER_LONG else one for one in _TEXTS)


def write_rows(rows: Sequence[GoldenRow]) -> bytes:
    """Return the content of `golden.jsonl`."""
    lines = [json.dumps(row.model_dump(), ensure_ascii=False, separators=(",", ":")) for row in rows]
    return "".join(f"{line}\n" for line in lines).encode()


def read_rows(content: bytes) -> tuple[GoldenRow, ...]:
    """Return the rows of `golden.jsonl`.

    Raises:
        ValueError: the content is not such a file.
    """
    rows = []
    for number, line in enumerate(content.splitlines(), 1):
        try:
            rows.append(GoldenRow.model_validate_json(line))
        except ValidationError as error:
            raise ValueError(f"line {number}: {first_fault(error)}") from error

    if not rows:
        raise ValueError("it holds no texts")
    if len({len(row.vector) for row in rows}) > 1:
        raise ValueError("its vectors have several widths")
    return tuple(rows)


def vectors_of(rows: Sequence[GoldenRow]) -> NDArray[np.float64]:
    """Return the vectors of N rows, [N, D] float64."""
    return np.asarray([row.vector for row in rows], dtype=np.float64)


def agree(found: bytes, expected: bytes) -> bool:
    """Return whether one `golden.jsonl` says the same as another, whose vectors another machine may have computed.

    All but the vectors is compared exactly; of the vectors, float32 arithmetic fixes no last digit.
    """
    if found == expected:
        return True

    try:
        ours, theirs = read_rows(expected), read_rows(found)
    except ValueError:
        return False

    said = {"vector"}
    if [one.model_dump(exclude=said) for one in ours] != [one.model_dump(exclude=said) for one in theirs]:
        return False

    right, other = vectors_of(ours), vectors_of(theirs)
    if right.shape != other.shape:
        return False
    norms = np.linalg.norm(right, axis=1, keepdims=True)
    most = np.maximum(LARGEST_DIFFERENCE * norms, 10.0**-DECIMALS)  # and both may be rounded otherwise
    return bool((np.abs(right - other) <= most).all())
