"""Show refusals on the terminal: all of them if they are few, otherwise the worst of each rule in each lane."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.text import Text

from bge_export.parity.gate.verdict import Failure
from bge_export.texts.corpus import Kind

LINES = 20
"""Largest number of lines of reasons and advice: a list that scrolls away hides the verdict."""


@dataclass(frozen=True)
class Topic:
    """Refusals with the same advice, grouped by rule, lane and kind of text; those of stress texts come last."""

    advice: str
    groups: Sequence[Sequence[Failure]]


def reason_lines(failures: Iterable[Failure]) -> list[Text]:
    """Return at most `LINES` lines: the reasons, grouped by advice, with the advice below each group.

    If not all reasons fit, the reasons of one rule, lane and kind of text share a line with the worst of them and the
    number of the others. If that is still too long, lines at the end of each topic are left out, then whole topics.
    """
    topics = _topics(failures)
    if len(lines := list(_all(topics))) <= LINES:
        return lines

    for shown in range(LINES, 0, -1):
        if len(lines := list(_worst(topics, shown))) <= LINES:
            return lines
    return _cut(topics)


def _topics(failures: Iterable[Failure]) -> list[Topic]:
    """Return the refusals by advice.

    Everyday and stress texts do not share a line: a stress text is often the worst and would hide the everyday ones.
    """
    found: dict[str, dict[tuple[str, str, Kind | None], list[Failure]]] = {}
    for failure in failures:
        groups = found.setdefault(failure.advice, {})
        groups.setdefault((failure.rule, failure.lane, failure.kind), []).append(failure)

    return [
        Topic(advice, sorted(groups.values(), key=lambda group: group[0].kind == "stress"))
        for advice, groups in found.items()
    ]


def _all(topics: Iterable[Topic]) -> Iterator[Text]:
    for topic in topics:
        for failure in (one for group in topic.groups for one in group):
            yield _reason(failure.message)
        yield _advice(topic)


def _worst(topics: Iterable[Topic], shown: int) -> Iterator[Text]:
    """Yield the worst refusal of each of the first `shown` groups of each topic, and its advice."""
    for topic in topics:
        for group in topic.groups[:shown]:
            more = f" … and {len(group) - 1} more there" if len(group) > 1 else ""
            yield _reason(f"{max(group, key=_badness).message}{more}")

        left = sum(len(group) for group in topic.groups[shown:])
        if left:
            yield Text(f"        … and {left} more in {len(topic.groups) - shown} other groups")
        yield _advice(topic)


def _cut(topics: Sequence[Topic]) -> list[Text]:
    """Return the first topics with one line of reasons each, and a line that counts the omitted refusals."""
    kept = list(topics)
    while len(lines := list(_worst(kept, 1))) > LINES - 1:
        kept.pop()

    left = sum(len(group) for topic in topics[len(kept) :] for group in topic.groups)
    return [*lines, Text(f"        … and {left} more by other rules")]


def _badness(failure: Failure) -> float:
    """Return the sort key of refusals of one rule, the worst highest; an undefined figure is worse than any number."""
    if failure.figure is None:
        return math.inf
    return -failure.figure if failure.rule.endswith("cosine") else failure.figure


def _reason(message: str) -> Text:
    return Text.assemble(("refused ", "bold red"), message)


def _advice(topic: Topic) -> Text:
    return Text(f"        {topic.advice}", style="dim")
