"""Wrong files of every kind, the same ones in every run: each ends in a success or a project error, in time.

`scripts/fuzz --minutes N` goes on from other numbers.
"""

import random

import pytest
from fuzz.hunt import findings
from fuzz.mutations import MUTATE
from fuzz.readers import READERS

CASES = 50
READ = [name for name in READERS if name != "model"]
"""Building models takes long; `scripts/fuzz` does, and `test_declared_sizes` holds what is refused before."""


def test_a_wrong_file_ends_every_reader_in_a_success_or_a_project_error() -> None:
    found = findings(((reader, seed) for seed in range(CASES) for reader in READ), READ)
    assert not found, "\n".join(f"--- {one.reader} {one.seed}\n{one.problem}" for one in found)


@pytest.mark.parametrize("reader", READ)
def test_a_number_always_makes_the_same_wrong_file(reader: str, tmp_path) -> None:
    READERS[reader].write(tmp_path)
    for name, kind in READERS[reader].files.items():
        whole = (tmp_path / name).read_bytes()
        made = [[MUTATE[kind](whole, random.Random(seed)) for seed in range(20)] for _ in range(2)]
        if kind != "npz":  # archives hold the time
            assert made[0] == made[1]
        assert sum(one != whole for one in made[0]) > 10
