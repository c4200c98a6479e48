"""Show a verdict to continuous integration: as a JUnit file, and as annotations of GitHub. Nothing is judged here."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree as Xml

from bge_export.files.single import refuse_path, written_whole
from bge_export.parity.figures import escaped
from bge_export.parity.gate.verdict import Failure, Verdict
from bge_export.parity.report import Lane, ParityReport

OWN_FILE = re.compile(rb'<testsuites name="bge-export gate"')
"""Matches the beginning of a file that `write_junit` wrote."""
ANNOTATIONS = 10
"""GitHub shows so many errors of one step."""


def refuse_junit(path: Path) -> None:
    """Raise OutputError if the path holds anything except a JUnit file of this tool, or cannot be written."""
    refuse_path(path, "JUnit file", OWN_FILE)


def write_junit(path: Path, report: ParityReport, verdict: Verdict) -> None:
    """Write a JUnit file: one test case for each lane and one for the report as a whole.

    Raises:
        OutputError: the path holds anything else, or cannot be written.
    """
    refuse_junit(path)
    with written_whole(path) as temporary:
        temporary.write_text(junit(report, verdict), "utf-8")


def junit(report: ParityReport, verdict: Verdict) -> str:
    """Return the content of the JUnit file. A lane that did not run is skipped, unless the gate refuses it."""
    names = {lane.name for lane in report.lanes}
    suite = Xml.Element("testsuite", name=escaped(report.checkpoint.source))
    _case(suite, "report", "the report as a whole", [bad for bad in verdict.failures if bad.lane not in names])

    for lane in report.lanes:
        where = f"{lane.runtime}:{lane.device} {lane.output}"
        case = _case(suite, lane.target, where, [bad for bad in verdict.failures if bad.lane == lane.name])
        if len(case) == 0 and not lane.measured:
            Xml.SubElement(case, "skipped", message=escaped(_reason(lane)))

    counts = {
        "tests": str(len(suite)),
        "failures": str(sum(case.find("failure") is not None for case in suite)),
        "errors": "0",
        "skipped": str(sum(case.find("skipped") is not None for case in suite)),
    }
    suite.attrib.update(counts)
    root = Xml.Element("testsuites", {"name": "bge-export gate", **counts})
    root.append(suite)
    Xml.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{Xml.tostring(root, encoding="unicode")}\n'


def annotations(verdict: Verdict) -> Iterator[str]:
    """Yield the workflow commands that show refusals on the page of a GitHub run: one for each rule in each lane."""
    groups: dict[tuple[str, str], list[Failure]] = {}
    for bad in verdict.failures:
        groups.setdefault((bad.rule, bad.lane), []).append(bad)

    for (rule, _), failures in list(groups.items())[:ANNOTATIONS]:
        more = f" ({len(failures) - 1} more like it)" if len(failures) > 1 else ""
        yield f"::error title={_property(f'bge-export gate: {rule}')}::{_data(f'{failures[0].message}{more}')}"

    if len(groups) > ANNOTATIONS:
        yield f"::error::{len(groups) - ANNOTATIONS} further rules refuse; see the log."


def _case(suite: Xml.Element, group: str, name: str, failures: Sequence[Failure]) -> Xml.Element:
    """Add a test case to a suite, with one failure that holds all refusals."""
    case = Xml.SubElement(suite, "testcase", classname=escaped(group), name=escaped(name))
    if failures:
        rules = ", ".join(dict.fromkeys(bad.rule for bad in failures))
        element = Xml.SubElement(case, "failure", type=rules, message=f"{len(failures)} reasons: {rules}")
        element.text = "\n".join(escaped(bad.message) for bad in failures)
    return case


def _reason(lane: Lane) -> str:
    return lane.unavailable or lane.failed or "no rows"


def _data(text: str) -> str:
    """Return a text as the message of a workflow command: it stays on one line and opens no other command."""
    return escaped(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
