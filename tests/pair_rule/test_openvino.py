from collections.abc import Callable
from pathlib import Path

import openvino
import pytest
from pair_rule.models import BOUNDED, PAIRS, UNBOUNDED, WAYS, bounded, written

from bge_export.errors import ArtifactError
from bge_export.pair_rule import PairFacts, facts_of

READ = [way for way in WAYS if way not in ("QLinearMatMul", "DynamicQuantizeMatMul", "MatMulInteger")]
"""What OpenVINO reads as int8 of its own: it has no such operators, and keeps those of integers out of its IR."""


Read = Callable[[Path], openvino.Model]

AS_IT_IS: Read = openvino.Core().read_model


def ir(folder: Path, way: str, fill: int) -> Path:
    nodes, turned = WAYS[way]
    return converted(folder, written(folder, nodes, turned=turned, fill=fill))


def converted(folder: Path, file: Path, read: Read = AS_IT_IS) -> Path:
    openvino.save_model(read(file), folder / "model.xml", compress_to_fp16=False)
    return folder / "model.xml"


# Converting rewrites what reading leaves: bounds become one operator, and codes and what they stand for too.
either = pytest.mark.parametrize("read", [AS_IT_IS, openvino.convert_model], ids=["read", "converted"])


@pytest.mark.parametrize("way", READ)
def test_a_weight_is_found_however_it_is_multiplied(way: str, tmp_path: Path) -> None:
    facts = facts_of(ir(tmp_path, way, 127), "openvino")
    assert facts == PairFacts(weights=1, pairs=PAIRS, broken=PAIRS, first="w", first_broken=PAIRS)


def test_a_weight_of_seven_bits_passes(tmp_path: Path) -> None:
    facts = facts_of(ir(tmp_path, "MatMul", 64), "openvino")
    assert facts == PairFacts(weights=1, pairs=PAIRS, broken=0, first=None, first_broken=0)


@either
@pytest.mark.parametrize("way", BOUNDED)
def test_inputs_that_the_model_keeps_small_leave_all_bits_to_the_weight(way: str, read: Read, tmp_path: Path) -> None:
    facts = facts_of(converted(tmp_path, bounded(tmp_path, BOUNDED[way]), read), "openvino")
    assert facts == PairFacts(1, PAIRS, 0, None, 0)


@either
@pytest.mark.parametrize("way", UNBOUNDED)
def test_bounds_that_keep_nothing_small(way: str, read: Read, tmp_path: Path) -> None:
    if (way, read) == ("bounds that are no number", openvino.convert_model):
        with pytest.raises(RuntimeError, match="less or equal"):
            read(bounded(tmp_path, UNBOUNDED[way]))
        return
    facts = facts_of(converted(tmp_path, bounded(tmp_path, UNBOUNDED[way]), read), "openvino")
    assert facts == PairFacts(1, PAIRS, PAIRS, "w", PAIRS)


def test_a_file_that_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "model.xml").write_text("<net>")
    with pytest.raises(ArtifactError, match="weights cannot be read"):
        facts_of(tmp_path / "model.xml", "openvino")
