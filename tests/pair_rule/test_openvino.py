from pathlib import Path

import openvino
import pytest
from pair_rule.models import BOUNDED, PAIRS, UNBOUNDED, WAYS, bounded, written

from bge_export.errors import ArtifactError
from bge_export.pair_rule import PairFacts, facts_of

READ = [way for way in WAYS if way not in ("QLinearMatMul", "DynamicQuantizeMatMul", "MatMulInteger")]
"""What OpenVINO reads as int8 of its own: it has no such operators, and keeps those of integers out of its IR."""


def ir(folder: Path, way: str, fill: int) -> Path:
    nodes, turned = WAYS[way]
    return converted(folder, written(folder, nodes, turned=turned, fill=fill))


def converted(folder: Path, file: Path) -> Path:
    model = openvino.Core().read_model(file)
    openvino.save_model(model, folder / "model.xml", compress_to_fp16=False)
    return folder / "model.xml"


@pytest.mark.parametrize("way", READ)
def test_a_weight_is_found_however_it_is_multiplied(way: str, tmp_path: Path) -> None:
    facts = facts_of(ir(tmp_path, way, 127), "openvino")
    assert facts == PairFacts(weights=1, pairs=PAIRS, broken=PAIRS, first="w", first_broken=PAIRS)


def test_a_weight_of_seven_bits_passes(tmp_path: Path) -> None:
    facts = facts_of(ir(tmp_path, "MatMul", 64), "openvino")
    assert facts == PairFacts(weights=1, pairs=PAIRS, broken=0, first=None, first_broken=0)


@pytest.mark.parametrize("way", BOUNDED)
def test_inputs_that_the_model_keeps_small_leave_all_bits_to_the_weight(way: str, tmp_path: Path) -> None:
    facts = facts_of(converted(tmp_path, bounded(tmp_path, BOUNDED[way])), "openvino")
    assert facts == PairFacts(1, PAIRS, 0, None, 0)


@pytest.mark.parametrize("way", UNBOUNDED)
def test_bounds_that_keep_nothing_small(way: str, tmp_path: Path) -> None:
    facts = facts_of(converted(tmp_path, bounded(tmp_path, UNBOUNDED[way])), "openvino")
    assert facts == PairFacts(1, PAIRS, PAIRS, "w", PAIRS)


def test_a_file_that_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "model.xml").write_text("<net>")
    with pytest.raises(ArtifactError, match="weights cannot be read"):
        facts_of(tmp_path / "model.xml", "openvino")
