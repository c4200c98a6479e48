"""What is printed as JSON is JSON, whatever numbers are in it."""

import json
import math

import pytest

from bge_export.cli.output import print_json


def refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")


@pytest.mark.parametrize("lost", [math.nan, math.inf, -math.inf])
def test_a_number_that_does_not_exist_is_null_wherever_it_stands(lost, capsys):
    print_json({"a": lost, "b": [1.5, (lost, {"c": lost})], "é": "NaN", "n": None, "t": True, "i": 3})
    found = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert found == {"a": None, "b": [1.5, [None, {"c": None}]], "é": "NaN", "n": None, "t": True, "i": 3}
