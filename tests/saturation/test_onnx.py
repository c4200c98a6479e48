from pathlib import Path

import onnx
import pytest
from saturation.models import (
    ACTIVATIONS_IN_ITS_PLACE,
    BOUNDED,
    PAIRS,
    ROUNDED,
    UNBOUNDED,
    WAYS,
    bounded,
    float_weight,
    written,
)

from bge_export.errors import ArtifactError
from bge_export.saturation import PairFacts, facts_of


@pytest.mark.parametrize("way", WAYS)
def test_a_weight_is_found_however_it_is_multiplied(way: str, tmp_path: Path) -> None:
    nodes, turned = WAYS[way]
    facts = facts_of(written(tmp_path, nodes, turned=turned), "onnx")
    assert facts == PairFacts(weights=1, pairs=PAIRS, saturating=PAIRS, first="w", first_saturating=PAIRS)


@pytest.mark.parametrize("way", WAYS)
def test_a_weight_of_seven_bits_passes(way: str, tmp_path: Path) -> None:
    nodes, turned = WAYS[way]
    facts = facts_of(written(tmp_path, nodes, turned=turned, fill=64), "onnx")
    assert facts == PairFacts(weights=1, pairs=PAIRS, saturating=0, first=None, first_saturating=0)


@pytest.mark.parametrize("way", ACTIVATIONS_IN_ITS_PLACE)
def test_activations_in_the_place_of_a_weight(way: str, tmp_path: Path) -> None:
    nodes, saturating = ACTIVATIONS_IN_ITS_PLACE[way]
    facts = facts_of(written(tmp_path, f"{nodes}\n y = Cast<to=1>(m)"), "onnx")
    assert facts == (PairFacts(1, 1, 1, "d", 1) if saturating else PairFacts(0, 0, 0, None, 0))


def test_activations_of_which_none_can_say_that_they_are_unsigned(tmp_path: Path) -> None:
    nodes = f"{ROUNDED} e = QuantizeLinear(c, s, i)\n d = Abs(e)\n m = MatMulInteger(q, d, z, i)\n y = Cast<to=1>(m)"
    assert facts_of(written(tmp_path, nodes), "onnx").saturating == 1


def test_a_weight_that_is_stored_as_float32_and_quantized_in_the_graph(tmp_path: Path) -> None:
    onnx.save(float_weight(), tmp_path / "model.onnx")
    assert facts_of(tmp_path / "model.onnx", "onnx") == PairFacts(1, PAIRS, PAIRS, "v", PAIRS)


def test_a_weight_outside_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, WAYS["MatMul"][0])
    onnx.save_model(onnx.load(path), path, save_as_external_data=True, location="weights", size_threshold=0)
    assert facts_of(path, "onnx").saturating == PAIRS


def test_a_weight_that_is_multiplied_as_float_is_not_concerned(tmp_path: Path) -> None:
    nodes = "b = DequantizeLinear<axis=1>(w, t, u)\n y = MatMul(x, b)"
    assert facts_of(written(tmp_path, nodes), "onnx").weights == 0


@pytest.mark.parametrize("way", BOUNDED)
def test_inputs_that_the_graph_keeps_small_leave_all_bits_to_the_weight(way: str, tmp_path: Path) -> None:
    assert facts_of(bounded(tmp_path, BOUNDED[way]), "onnx") == PairFacts(1, PAIRS, 0, None, 0)


@pytest.mark.parametrize("way", UNBOUNDED)
def test_bounds_that_keep_nothing_small(way: str, tmp_path: Path) -> None:
    assert facts_of(bounded(tmp_path, UNBOUNDED[way]), "onnx") == PairFacts(1, PAIRS, PAIRS, "w", PAIRS)


def test_float_files_hold_none(tiny_export, tmp_path: Path) -> None:
    assert facts_of(tiny_export.folder / "onnx/model.onnx", "onnx") == PairFacts(0, 0, 0, None, 0)


def test_a_file_that_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\x08\x08 not a model")
    with pytest.raises(ArtifactError, match="weights cannot be read"):
        facts_of(tmp_path / "model.onnx", "onnx")
