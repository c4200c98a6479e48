"""The committed fixtures are what they claim to be, and what the scripts would write today."""

import json
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import architectures
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file
from tokenizers import Tokenizer
from transformers import AutoModel, AutoTokenizer

from bge_export.checkpoint.opening import open_checkpoint
from bge_export.heads.dense import dense_head
from bge_export.texts.corpus import builtin_corpus
from scripts import make_fixtures

FIXTURES = Path(__file__).resolve().parent.parent / "parity_fixtures"
TEXTS = FIXTURES / "texts.jsonl"
TINY = FIXTURES / "tiny"
QUERY = "Represent this sentence for searching relevant passages: "
QUERY_ZH = "为这个句子生成表示以用于检索相关文章："
TAGS = {
    "accents", "arabic", "astral", "boundary", "case", "character", "chinese", "code", "control", "dialogue", "emoji",
    "empty", "greek", "headline", "hebrew", "hindi", "identifier", "japanese", "korean", "legal", "long", "long-word",
    "markup", "medical", "negation", "pair", "paragraph", "poem", "product", "published", "query", "query-zh",
    "question", "recipe", "repeated", "russian", "sentence", "short", "special-token", "thai", "truncated", "turkish",
    "vietnamese", "whitespace", "width",
}  # fmt: skip
STRESS = {
    "arabic", "astral", "boundary", "character", "control", "emoji", "empty", "greek", "hebrew", "hindi", "japanese",
    "korean", "long-word", "repeated", "russian", "special-token", "thai", "turkish", "vietnamese", "whitespace",
}  # fmt: skip
CHINESE = {"chinese", "query-zh"}
PUBLISHED = {"I love cool flags!", "hello world", "flag embedding", "书", "hi", "hello", "你好", "您好"}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Sum in the order in which the golden vectors were summed; threads only get in each other's way here."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def rows() -> list[dict[str, str]]:
    return [json.loads(line) for line in TEXTS.read_text(encoding="utf-8").split("\n") if line]


def by_tag(tag: str) -> list[str]:
    return [row["text"] for row in rows() if row["tag"] == tag]


# -------------------------------------------------------------------------------------------------------- texts


def test_texts_are_well_formed():
    assert len(rows()) >= 110
    assert all({"id", "tag", "text"} <= row.keys() <= {"id", "tag", "kind", "language", "text"} for row in rows())
    ids = [row["id"] for row in rows()]
    assert len(set(ids)) == len(ids)
    assert all(part.isalnum() and part.isascii() and part == part.lower() for name in ids for part in name.split("-"))
    assert len({row["text"] for row in rows()}) == len(ids)
    assert not any("\x00" in row["text"] for row in rows())
    assert TEXTS.stat().st_size < 150_000


def test_every_kind_of_text_is_there():
    assert {row["tag"] for row in rows()} == TAGS
    assert set(by_tag("published")) == PUBLISHED
    assert by_tag("empty") == [""]
    assert {text.count("hello ") for text in by_tag("boundary")} == {508, 509, 510, 511, 512}
    assert sum(text.startswith(QUERY) for text in by_tag("query")) >= 8
    assert sum(text.startswith(QUERY_ZH) for text in by_tag("query-zh")) >= 3


def test_texts_that_nobody_embeds_are_stress_and_chinese_ones_say_so():
    corpus = builtin_corpus()
    assert {text.tag for text in corpus.texts if text.kind == "stress"} == STRESS | {"truncated"}
    assert {text.id for text in corpus.texts if text.tag == "truncated" and text.kind == "stress"} == {
        "truncated-one-word"
    }
    assert all(text.kind == "stress" for text in corpus.texts if text.tag in STRESS)

    chinese = [text for text in corpus.texts if text.language]
    assert {(text.language, text.kind) for text in chinese} == {("zh", "everyday")}
    assert {text.tag for text in chinese} >= CHINESE
    assert all(text.language for text in corpus.texts if text.tag in CHINESE)
    assert all(any("\u4e00" <= letter <= "\u9fff" for letter in text.text) for text in chinese)


def test_a_word_is_there_in_both_normal_forms():
    texts = by_tag("accents")
    both = [text for text in texts if unicodedata.normalize("NFD", text) in texts and not text.isascii()]
    assert len(both) == 2
    assert both[0] != both[1]


def test_invisible_characters_are_escaped_in_the_file():
    written = TEXTS.read_text(encoding="utf-8")
    assert not [
        letter for letter in written if unicodedata.category(letter) in ("Cc", "Cf", "Zl", "Zp") and letter != "\n"
    ]


def test_texts_fall_on_both_sides_of_the_limit():
    tokenizer = Tokenizer.from_file(str(TINY / "tokenizer.json"))
    lengths = {row["id"]: len(tokenizer.encode(row["text"]).ids) for row in rows()}
    assert [lengths[f"boundary-hello-{count}"] for count in range(508, 513)] == [510, 511, 512, 513, 514]
    assert all(lengths[row["id"]] > 512 for row in rows() if row["tag"] == "truncated")
    assert sum(length >= 512 for length in lengths.values()) <= 8
    assert np.median(list(lengths.values())) < 64


# --------------------------------------------------------------------------------------------------------- tiny


@pytest.fixture(scope="module")
def states() -> list[torch.Tensor]:
    """Return the last hidden state of every text."""
    return list(make_fixtures.states(TINY, [row["text"] for row in rows()]))


@pytest.fixture(scope="module")
def weights() -> dict[str, NDArray[np.float32]]:
    return load_file(TINY / "model.safetensors")


def test_tiny_is_what_the_script_writes(tmp_path):
    make_fixtures.write_tiny(tmp_path)
    written, committed = make_fixtures.content(tmp_path), make_fixtures.content(TINY)
    assert written.keys() == committed.keys()
    assert [name for name in written if written[name] != committed[name]] == []


def test_tiny_is_small():
    assert sum(len(data) for data in make_fixtures.content(TINY).values()) < 1_000_000


def test_tiny_opens_as_a_checkpoint():
    checkpoint = open_checkpoint(TINY)
    assert (checkpoint.source, checkpoint.model_type, checkpoint.token_types) == ("tiny", "bert", True)
    assert (
        dense_head(checkpoint.spec).dim,
        checkpoint.spec.inputs.max_tokens,
        dense_head(checkpoint.spec).pooling,
    ) == (64, 512, "cls")
    assert dense_head(checkpoint.spec).normalize
    assert checkpoint.spec.inputs.prompts["query"] == QUERY


def test_tiny_weights_are_exact_in_float16(weights):
    for name, tensor in weights.items():
        assert tensor.dtype == np.float32
        assert np.array_equal(tensor.astype(np.float16).astype(np.float32), tensor), name


def test_both_readers_of_the_tokenizer_agree():
    plain, tokenizer = Tokenizer.from_file(str(TINY / "tokenizer.json")), AutoTokenizer.from_pretrained(TINY)
    texts = [row["text"] for row in rows()]
    for text in texts:
        encoding = plain.encode(text)
        assert tokenizer(text, verbose=False)["input_ids"] == encoding.ids, text
    assert tokenizer.backend_tokenizer.normalizer.__getstate__() == plain.normalizer.__getstate__()


def test_cls_is_far_from_the_mean(states):
    cls = make_fixtures.normalized(state[0] for state in states)
    mean = make_fixtures.normalized(state.mean(dim=0) for state in states)
    cosines = (cls * mean).sum(axis=1)
    assert np.mean(cosines < 0.9) > 0.8
    assert np.median(cosines) < 0.85


def test_different_texts_are_far_apart(states):
    tokenizer = Tokenizer.from_file(str(TINY / "tokenizer.json"))
    distinct = {tuple(tokenizer.encode(row["text"]).ids[:511]): i for i, row in enumerate(rows())}
    vectors = make_fixtures.normalized(states[index][0] for index in distinct.values())
    cosines = (vectors @ vectors.T)[np.triu_indices(len(vectors), 1)]
    assert len(distinct) > 130
    assert np.mean(cosines < 0.95) > 0.99


def test_outliers_stand_where_the_real_model_has_them():
    model = AutoModel.from_pretrained(TINY, add_pooling_layer=False, attn_implementation="eager").eval()
    seen: dict[tuple[str, int], torch.Tensor] = {}
    for index, layer in enumerate(model.encoder.layer):
        for name, module in (("norm", layer.attention.output.LayerNorm), ("neurons", layer.intermediate)):
            module.register_forward_hook(
                lambda _module, _inputs, output, key=(name, index): seen.update({key: output[0].abs()})
            )
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    with torch.inference_mode():
        model(**tokenizer(by_tag("paragraph")[0], return_tensors="pt"))
    for (name, index), values in seen.items():
        largest = values.max(dim=0).values / values.median()
        if name == "norm":
            assert set(largest.topk(3).indices.tolist()) == set(make_fixtures.OUTLIER_CHANNELS)
            assert float(largest.topk(3).values.min()) > 8
            assert float(largest.max()) < 40
        else:
            assert int(largest.argmax()) == make_fixtures.OUTLIER_NEURONS[index]
            assert float(largest.max()) > 2 * float(largest.topk(2).values[1])


@pytest.mark.parametrize("position", ["first", "middle", "last"])
def test_every_part_of_a_text_tells(position):
    tokenizer, model = AutoTokenizer.from_pretrained(TINY), AutoModel.from_pretrained(TINY, add_pooling_layer=False)
    ids = tokenizer(by_tag("paragraph")[1], return_tensors="pt")["input_ids"]
    other = ids.clone()
    other[0, {"first": 1, "middle": ids.shape[1] // 2, "last": ids.shape[1] - 2}[position]] = 500
    with torch.inference_mode():
        vectors = make_fixtures.normalized(model(input_ids=row).last_hidden_state[0, 0] for row in (ids, other))
    assert 1 - vectors[0] @ vectors[1] > 1e-4


# ------------------------------------------------------------------------------------------------------- golden


def golden_files() -> Iterator[tuple[NDArray[np.float32], list[str], dict[str, dict[str, object]]]]:
    for path in sorted((FIXTURES / "golden").glob("*.npz")):
        with np.load(path, allow_pickle=False) as arrays:
            vectors, ids = arrays["vectors"], arrays["ids"].tolist()
        yield vectors, ids, json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))


def test_golden_vectors_are_of_these_texts():
    corpus = builtin_corpus()
    names = []
    for vectors, ids, provenance in golden_files():
        assert ids == [text.id for text in corpus.texts]
        assert provenance["texts"]["digest"] == corpus.digest
        assert vectors.shape == (len(ids), provenance["checkpoint"]["spec"]["heads"]["dense"]["dim"])
        assert vectors.dtype == np.float32
        assert np.allclose(np.linalg.norm(vectors.astype(np.float64), axis=1), 1, rtol=0, atol=1e-6)
        names.append(provenance["checkpoint"]["name"])
    assert names == ["bge-small-en", "bge-small-zh", "tiny"]


def test_golden_vectors_of_tiny_are_reproduced(states):
    digest = open_checkpoint(TINY).digest
    with np.load(FIXTURES / "golden" / f"tiny@{digest[:12]}.npz", allow_pickle=False) as arrays:
        golden = arrays["vectors"]
    # float32 sums in another order, on another processor, differ by 1e-6 here; a mistake differs by 1e-3.
    assert np.abs(make_fixtures.normalized(state[0] for state in states) - golden).max() < 3e-6


# Checkpoint, id of the text, components, what another project published of them, and how far its digits reach.
PUBLISHED_VECTORS = [
    ("bge-small-en", "published-cool-flags", (0, 1, 382, 383),
     (-0.0440094993, 0.0160218030, -0.0074426383, -0.0055019930), 1e-6),
    ("bge-small-en", "published-hello-world", (0, 1, 2, 3, 4),
     (-0.02313, -0.02552, 0.017357, -0.06393, -0.00061), 1e-4),
    ("bge-small-zh", "published-shu", (0, 1, 510, 511),
     (-0.0019266217, 0.0233149417, 0.0478256717, 0.0256523509), 1e-6),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text_id", "components", "expected", "tolerance"), PUBLISHED_VECTORS)
def test_golden_vectors_agree_with_published_ones(name, text_id, components, expected, tolerance):
    found = {provenance["checkpoint"]["name"]: (vectors, ids) for vectors, ids, provenance in golden_files()}
    vectors, ids = found[name]
    assert np.abs(vectors[ids.index(text_id)][list(components)] - expected).max() < tolerance


# ------------------------------------------------------------------------------------------------ architectures


@pytest.mark.parametrize("kind", architectures.KINDS)
def test_every_architecture_loads_and_tells_texts_apart(kind, tmp_path):
    folder = architectures.build(kind, tmp_path, "mean")
    tokenizer, plain = AutoTokenizer.from_pretrained(folder), Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text in architectures.SAMPLES:
        assert tokenizer(text, verbose=False)["input_ids"] == plain.encode(text).ids, text
    model = AutoModel.from_pretrained(folder).eval()
    distinct = list({tuple(plain.encode(text).ids): text for text in architectures.SAMPLES}.values())
    batch = tokenizer(distinct, padding=True, truncation=True, return_tensors="pt")
    assert batch["input_ids"].shape[1] == architectures.MAX_TOKENS
    with torch.inference_mode():
        vectors = make_fixtures.normalized(model(**batch).last_hidden_state[:, 0])
    assert np.isfinite(vectors).all()
    assert (vectors @ vectors.T - 2 * np.eye(len(vectors))).max() < 0.99


@pytest.mark.parametrize("pooling", ["cls", "mean", "last"])
@pytest.mark.parametrize("kind", architectures.KINDS)
def test_every_architecture_opens_as_a_checkpoint(kind, pooling, tmp_path):
    checkpoint = open_checkpoint(architectures.build(kind, tmp_path / "model", pooling))
    assert (checkpoint.model_type, dense_head(checkpoint.spec).pooling) == (kind, pooling)
    assert (dense_head(checkpoint.spec).dim, checkpoint.spec.inputs.max_tokens) == (
        architectures.HIDDEN,
        architectures.MAX_TOKENS,
    )
    assert checkpoint.token_types == (kind == "bert")
