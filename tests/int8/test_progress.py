"""An export that takes minutes shows how far it is, and keeps to the threads that it is given."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from exporting import export_model

from bge_export.errors import ExportError
from bge_export.exporters.onnx import OnnxExporter
from bge_export.exporters.openvino import OpenVinoExporter
from bge_export.precision.int8_options import Int8Options
from bge_export.progress import shown_by


class Stages:
    """Records each stage's length and how far it came; refuses one inside another, which no display can show."""

    def __init__(self) -> None:
        self.lengths: dict[str, int] = {}
        self.reached: dict[str, int] = {}
        self.threads: dict[str, set[int]] = {}
        self._open = False

    @contextmanager
    def track(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
        assert not self._open, f"{name} inside another stage"
        assert name not in self.lengths, f"{name} twice"
        self.lengths[name], self.reached[name], self._open = total, 0, True

        def advance(count: int) -> None:
            self.threads.setdefault(name, set()).add(torch.get_num_threads())
            self.reached[name] += count

        yield advance
        self._open = False


LONG = {"int8: calibrating, batches", "int8: planning, layers", "int8: rounding, layers"}


@pytest.mark.parametrize("exporter", [OnnxExporter(), OpenVinoExporter()], ids=["onnx", "openvino"])
def test_int8_shows_each_batch_and_layer(exporter: OnnxExporter | OpenVinoExporter, tiny: Path, tmp_path: Path) -> None:
    stages = Stages()
    with shown_by(stages.track):
        export_model(exporter, str(tiny), tmp_path / "out", precisions=["int8"], check=False)
    assert set(stages.lengths) >= LONG
    assert {name: stages.reached[name] for name in LONG} == {name: stages.lengths[name] for name in LONG}
    assert stages.lengths["int8: planning, layers"] == 3
    assert stages.lengths["int8: calibrating, batches"] > 2


def test_a_search_counts_the_variants_it_may_try(tiny: Path, tmp_path: Path) -> None:
    stages = Stages()
    exporter = OnnxExporter(int8=Int8Options(min_cosine=1.0))
    with pytest.raises(ExportError), shown_by(stages.track):
        export_model(exporter, str(tiny), tmp_path / "out", precisions=["int8"], check=False)
    name = "int8: variants tried, at most"
    assert 1 < stages.reached[name] <= stages.lengths[name]


@pytest.fixture
def threads_kept() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.usefixtures("threads_kept")
def test_an_export_keeps_to_its_threads(threads: int, tiny: Path, tmp_path: Path) -> None:
    torch.set_num_threads(3)
    stages = Stages()
    with shown_by(stages.track):
        export_model(OnnxExporter(), str(tiny), tmp_path / "out", precisions=["int8"], check=False, threads=threads)
    # Golden texts are embedded with one thread: more add up in another order, and their file would tell.
    seen = [seen for name, seen in stages.threads.items() if not name.startswith("golden")]
    assert set().union(*seen) == {threads}
