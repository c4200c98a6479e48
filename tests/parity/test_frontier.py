"""The int8 variants that were tried, on the page: drawn twice, and all of them in a table."""

import json
import re
from pathlib import Path

import pytest
from fakes import POLICY, SPEC, report_of, small_corpus
from hypothesis import given
from hypothesis import strategies as st
from pages import Page, dumped

from bge_export.bundle.manifest import Manifest, Model, Source
from bge_export.errors import ArtifactError
from bge_export.files.spec import SpecRecord
from bge_export.parity.gate.judge import judge
from bge_export.parity.show import plots
from bge_export.parity.show.frontier import Costs, Frontier, Variant, panels, read_frontiers
from bge_export.parity.show.html import render_html

STEPS = [
    {"precise": precise, "finer": finer, "widening": 1.0, "predicted": predicted,
     "smallest": smallest, "mean": mean, "smallest_stress": odd, "milliseconds": milliseconds, "size_bytes": size}
    for precise, finer, predicted, smallest, mean, odd, milliseconds, size in [
        (0, 0, 2.4e-4, 0.9971, 0.99972, 0.996, 6.1, 34_190_000),
        (8, 0, 9.1e-5, 0.9989, 0.99985, 0.998, 7.4, 34_220_000),
        (48, 0, 0.0, 0.9995, 0.99991, 0.9985, 9.0, 34_300_000),
        (48, 36, 0.0, 0.99981, 0.999978, 0.9993, 13.2, 48_900_000),
    ]
]  # fmt: skip


def manifest_of(steps: object, int8: object = None) -> Manifest:
    spec = SpecRecord.of(SPEC)
    options = {"frontier": steps, "int8": {"min_cosine": 0.9998} if int8 is None else int8}
    models = [
        Model(target=target, files=["m"], inputs=[], outputs=[], tools={}, options=own)
        for target, own in (("onnx-fp32", {}), ("onnx-int8", options))
    ]
    return Manifest(
        schema_="bge_export.manifest/1", source=Source(id="a", revision=None, digest="d", model_type="bert"),
        spec=spec,
        models=models, weights=[], files={}, checked=True,
    )  # fmt: skip


def page(*frontiers: Frontier) -> str:
    report = report_of()
    return render_html(report, judge(report, POLICY, small_corpus()), POLICY, frontiers)


def test_every_form_is_in_the_table_and_twice_in_the_drawings():
    (frontier,) = read_frontiers(manifest_of(STEPS))
    found = Page(page(frontier))
    rows = found.rows("variants-1")
    assert [row[:2] for row in rows] == [[f"{one['precise']} points", f"{one['finer']} points"] for one in STEPS]
    assert rows[-1][2:] == ["0", "0.99981", "0.999978", "0.99930", "13.2", "48.9"]
    assert found.tags.count("svg") == 2 + 2 + 3  # a lane's, the frontier's, the key's
    shown = page(frontier)
    assert shown.count("asked for, 0.9998") == 2
    assert shown.count('class="taken"') == 2
    assert json.loads(found.script)["frontiers"] == {"onnx-int8": STEPS}


def test_a_page_without_a_search_has_no_frontier():
    assert "frontier-1" not in page()
    assert read_frontiers(manifest_of([])) == ()


def test_a_frontier_whose_budget_is_unknown_has_no_line():
    (frontier,) = read_frontiers(manifest_of(STEPS, int8={}))
    assert frontier.least is None
    assert "asked for" not in page(frontier)


@pytest.mark.parametrize(
    "steps", ["all", [{"precise": 1}], [{**STEPS[0], "size_bytes": "<b>"}], [{**STEPS[0], "mean": float("nan")}]]
)
def test_a_manifest_that_others_wrote_is_refused_by_name(steps):
    with pytest.raises(ArtifactError, match="frontier of onnx-int8"):
        read_frontiers(manifest_of(steps))


numbers = st.floats(0.001, 1e6)


@given(st.lists(numbers, min_size=1, max_size=20))
def test_a_cost_axis_holds_every_value_with_few_labels(values):
    axis = Costs.over(values)
    assert all(plots.LEFT <= axis.x(value) <= plots.RIGHT for value in values)
    assert 2 <= len(axis.ticks) <= 7


cosine = st.one_of(st.floats(-1, 1), st.just(1.0))
variants = st.builds(
    Variant,
    precise=st.integers(0, 99),
    finer=st.integers(0, 99),
    widening=st.floats(0.5, 2),
    predicted=st.floats(0, 1),
    smallest=cosine,
    mean=cosine,
    smallest_stress=cosine,
    milliseconds=numbers,
    size_bytes=st.integers(1, 10**9),
)


@given(st.lists(variants, min_size=1, max_size=20), st.one_of(st.none(), st.floats(0.5, 1)))
def test_every_mark_stands_inside_its_drawing(tried, least):
    for panel in panels(Frontier("onnx-int8", tuple(tried), least)):
        for series in ("predicted", "mean", "smallest"):
            marks = panel.marks(series)
            assert len(marks) == len(tried)
            assert all(plots.LEFT <= mark.x <= plots.RIGHT and plots.TOP <= mark.y <= plots.BOTTOM for mark in marks)


def test_less_error_stands_lower_and_less_time_further_left():
    (frontier,) = read_frontiers(manifest_of(STEPS))
    marks = panels(frontier)[0].marks("smallest")
    assert [mark.x for mark in marks] == sorted(mark.x for mark in marks)
    assert [mark.y for mark in marks] == sorted(mark.y for mark in marks)


def test_a_browser_reads_the_forms_back(tmp_path: Path):
    (frontier,) = read_frontiers(manifest_of(STEPS))
    path = tmp_path / "report.html"
    path.write_text(page(frontier), "utf-8")
    assert Page(dumped(path, tmp_path / "profile")).rows("variants-1") == Page(path.read_text("utf-8")).rows(
        "variants-1"
    )


def test_parity_and_gate_draw_what_the_folder_records(bge, tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = bge("onnx", tiny, "-o", out, "--quantize", "int8", "--min-cosine", "0.99", "--no-check")
    assert done.returncode == 0, done.stderr
    bge("parity", out, "--reference", tiny, "--runtime", "onnxruntime", "--html", tmp_path / "parity.html")
    bge("gate", out / "parity.json", "--html", tmp_path / "gate.html")
    for name in ("parity", "gate"):
        shown = (tmp_path / f"{name}.html").read_text("utf-8")
        assert re.search(r'id="frontier-1".*onnx-int8.*asked for, 0\.99', shown, re.DOTALL), name
