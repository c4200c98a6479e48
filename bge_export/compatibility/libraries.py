"""How libraries and servers read a folder, as a table: what they take from its files, and what they must be told.

What differs from the folder is wrong without a word, so `check` says it with the setting that mends it. Measured in
each library (`scripts/consumers` repeats most); Vespa and text-embeddings-inference were read in their source.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from bge_export.contracts import COMMON_POOLINGS, Pooling

ONNX = ("onnx/model.onnx", "model.onnx")
OPENVINO = ("openvino_model.xml", "openvino/openvino_model.xml")
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
FIRST_OR_MEAN: tuple[Pooling, ...] = ("cls", "mean")


@dataclass(frozen=True)
class LibraryFacts:
    """How a library reads a folder.

    Attributes:
        files: the files that it opens unasked, the first that is there.
        other_file: the setting that names another ONNX or OpenVINO file, with `{file}`; "" if there is none.
        pooling: `folder` if it reads the folder's own, the pooling that it takes unasked, or `states` if it returns the
            states of all tokens.
        poolings: those that it has.
        set_pooling: the setting, with `{pooling}`; "" if there is none.
        norm: `folder` if it divides by the norm where the folder says so, `always`, or `asked` if only when told.
        set_norm: the setting that divides; "" if there is none.
        set_prompt: how queries get the folder's prompt, with `{prompt}`; "" if they get it unasked.
        truncates: `folder` if it reads the longest input from the settings, `tokenizer` if only from `tokenizer.json`,
            or `asked`.
        set_length: the setting that truncates, with `{tokens}`.
        layers: `folder` if it applies the modules after pooling, `asked` if it returns what graphs give, or `skipped`.
        set_layers: how the embedding of the graph is read, if `asked`.
        remark: what else to know; "" if nothing.
    """

    files: tuple[str, ...]
    other_file: str = ""
    pooling: Literal["folder", "states"] | Pooling = "folder"
    poolings: tuple[Pooling, ...] = COMMON_POOLINGS
    set_pooling: str = ""
    norm: Literal["folder", "always", "asked"] = "folder"
    set_norm: str = ""
    set_prompt: str = ""
    truncates: Literal["folder", "tokenizer", "asked"] = "folder"
    set_length: str = ""
    layers: Literal["folder", "asked", "skipped"] = "skipped"
    set_layers: str = ""
    remark: str = ""


BY_HAND = LibraryFacts(
    (),
    pooling="states",
    set_pooling="take it from last_hidden_state yourself",
    norm="asked",
    set_norm="divide the vectors yourself",
    set_prompt="put {prompt!r} before each query",
    truncates="asked",
    set_length="tokenizer(…, truncation=True)",
    layers="asked",
    set_layers="take sentence_embedding of the outputs, in place of pooled states",
)
"""A library that returns what the model does."""

FASTEMBED = LibraryFacts(
    ONNX[:1],
    "model_file={file!r}",
    "states",
    FIRST_OR_MEAN,
    "add_custom_model(pooling=PoolingType.{POOLING})",
    "asked",
    "add_custom_model(normalization=True)",
    "embed([{prompt!r} + query]): query_embed puts nothing before a query",
)

LIBRARIES: Mapping[str, LibraryFacts] = MappingProxyType(
    {
        "sentence-transformers@5": LibraryFacts(
            (*WEIGHTS, *ONNX, *OPENVINO),
            'backend="onnx", model_kwargs={{"file_name": {file!r}}}',
            set_prompt='encode_query(…), or encode(…, prompt_name="query"): encode alone puts nothing before a query',
            layers="folder",
        ),
        "sentence-transformers@6": LibraryFacts(
            (*WEIGHTS, *OPENVINO),
            'backend="openvino", model_kwargs={{"file_name": {file!r}}}',
            set_prompt='encode_query(…), or encode(…, prompt_name="query"): encode alone puts nothing before a query',
            layers="folder",
            remark="its ONNX backend needs optimum-onnx, which cannot be installed beside transformers 5",
        ),
        "transformers": replace(BY_HAND, files=WEIGHTS, layers="skipped", set_layers=""),
        "optimum-onnx": replace(BY_HAND, files=ONNX, other_file="file_name={name!r}, without its folder"),
        "optimum-intel": replace(BY_HAND, files=OPENVINO[:1], other_file="file_name={file!r}"),
        "flagembedding": LibraryFacts(
            WEIGHTS,
            pooling="cls",
            set_pooling='pooling_method="{pooling}"',
            norm="always",
            set_prompt="query_instruction_for_retrieval={prompt!r}",
        ),
        "fastembed": FASTEMBED,
        "qdrant-client": FASTEMBED,
        "fastembed-rs": LibraryFacts(
            ONNX,
            "read {file!r} as the model's bytes",
            "cls",
            FIRST_OR_MEAN,
            "with_pooling(Pooling::{Pooling})",
            "always",
            set_prompt="put {prompt!r} before each query",
            truncates="asked",
            set_length="with_max_length({tokens})",
        ),
        "langchain": LibraryFacts(
            WEIGHTS, set_prompt='query_encode_kwargs={{"prompt_name": "query"}}', layers="folder"
        ),
        "llama-index": LibraryFacts(
            WEIGHTS,
            set_prompt="query_instruction={prompt!r}: it replaces the folder's own prompt by none",
            layers="folder",
        ),
        "chromadb": LibraryFacts(
            WEIGHTS, set_prompt="embed_query puts nothing before a query: put {prompt!r} there", layers="folder"
        ),
        "txtai": LibraryFacts(
            WEIGHTS,
            set_prompt='instructions={{"query": {prompt!r}}}',
            remark="give it the folder: of a bare ONNX file it always takes the mean",
        ),
        "lancedb": LibraryFacts(
            WEIGHTS,
            set_prompt="put {prompt!r} before each query",
            layers="folder",
            remark='take its function "sentence-transformers": "huggingface" takes the mean and divides nothing',
        ),
        "langchain4j": LibraryFacts(
            ONNX,
            "give the path of {file!r}",
            "states",
            FIRST_OR_MEAN,
            "PoolingMode.{POOLING}",
            "always",
            set_prompt="put {prompt!r} before each query",
            truncates="tokenizer",
            set_length="export the folder again: tokenizer.json must truncate",
        ),
        "tei": LibraryFacts(
            ("model.onnx", "onnx/model.onnx"),
            norm="always",
            set_prompt="--default-prompt-name query, or prompt_name in the request",
            truncates="asked",
            set_length="--auto-truncate",
            remark="it opens no other file than these, so int8 needs a folder in which it has that name",
        ),
        "vespa": LibraryFacts(
            ONNX,
            'transformer-model path="{file}"',
            "mean",
            FIRST_OR_MEAN,
            "<pooling-strategy>{pooling}</pooling-strategy>",
            "asked",
            "<normalize>true</normalize>",
            "<prepend><query>{prompt}</query></prepend>",
            "asked",
            "<max-tokens>{tokens}</max-tokens>",
        ),
    }
)
"""Target -> facts."""
