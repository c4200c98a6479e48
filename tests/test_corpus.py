import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bge_export.errors import TextsError
from bge_export.texts.corpus import Corpus, Text, builtin_corpus, load_corpus
from bge_export.texts.fixtures import fixtures_folder


def written(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def texts(corpus):
    return [text.text for text in corpus.texts]


def test_the_package_brings_its_texts():
    corpus = builtin_corpus()
    assert len(corpus.texts) > 100
    assert "" in texts(corpus)
    assert len({text.id for text in corpus.texts}) == len(corpus.texts)
    assert (fixtures_folder() / "thresholds.toml").is_file()


def test_a_line_of_txt_is_a_text_as_it_is(tmp_path):
    path = written(tmp_path, "a.txt", "\ufeff one \n\nthree\tx\r\n\u2028four\x0c\x1c")
    assert texts(load_corpus(path)) == [" one ", "", "three\tx", "\u2028four\x0c\x1c"]
    assert [text.id for text in load_corpus(path).texts] == ["1", "2", "3", "4"]


@pytest.mark.parametrize("content", ["a\nb", "a\nb\n"])
def test_the_last_newline_is_no_text(tmp_path, content):
    assert texts(load_corpus(written(tmp_path, "a.txt", content))) == ["a", "b"]


def test_jsonl_keeps_ids_and_tags(tmp_path):
    lines = ['{"text": "x", "id": "i", "tag": "t", "other": 1}', "", '{"text": "\\u0000\\n"}']
    corpus = load_corpus(written(tmp_path, "a.jsonl", "\n".join(lines)))
    assert corpus.texts == (Text("i", "x", "t"), Text("3", "\x00\n", ""))


def test_jsonl_says_of_what_kind_and_in_which_language_a_text_is(tmp_path):
    lines = ['{"text": "x", "kind": "stress"}', '{"text": "你", "language": "zh", "kind": "everyday"}', '{"text": "y"}']
    corpus = load_corpus(written(tmp_path, "a.jsonl", "\n".join(lines)))
    assert [(text.kind, text.language) for text in corpus.texts] == [
        ("stress", ""),
        ("everyday", "zh"),
        ("everyday", ""),
    ]


@pytest.mark.parametrize("kind", ['"odd"', '""', '"Stress"', "1", "null", "[]", "{}"])
def test_a_kind_that_there_is_not_is_named_with_its_line(tmp_path, kind):
    content = f'{{"text": "x"}}\n{{"text": "y", "kind": {kind}}}\n'
    with pytest.raises(TextsError, match=r'a.jsonl, line 2: the kind .* is unknown. Write "kind": "everyday" or'):
        load_corpus(written(tmp_path, "a.jsonl", content))


def test_a_language_that_is_no_string_is_named_with_its_line(tmp_path):
    with pytest.raises(TextsError, match=r'line 1: "language" is not a string'):
        load_corpus(written(tmp_path, "a.jsonl", '{"text": "y", "language": 7}\n'))


def test_kinds_leave_the_digest_as_it_is():
    """Goldens and reference vectors are tied to ids and texts; a text may change its kind without new ones."""
    plain, marked = Text("a", "x", ""), Text("a", "x", "t", "stress", "zh")
    assert Corpus("c", (plain,)).digest == Corpus("c", (marked,)).digest


def test_texts_of_other_kinds_of_file_are_everyday(tmp_path):
    for name in ("a.txt", "a.tsv", "a.csv"):
        assert {text.kind for text in load_corpus(written(tmp_path, name, "text\n!\n")).texts} == {"everyday"}


def test_tsv_takes_the_named_column_and_quotes_mean_nothing(tmp_path):
    path = written(tmp_path, "a.tsv", 'id\ttext\n1\t"a\n2\tb"c\n')
    corpus = load_corpus(path, "text")
    assert texts(corpus) == ['"a', 'b"c']
    assert [text.id for text in corpus.texts] == ["2", "3"]


def test_csv_is_read_as_spreadsheets_write_it(tmp_path):
    path = written(tmp_path, "a.csv", 'id,text\n7,"one, ""two"""\n8,"first\nsecond"\n\n9,plain\n')
    texts = load_corpus(path, "text").texts
    assert [(text.id, text.text) for text in texts] == [("2", 'one, "two"'), ("3", "first\nsecond"), ("4", "plain")]


def test_csv_with_an_open_quote_is_no_text(tmp_path):
    with pytest.raises(TextsError, match=r"a\.csv, line 3: unexpected end of data"):
        load_corpus(written(tmp_path, "a.csv", 'text\none\n"two\n'))


def test_tsv_of_one_column_needs_no_name(tmp_path):
    assert texts(load_corpus(written(tmp_path, "a.tsv", "text\na\n\n"))) == ["a", ""]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "", "holds no texts"),
        ("a.tsv", "text\n", "holds no texts"),
        ("a.jsonl", "\n", "holds no texts"),
        ("a.txt", "\n \n\t\u3000\n", "every text is blank"),
        ("a.jsonl", '{"text": ""}', "every text is blank"),
        ("a.txt", "\u200b\u200d\n\ufeff \u2060\n\u00ad\u200f\n", "every text is blank"),
        ("a.jsonl", '{"text": "\\u0000\\u0007\\u001b"}', "every text is blank"),
        ("a.xlsx", "a", "unknown kind of file '.xlsx'"),
        ("a.txt", b"fine\nbad \xff", "line 2: not UTF-8"),
        ("a.jsonl", '{"text": "a"}\n{"text": ', "line 2: no JSON"),
        ("a.jsonl", "[" * 100_000, "line 1: no JSON"),
        ("a.jsonl", '{"txt": "a"}', 'line 1: no object with the key "text"'),
        ("a.jsonl", '"text"', "line 1: no object"),
        ("a.jsonl", '{"text": 1}', 'line 1: "text" is not a string'),
        ("a.jsonl", '{"text": "a", "id": 1}', 'line 1: "id" is not a string'),
        ("a.jsonl", '{"text": "a", "id": "x"}\n{"text": "b", "id": "x"}', "'x' appears twice"),
        ("a.jsonl", '{"text": "a", "id": "2"}\n{"text": "b"}', "'2' appears twice"),
        ("a.jsonl", '{"text": "a", "id": ""}', "empty id"),
        ("a.jsonl", '{"text": "\\ud800", "id": "half"}', "'half' holds half of a surrogate pair"),
        ("a.tsv", "a\tb\n1\t2\n", "2 columns: 'a', 'b'.*--column"),
        ("a.csv", "id;text\n1;the dog\n", "separates its columns by semicolons: 'id;text'"),
        ("a.txt", "t\0h\0e\0", "zero bytes.*Save the file as UTF-8"),
        ("a.tsv", "a\na\tb\n", "line 2: 2 cells, but 1 columns"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path, name, content, message):
    path = written(tmp_path, name, content)
    with pytest.raises(TextsError, match=message) as caught:
        load_corpus(path)
    assert str(path) in str(caught.value)
    assert caught.value.exit_status == 2


@pytest.mark.parametrize(("header", "count"), [("a\tb", 0), ("text\ttext", 2)])
def test_a_column_that_is_not_there_once(tmp_path, header, count):
    with pytest.raises(TextsError, match=f"{count} columns named 'text'"):
        load_corpus(written(tmp_path, "a.tsv", f"{header}\n1\t2\n"), "text")


def test_a_column_of_a_file_without_columns(tmp_path):
    with pytest.raises(TextsError, match=r"only \.tsv and \.csv files have columns"):
        load_corpus(written(tmp_path, "a.txt", "a"), "text")


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(TextsError, match="does not exist"):
        load_corpus(tmp_path / "no.txt")
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(TextsError, match="cannot be read"):
        load_corpus(tmp_path / "folder.txt")


some_texts = st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8)), max_size=4)


@given(one=some_texts, other=some_texts)
def test_the_digest_tells_any_two_corpora_apart(one, other):
    digests = [Corpus("n", tuple(Text(a, b, "") for a, b in pairs)).digest for pairs in (one, other)]
    assert (digests[0] == digests[1]) is (one == other)


def test_the_digest_is_of_ids_and_texts_only():
    assert Corpus("n", (Text("a", "b", "c"),)).digest == Corpus("m", (Text("a", "b", "d"),)).digest
    assert (
        Corpus("n", (Text("a", "b", ""),)).digest == "db8992cf941b185a1c5bbcfbdc3f43204fe09d42b1a57ff584f6ad2e5e6dfdbd"
    )  # printf '[["a","b"]]' | sha256sum


@given(content=st.lists(st.text(), min_size=1, max_size=5).map(lambda content: [*content, "a text"]))
@settings(max_examples=100)
def test_jsonl_gives_back_any_text(content, tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "a.jsonl"
    path.write_text(
        "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in content), "utf-8", newline=""
    )
    assert texts(load_corpus(path)) == content
