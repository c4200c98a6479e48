import json

import pytest
from fakes import artifact_of, report_of
from hypothesis import given, settings
from hypothesis import strategies as st

from bge_export.errors import ReportError
from bge_export.parity.report import (
    SCHEMA,
    Lane,
    PairsRecord,
    ParityReport,
    RowParity,
    SweepPart,
    SweepRecord,
    TableRecord,
    read_report,
    write_report,
)
from bge_export.saturation import PairFacts

SATURATING = PairFacts(weights=2, pairs=300, saturating=12, first="layer.0/key.weight", first_saturating=9)
REPORT = report_of(artifacts=[artifact_of(), artifact_of("fp16", both=True)], pairs={artifact_of().digest: SATURATING})
RUN = REPORT.runs[""].model_copy(update={"environment": {"cpu": "\u202e<x>"}})

texts = st.text(max_size=10)
numbers = st.floats(allow_nan=False, allow_infinity=False)
maybe = st.none() | numbers
batches = st.dictionaries(texts, maybe, max_size=3)
rows = st.builds(
    RowParity, id=texts, text=texts, kind=st.sampled_from(["everyday", "stress"]),
    tokens=st.integers(0, 2**63), tokens_equal=st.booleans(), finite=st.booleans(),
    cosine=maybe, max_abs=maybe, norm=maybe, reference_norm=numbers, batch_cosine=batches, batch_norm=batches,
    nearest=st.none() | texts, nearest_cosine=maybe,
)  # fmt: skip
counts = st.integers(0, 2**63)
pairs = st.builds(
    PairsRecord, weights=counts, pairs=counts, saturating=counts, first=st.none() | texts, first_saturating=counts,
)  # fmt: skip
parts = st.builds(
    SweepPart, kind=texts, sequences=counts, finite=st.booleans(), token_cosine=maybe, token=counts,
    sequence_cosine=maybe, length=counts,
)  # fmt: skip
sweeps = st.builds(
    SweepRecord, ids=counts, lengths=counts, longest=counts, positions=counts,
    token_types=counts, sizes=st.lists(counts, max_size=2).map(tuple), undefined=st.lists(texts, max_size=2).map(tuple),
    states=st.booleans(), repeated=st.booleans(), parts=st.lists(parts, max_size=2).map(tuple),
)  # fmt: skip
tables = st.builds(TableRecord, rows=counts, unread=st.none() | texts, worst=maybe, token=counts)
lanes = st.builds(
    Lane, run=texts, target=texts, output=texts, runtime=texts, device=texts, threads=st.integers(0, 99), model=texts,
    artifact_digest=texts, spec=st.just(REPORT.spec), pairs=st.none() | pairs,
    operators=st.none() | st.lists(texts, max_size=2).map(tuple),
    facts=st.dictionaries(texts, texts, max_size=2), requested=st.booleans(), unavailable=st.none() | texts,
    failed=st.none() | texts, pooling_seen=st.none() | texts, sweep=st.none() | sweeps, table=st.none() | tables,
    rows=st.lists(rows, max_size=3).map(tuple),
)  # fmt: skip


@given(lanes=st.lists(lanes, max_size=2).map(tuple), name=texts)
@settings(max_examples=100, deadline=None)
def test_any_report_comes_back_as_it_was(lanes, name, tmp_path_factory):
    report = REPORT.model_copy(update={"lanes": lanes, "runs": {name: RUN}})
    path = tmp_path_factory.mktemp("report") / "parity.json"
    written = write_report(report, path)
    assert read_report(path) == written
    assert written.digest == written.computed_digest
    assert written.model_copy(update={"digest": ""}) == report.model_copy(update={"digest": ""})


def test_the_same_report_gives_the_same_bytes(tmp_path):
    write_report(REPORT, tmp_path / "a.json")
    write_report(read_report(tmp_path / "a.json"), tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert json.loads((tmp_path / "a.json").read_bytes())["schema"] == SCHEMA


def test_a_report_says_neither_passed_nor_failed(tmp_path):
    write_report(REPORT, tmp_path / "a.json")
    words = (tmp_path / "a.json").read_text("utf-8").lower()
    assert not [word for word in ("verdict", "passed", "refused", "threshold") if word in words]


def test_an_edited_report_can_be_read_and_is_seen(tmp_path):
    path = tmp_path / "parity.json"
    write_report(REPORT, path)
    fields = json.loads(path.read_bytes())
    fields["lanes"][0]["rows"][0]["cosine"] = 0.5
    path.write_text(json.dumps(fields), "utf-8")
    report = read_report(path)
    assert report.digest == REPORT.digest != report.computed_digest


def test_every_fact_is_in_the_digest():
    def paths(value, here=()):
        if isinstance(value, dict | list):
            for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
                yield from paths(inner, (*here, key))
        else:
            yield here

    small = REPORT.model_copy(
        update={"lanes": (REPORT.lanes[0].model_copy(update={"rows": REPORT.lanes[0].rows[:1]}),)}
    )
    fields = json.loads(json.dumps(small.model_dump(mode="json")))
    kept = set()
    for path in paths(fields):
        if path in (("schema",), ("digest",)) or path[-1] in ("kind", "pooling"):
            continue
        spoilt = json.loads(json.dumps(fields))
        inner = spoilt
        for key in path[:-1]:
            inner = inner[key]
        old = inner[path[-1]]
        inner[path[-1]] = (
            not old if isinstance(old, bool) else "x" if isinstance(old, str) else "y" if old is None else 7
        )
        if path[-1] in ("cosine", "nearest_cosine") and old is None:
            inner[path[-1]] = 7.0
        if path[-1] == "other_token_ids":
            inner[path[-1]] = ["x"]
        if path[-1] == "client":
            inner["client"] = {"tokens": 1, "tokens_equal": True, "finite": True, "cosine": None, "norm": None}
        kept.add(ParityReport.model_validate_json(json.dumps(spoilt)).computed_digest)
    assert len(kept) > 50
    assert small.computed_digest not in kept


def change(path, edit):
    fields = json.loads(path.read_bytes())
    edit(fields)
    path.write_text(json.dumps(fields), "utf-8")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda f: f.update(schema="bge_export.parity/9"), "schema"),
        (lambda f: f.pop("schema"), "schema"),
        (lambda f: f.pop("digest"), "digest"),
        (lambda f: f.pop("lanes"), "lanes"),
        (lambda f: f.update(extra=1), "extra"),
        (lambda f: f["lanes"][0].pop("artifact_digest"), "artifact_digest"),
        (lambda f: f["lanes"][0]["rows"][0].pop("finite"), "lanes.0.rows.0.finite"),
        (lambda f: f["lanes"][0]["rows"][0].pop("kind"), "lanes.0.rows.0.kind: Field required"),
        (lambda f: f["lanes"][0]["rows"][0].update(kind="odd"), "lanes.0.rows.0.kind"),
        (lambda f: f["lanes"][0]["rows"][0].update(cosine="1.0"), "lanes.0.rows.0.cosine"),
        (lambda f: f["lanes"][0]["rows"][0].update(cosine=True), "lanes.0.rows.0.cosine"),
        (lambda f: f["lanes"][0]["rows"][0].update(tokens_equal=1), "lanes.0.rows.0.tokens_equal"),
        (lambda f: f["lanes"][0]["rows"][0].update(cosine=float("nan")), "lanes.0.rows.0.cosine"),
        (lambda f: f["lanes"][0]["rows"][0].update(reference_norm=float("inf")), "lanes.0.rows.0.reference_norm"),
        (lambda f: f["lanes"][0]["rows"][0]["batch_cosine"].update({"4": float("nan")}), "batch_cosine.4"),
    ],
)
def test_a_report_of_another_shape_cannot_be_read(tmp_path, edit, message):
    path = tmp_path / "parity.json"
    write_report(REPORT, path)
    change(path, edit)
    with pytest.raises(ReportError, match=message) as caught:
        read_report(path)
    assert str(path) in str(caught.value)
    assert caught.value.exit_status == 3


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"schema": 1e999}'])
def test_a_file_that_is_no_report(tmp_path, content):
    path = tmp_path / "parity.json"
    path.write_bytes(content)
    with pytest.raises(ReportError, match=r"parity\.json"):
        read_report(path)


def test_a_report_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "parity.json"
    write_report(REPORT, path)
    before = path.read_bytes()

    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(ReportError, match="No space left"):
        write_report(REPORT.model_copy(update={"lanes": ()}), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_does_not_exist(tmp_path):
    with pytest.raises(ReportError, match="cannot be written"):
        write_report(REPORT, tmp_path / "no" / "parity.json")


def test_a_report_that_cannot_be_read_names_commands_and_files_that_exist(tmp_path):
    with pytest.raises(ReportError, match="bge-export parity FOLDER --reference MODEL"):
        read_report(tmp_path / "no.json")
    with pytest.raises(ReportError, match=r"is a folder.*Give .*parity\.json"):
        read_report(tmp_path)
