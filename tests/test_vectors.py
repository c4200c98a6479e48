from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bge_export.contracts import InputSpec, ModelSpec
from bge_export.errors import ReportError
from bge_export.heads.dense import DenseHead
from bge_export.oracle.vectors import ReferenceVectors
from bge_export.sweep.plan import TokenFacts, plan_sample
from bge_export.sweep.states import Expected, Sweep

SPEC = ModelSpec(InputSpec(8, {"query": "q: "}), {"dense": DenseHead(2, "cls", normalize=True)})

TOKENS = TokenFacts(rows=6, token_types=0, prefix=(1,), suffix=(2,), pad=0, max_tokens=8)


def sweep() -> Sweep:
    """Return a sweep whose last kind of mask the checkpoint does not define."""
    *known, _ = plan_sample(TOKENS)
    ones = [Expected(np.ones((b.judged.sum(), 2), np.float32), np.ones((len(b.judged), 2), np.float32)) for b in known]
    return Sweep(TOKENS, (*ones, None))


def reference() -> ReferenceVectors:
    rows = np.asarray([[0.6, 0.8], [1, 0]], dtype=np.float32)
    return ReferenceVectors(
        "m", None, "c" * 64, "t" * 64, SPEC, ("a", "b"), ((1, 2, 3), (4,)),
        {"cls": rows, "mean": rows[::-1].copy()}, {"torch": "2"}, "checkpoint",
        sweep(), {"config.json": "d" * 64},
    )  # fmt: skip


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "r.npz"
    reference().write(path)
    back = ReferenceVectors.read(path)
    assert replace(back, vectors={}, kind="checkpoint", sweep=None) == replace(reference(), vectors={}, sweep=None)
    for name, rows in reference().vectors.items():
        np.testing.assert_array_equal(back.vectors[name], rows)
    assert back.kind == "file"
    assert [p.name for p in tmp_path.iterdir()] == ["r.npz"]


def test_the_same_vectors_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        reference().write(tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize(
    "broken",
    [
        replace(reference(), ids=("a", "b", "c")),
        replace(reference(), token_ids=((1,),)),
        replace(reference(), vectors={"mean": reference().vectors["mean"]}),
        replace(reference(), vectors={"cls": np.full((2, 2), np.nan, dtype=np.float32)}),
        replace(reference(), vectors={"cls": np.zeros((2, 3), dtype=np.float32)}),
        replace(reference(), vectors={"cls": np.zeros((2, 2), dtype=np.float64)}),
    ],
)
def test_parts_that_do_not_fit_are_refused(tmp_path: Path, broken: ReferenceVectors) -> None:
    broken.write(tmp_path / "r.npz")
    with pytest.raises(ReportError, match="not a file of reference vectors"):
        ReferenceVectors.read(tmp_path / "r.npz")


def test_a_truncated_or_foreign_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.npz"
    reference().write(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ReportError, match="not a file of reference vectors"):
        ReferenceVectors.read(path)
    np.savez(path, x=np.asarray([{"a": 1}], dtype=object))
    with pytest.raises(ReportError, match="not a file of reference vectors"):
        ReferenceVectors.read(path)
    with pytest.raises(ReportError, match=r"missing\.npz does not exist\. Write it with: bge-export reference"):
        ReferenceVectors.read(tmp_path / "missing.npz")
