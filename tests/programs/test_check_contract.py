"""A program in any language is judged by a folder's golden texts, and its likely fault is named."""

import json
import os
import shlex
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from bge_export.bundle.contract import read_contract
from bge_export.cli import run
from bge_export.errors import ClientError, UsageError
from bge_export.programs.judging import RowLimits, judge_vectors, read_vectors
from bge_export.programs.running import run_program, split_command
from bge_export.texts.golden import GOLDEN, OVER_LONG, judged_as, read_rows, vectors_of

EXAMPLE = Path(__file__).parents[2] / "examples/contract/embed.py"
LIMITS = dict.fromkeys(("everyday", "stress"), RowLimits(0.999999, 1e-4))


@pytest.fixture
def program(tmp_path: Path):
    """Write a Python program and return the command that runs it."""

    def write(code: str, arguments: str = "") -> str:
        (tmp_path / "program.py").write_text(code, "utf-8")
        return f"{shlex.quote(sys.executable)} {shlex.quote(str(tmp_path / 'program.py'))} {arguments}"

    return write


def check(folder: Path, command: str, *options: str) -> int:
    return run(["check-contract", str(folder), "--command", command, *options])


def test_a_right_program_passes_with_its_own_prompts_and_with_ours(
    tiny_export, program, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_export.folder
    assert check(folder, program(EXAMPLE.read_text("utf-8"), f"{folder} {{use}}")) == 0
    out = capfd.readouterr().out
    assert "PASSED: 25 texts by the limits of onnx-fp32" in out
    assert "Note:" not in out

    assert check(folder, program(EXAMPLE.read_text("utf-8"), str(folder))) == 0
    assert "prompts stood before the texts already" in capfd.readouterr().out


WRONG = {
    "mean pooling": ('[contract["embedding"]["pooling"]]', '["mean"]', "the pooling is cls"),
    "no division": ('if contract["embedding"]["normalize"]:', "if False:", "divide them by their L2 norm"),
    "no prompt": ('contract["text"]["prompts"][use] if use else ""', '""', "put the prompt before queries"),
    "padding before the text": ('direction="right"', 'direction="left"', "fill batches at the end"),
    "padding that is not masked": ("one.attention_mask", "[1] * len(one.ids)", "fill batches at the end"),
    "longer texts cut short": (
        "tokenizer.enable_padding",
        "tokenizer.enable_truncation(128)\ntokenizer.enable_padding",
        "cut longer texts at 512 tokens",
    ),
    "other tokens": (
        "prompt + json.loads(line)",
        "(prompt + json.loads(line)).encode('ascii', 'ignore').decode()",
        "tokens of",
    ),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_program_is_refused_with_its_likely_cause(
    tiny_export, program, fault: str, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_export.folder
    right, wrong, cause = WRONG[fault]
    code = EXAMPLE.read_text("utf-8")
    assert right in code
    assert check(folder, program(code.replace(right, wrong), f"{folder} {{use}}")) == 1
    out = capfd.readouterr().out
    assert "REFUSED" in out
    assert cause in out


TOKENS = """
import json, sys
rows = {tuple(row["token_ids"]): row["vector"] for row in map(json.loads, open(sys.argv[1]))}
for line in sys.stdin:
    print(rows[tuple(json.loads(line))])
"""


def test_a_program_may_be_given_token_ids(tiny_export, program, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tiny_export.folder
    command = program(TOKENS, str(folder / GOLDEN))
    assert check(folder, command, "--token-ids") == 0
    assert "tokenizer and prompts were not checked" in capfd.readouterr().out
    assert check(folder, f"{command} {{use}}", "--token-ids") == 2

    assert check(folder, command, "--token-ids", "--json") == 0
    said = json.loads(capfd.readouterr().out)
    assert said["passed"]
    assert len(said["texts"]) == 25


OUTPUTS = {
    "nothing": ("", "printed 0 vectors for 25 texts"),
    "too few": ("for _ in range(24): print([0.1] * 64)", "printed 24 vectors for 25 texts"),
    "another width": ("for _ in range(25): print([0.1] * 63)", "a vector of 63 components, not 64"),
    "an empty vector": ("for _ in range(25): print([])", "a vector of 0 components, not 64"),
    "not a list": ("print('Loading the model')", "'Loading the model', which is not a JSON list of numbers"),
    "strings": ("print('[\"a\"]')", "not a JSON list of numbers"),
    "booleans": ("for _ in range(25): print('[' + ','.join(['true'] * 64) + ']')", "not a JSON list of numbers"),
    "zeros": ("for _ in range(25): print([0.0] * 64)", "25 of 25 texts"),
    "not numbers": ("for _ in range(25): print('[' + ','.join(['NaN'] * 64) + ']')", "25 of 25 texts"),
    "too large": ("for _ in range(25): print([10 ** 400] * 64)", "not a JSON list of numbers"),
}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_output_of_another_form_is_refused(tiny_export, program, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    code, reason = OUTPUTS[kind]
    assert check(tiny_export.folder, program(code)) == 1
    assert reason in capfd.readouterr().out


def test_a_program_that_fails_says_why(tiny_export, program, capfd: pytest.CaptureFixture[str]) -> None:
    failing = program("import sys\nprint('no such model', file=sys.stderr)\nsys.exit(7)")
    assert check(tiny_export.folder, failing) == 3
    complaint = capfd.readouterr().err
    assert "ended with exit status 7" in complaint
    assert "no such model" in complaint


def test_a_program_that_does_not_end_is_ended_with_its_children(tmp_path: Path, program) -> None:
    """The child tells its number, and is gone when the check has failed."""
    code = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\n"
        "print('still here', file=sys.stderr, flush=True)\ntime.sleep(600)"
    )
    begun = time.monotonic()
    with pytest.raises(ClientError, match=r"did not end within 3 seconds(.|\n)*still here"):
        run_program(split_command(program(code)), [], 3.0)
    assert time.monotonic() - begun < 30

    child = int((tmp_path / "pid").read_text())
    for _ in range(100):
        state = subprocess.run(["ps", "-o", "stat=", "-p", str(child)], capture_output=True, text=True).stdout.strip()
        if not state or state.startswith("Z"):
            return
        time.sleep(0.05)
    os.kill(child, 9)
    pytest.fail("the child still runs")


def test_a_child_that_stays_behind_does_not_hold_the_check_up(program) -> None:
    code = (
        "import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\nprint([1])"
    )
    begun = time.monotonic()
    assert run_program(split_command(program(code)), ["x"], 60.0).split() == ["[1]"]
    assert time.monotonic() - begun < 30


def test_a_program_that_prints_without_end_is_ended(program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bge_export.programs.running.MOST_BYTES", 1 << 20)
    with pytest.raises(ClientError, match="printed more than 1 MiB"):
        run_program(split_command(program("while True: print('x' * 10000)")), [], 60.0)


def test_a_program_that_reads_nothing_is_no_problem(program) -> None:
    lines = ["x" * 1000] * 1000
    assert run_program(split_command(program("print('done')")), lines, 60.0) == "done\n"


@pytest.mark.parametrize("command", ["", "   ", "'open"])
def test_a_command_that_is_none_is_a_usage_error(tiny_export, command: str) -> None:
    assert check(tiny_export.folder, command) == 2


def test_a_program_that_does_not_exist_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="cannot be run"):
        run_program(["./no-such-program"], [], 1.0)


def test_the_target_decides_the_limits(tiny_export, program, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tiny_export.folder
    command = program(TOKENS, str(folder / GOLDEN))
    assert check(folder, command, "--token-ids", "--target", "onnx-fp16") == 0
    assert "limits of onnx-fp16" in capfd.readouterr().out
    assert check(folder, command, "--token-ids", "--target", "onnx-int8") == 2
    assert "onnx-int8 is not in the folder" in capfd.readouterr().err


TWO_KINDS = """require = []
["onnx-fp32"]
min_cosine = 0.998
min_stress_cosine = 0.9
max_norm_error = 1e-5
min_batch_cosine = 0.999
min_token_cosine = 0.9
min_sequence_cosine = 0.9
"""
TURNING = """import json, sys
import numpy as np
golden = [json.loads(line) for line in open(sys.argv[1], encoding="utf-8")]
for row in golden:
    vector = np.array(row["vector"])
    if row["id"] == sys.argv[2]:
        other = np.eye(len(vector))[0]
        other -= (other @ vector) * vector
        vector = 0.95 * vector + (1 - 0.95**2) ** 0.5 * other / np.linalg.norm(other)
    print(json.dumps(vector.tolist()))
"""


@pytest.mark.parametrize(("name", "status"), [("sentence", 1), ("query", 1), ("code", 1), ("emoji", 0), ("empty", 0)])
def test_everyday_texts_are_held_to_the_limit_of_everyday_texts(
    tiny_export, program, tmp_path: Path, name: str, status: int, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "limits.toml").write_text(TWO_KINDS, "utf-8")
    folder = tiny_export.folder
    command = program(TURNING, f"{folder / GOLDEN} {name}")
    assert check(folder, command, "--thresholds", str(tmp_path / "limits.toml")) == status
    out = capfd.readouterr().out
    assert (f"{name} (" in out) == bool(status)
    assert ("nearest to its limit is" in out) == (not status)
    assert check(folder, command, "--thresholds", str(tmp_path / "limits.toml"), "--json") == status
    found = json.loads(capfd.readouterr().out)
    assert (found["limits"]["everyday"]["cosine"], found["limits"]["stress"]["cosine"]) == (0.998, 0.9)
    assert [row["id"] for row in found["texts"] if not row["right"]] == ([name] if status else [])


def test_both_kinds_of_golden_texts_are_there_and_strange_ones_are_everyday(tiny_export) -> None:
    rows = read_rows((tiny_export.folder / GOLDEN).read_bytes())
    kinds = Counter(map(judged_as, rows))
    assert min(kinds["everyday"], kinds["stress"]) >= 10
    assert judged_as(rows[4].model_copy(update={"id": "of another version"})) == "everyday"


def test_causes_follow_from_the_kinds_that_are_wrong(tiny_export) -> None:
    rows = read_rows((tiny_export.folder / GOLDEN).read_bytes())
    contract, right = read_contract(tiny_export.folder), vectors_of(rows)

    def causes(wrong: np.ndarray) -> str:
        return " ".join(judge_vectors(wrong, rows, contract, LIMITS, token_ids=False).causes)

    kinds = np.asarray([row.kind for row in rows])
    turned = np.where((kinds == OVER_LONG)[:, None], right[:, ::-1], right)
    assert causes(right) == ""
    assert causes(turned) == "cut longer texts at 512 tokens, the special tokens included, at the right end"
    assert "accents" in causes(np.where((kinds == "accents")[:, None], right[:, ::-1], right))
    assert "zero or not finite" in causes(np.where((kinds == "empty")[:, None], 0.0, right))
    assert "divide them by their L2 norm" in causes(right * 3.0)


def test_vectors_are_read_in_their_order() -> None:
    vectors, fault = read_vectors("[1, 2]\n\n[3.5, 4]\n", 2, 2)
    assert fault == ""
    assert vectors.tolist() == [[1.0, 2.0], [3.5, 4.0]]
