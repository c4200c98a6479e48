"""int8 of rerankers: importance comes from the logit, and a pair has one logit in every batch."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from exporting import export_recipe
from rerankers import build_reranker

from bge_export.build.recipe import Output, Recipe, Source
from bge_export.calibration.objective import (
    LogitObjective,
    exact_embeddings,
    objective_of,
    output_of,
    unit_embeddings,
    unit_row,
)
from bge_export.calibration.texts import PairTokenizer
from bge_export.checkpoint.model import load_model
from bge_export.checkpoint.opening import open_checkpoint
from bge_export.commands import Exported, export
from bge_export.contracts import Target
from bge_export.errors import UsageError
from bge_export.parity.orders import spread, worst_scores
from bge_export.precision.int8_options import Int8Options
from bge_export.texts.tokens import PairRow


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_reranker("bert", tmp_path_factory.mktemp("reranker") / "bert")


@pytest.fixture(scope="module")
def exported(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export_recipe(root, tmp_path_factory.mktemp("out") / "folder", ["onnx:int8"])


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta"])
def test_the_objective_is_the_checkpoints_own_logit(kind: str, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(build_reranker(kind, tmp_path / kind))  # type: ignore[arg-type]
    model = load_model(checkpoint)
    ids = torch.randint(5, 60, (3, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        states = model.base_model(ids)[0]
        logits = model(ids).logits

    objective = objective_of(checkpoint)
    assert isinstance(objective, LogitObjective)
    assert torch.allclose(objective.classifier(states, torch.ones_like(ids)), logits, atol=1e-6)
    assert output_of(objective) == 1

    halved = LogitObjective(objective.classifier, spread=2.0)
    points = exact_embeddings(halved, states, torch.ones_like(ids))
    assert torch.allclose(torch.atan2(points[:, 1], points[:, 0]), (logits[:, 0] / 2).double(), atol=1e-6)
    assert np.allclose(unit_row(halved, logits[:1].numpy(), np.ones((1, 9))), points[0].numpy())

    order = np.random.default_rng(0).permutation(states.shape[-1])
    moved = exact_embeddings(halved, states[..., torch.from_numpy(order)], torch.ones_like(ids), order)
    assert torch.allclose(moved, points)


def test_its_gradient_is_that_of_the_logit_by_the_spread(root: Path) -> None:
    objective = objective_of(open_checkpoint(root))
    assert isinstance(objective, LogitObjective)
    states = torch.randn(1, 4, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    mask = torch.ones(1, 4)

    (of_logit,) = torch.autograd.grad(objective.classifier(states, mask).sum(), states)
    jacobian = torch.autograd.functional.jacobian(
        lambda given: unit_embeddings(LogitObjective(objective.classifier, 3.0), given, mask), states
    )
    squares = jacobian.reshape(2, -1).square().sum(0)
    assert torch.allclose(squares, (of_logit / 3).reshape(-1).square(), rtol=1e-4, atol=1e-9)
    assert of_logit[:, 1:].abs().max() == 0  # BERT's classifier reads the first token


def test_texts_are_calibrated_as_pairs_of_which_half_belong_together(root: Path) -> None:
    tokenizer = PairTokenizer.load(root, 128)
    one, two = tokenizer.encode(["the dog sleeps in the garden", "the cat sleeps in the house"])
    assert isinstance(one, PairRow)
    assert isinstance(two, PairRow)
    middle = one.types.index(1)
    assert one[1:middle] == (*one[middle:],)  # a text after its own beginning
    assert two[1 : two.types.index(1)] == one[1:middle]  # and another text after the same
    batch = tokenizer.pad([one, two])
    assert batch.token_type_ids.max() == 1


def test_an_int8_reranker_is_proven_with_one_logit_in_every_batch(exported: Exported) -> None:
    assert exported.proof is not None
    assert exported.proof.verdict.failures == ()
    for lane in exported.proof.report.lanes:
        worst = worst_scores(lane.scores)
        assert worst is not None
        assert worst.difference is not None
        assert worst.difference <= 0.08 * spread(lane.scores)
        if lane.runtime == "onnxruntime":
            assert worst.batch_difference == 0


def test_its_file_holds_8_bit_layers_and_a_classifier_in_float32(exported: Exported) -> None:
    model = onnx.load(exported.folder / "onnx" / "model_quantized.onnx")
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    assert sum(tensor.data_type == onnx.TensorProto.INT8 for tensor in weights.values()) >= 8
    last = next(node for node in model.graph.node if "logits" in node.output)
    assert {weights[one].data_type for one in last.input if one in weights} == {onnx.TensorProto.FLOAT}


@pytest.mark.parametrize(
    ("options", "name"), [({"cls_only": True}, "--cls-only"), ({"min_cosine": 0.99}, "--min-cosine")]
)
def test_options_of_embeddings_are_refused(root: Path, tmp_path: Path, options: dict[str, object], name: str) -> None:
    recipe = Recipe(
        targets=(Target("onnx", "int8"),),
        source=Source(model=str(root)),
        output=Output(folder=tmp_path / "out"),
        int8=Int8Options(**options),  # type: ignore[arg-type]
    )
    with pytest.raises(UsageError, match=name):
        export(recipe, threads=1)
