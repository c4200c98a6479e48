"""A client that says no, dies or hangs is an error with its message, and never a wait without end."""

import sys
import time
from pathlib import Path

import pytest

from bge_export.errors import ClientError
from bge_export.javascript.process import ProcessLink

ECHO = """
import json, sys
for line in sys.stdin:
    request = json.loads(line)
    print("a native library says hello")
    print(json.dumps({"id": request["id"], **REPLY}), flush=True)
"""


def link(code: str, folder: Path) -> ProcessLink:
    return ProcessLink([sys.executable, "-c", code], folder)


def test_lines_that_are_no_answers_are_passed_over(tmp_path: Path) -> None:
    client = link(ECHO.replace("REPLY", '{"op": request["op"]}'), tmp_path)
    assert client.ask("first")["op"] == "first"
    assert client.ask("second")["op"] == "second"
    client.close()


def test_an_error_carries_what_the_library_printed(tmp_path: Path) -> None:
    client = link(ECHO.replace("REPLY", '{"error": "no such op", "logs": ["a warning"]}'), tmp_path)
    with pytest.raises(ClientError, match=r"no such op \(it printed: a warning\)"):
        client.ask("open")
    client.close()


def test_a_client_that_dies_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    client = link("import sys; sys.stdin.readline(); sys.exit('out of memory')", tmp_path)
    with pytest.raises(ClientError, match=r"ended by itself with status 1: out of memory"):
        client.ask("open")
    with pytest.raises(ClientError, match="ended by itself"):
        client.ask("run")
    client.close()


def test_a_client_that_hangs_is_ended(tmp_path: Path) -> None:
    client = link("import time; time.sleep(60)", tmp_path)
    start = time.monotonic()
    with pytest.raises(ClientError, match=r"no answer to 'open' in 0\.3 s"):
        client.ask("open", 0.3)
    assert time.monotonic() - start < 10
    client.close()
