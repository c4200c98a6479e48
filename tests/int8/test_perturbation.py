"""The perturbation that variants are looked at under: what another runtime's last bits may do to a state."""

import numpy as np
import onnx
import pytest
from int8_samples import Sample

from bge_export.precision.int8.round.build import Builder
from bge_export.precision.int8.round.variant import Variant
from bge_export.precision.int8.search.perturbation import PERTURBATION, perturbable, perturbations
from bge_export.precision.int8.search.running import open_graph
from bge_export.precision.int8.write.arrange import Arrangement, arrange

ARRANGEMENTS: tuple[Arrangement, ...] = ("sequence-major", "batch-major")


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
@pytest.mark.parametrize("cls_only", [False, True])
def test_a_graph_is_perturbed_at_every_state(
    sample: Sample, builder: Builder, arrangement: Arrangement, cls_only: bool
) -> None:  # fmt: skip
    model = arrange(builder.build(Variant()), arrangement, cls_only=cls_only)
    perturbed, widths = perturbable(model)
    onnx.checker.check_model(perturbed)
    norms = sum(node.op_type == "LayerNormalization" for node in model.graph.node)
    assert norms - 1 <= len(widths) <= norms
    plain, run = open_graph(model, arrangement), open_graph(perturbed, arrangement)
    unperturbed, *draws = perturbations(widths, 2)
    expected = plain(sample.tokens)
    np.testing.assert_allclose(
        run(sample.tokens, unperturbed), expected, atol=1e-5 if arrangement == "batch-major" else 0
    )
    assert all(abs(array - 1).max() < 6 * PERTURBATION for factors in draws for array in factors.values())
    large = {
        name: array + np.float32(0.1) * (np.arange(len(array)) % 2).astype(np.float32)
        for name, array in unperturbed.items()
    }
    for name in widths:
        only = {**unperturbed, name: large[name]}
        assert abs(run(sample.tokens, only) - expected).max() > 1e-3, name


def test_perturbations_are_always_the_same() -> None:
    some, others = (list(perturbations({"a": 4, "b": 2}, 3)) for _ in range(2))
    assert len(some) == 4
    assert all(np.array_equal(one[name], other[name]) for one, other in zip(some, others, strict=True) for name in one)
    assert not np.array_equal(some[1]["a"], some[2]["a"])
