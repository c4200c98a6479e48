"""The environment in which cards and snippets are rendered, and what their templates are told of an embedding."""

import json
import re
from collections.abc import Mapping

from jinja2 import Environment, PackageLoader, StrictUndefined

from bge_export.contracts import ModelSpec
from bge_export.heads.dense import dense_head
from bge_export.javascript.clients import CLIENTS

ORDER = ("q8", "fp16", "fp32")
"""Preferred dtype of the examples: the smallest file that every client and host of the examples loads. If the folder
has none of these, the examples use a dtype that version 2.5 has no name for, and the example for 2.5 is left out."""
PLAIN = re.compile(r"[A-Za-z][\w./-]*", re.ASCII)
"""Text that YAML reads as itself, with the exception of a few words that `_yaml` quotes."""


def values(spec: ModelSpec, repository: str, dtypes: set[str]) -> Mapping[str, object]:
    """Return the template variables that describe what is answered, and the dtype of the examples."""
    dtype = next((name for name in ORDER if name in dtypes), min(dtypes, default="fp32"))
    shared = {
        "id": repository,
        "local": None,
        "pairs": spec.is_reranker,
        "tokens": spec.has_token_heads,
        "max_tokens": spec.inputs.max_tokens,
        "dtype": dtype,
    }
    if spec.is_reranker:
        return {**shared, "prompts": {}}
    if spec.has_token_heads:
        unused = list(getattr(spec.heads.get("sparse"), "unused", ()))
        own = {"outputs": list(spec.outputs), "unused": unused, "pooling": "cls"}
        return {**shared, **own, "prompts": spec.inputs.prompts}

    head = dense_head(spec)
    return {
        **shared,
        "dim": head.dim,
        "layers": [str(layer) for layer in head.layers],
        "in_graph": head.in_graph,
        "normalize": str(head.normalize).lower(),
        "prompts": spec.inputs.prompts,
        "query_prefix": spec.inputs.prompts.get("query", ""),
        "pooling": {"last": "last_token"}.get(head.pooling, head.pooling),
        "quantized": str("q8" in dtypes).lower(),
        "oldest": not dtypes or not {"q8", "fp32"}.isdisjoint(dtypes),
        "version": {4: CLIENTS["4"].version, 3: CLIENTS["3"].version, 2: CLIENTS["2.5"].version},
    }


def environment() -> Environment:
    """Return the template environment; the output is Markdown or source about a checkpoint that was exported."""
    made = Environment(
        loader=PackageLoader("bge_export.publish"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        autoescape=False,  # noqa: S701 - Markdown and source, not HTML
    )
    made.filters |= {"yaml": _yaml, "code": _code, "js": _js, "tojson": _json}
    return made


def _json(value: object) -> str:
    """Return a value as a literal that JSON, Python, Java and Rust read alike; Jinja's own filter escapes for HTML."""
    return json.dumps(value, ensure_ascii=False)


def _js(text: str) -> str:
    """Return a text as a JavaScript string in single quotes."""
    return "'" + json.dumps(text, ensure_ascii=False)[1:-1].replace('\\"', '"').replace("'", "\\'") + "'"


def _yaml(text: str) -> str:
    """Return a text as YAML reads it back."""
    words = {"yes", "no", "true", "false", "null", "on", "off", "y", "n"}
    return text if PLAIN.fullmatch(text) and text.lower() not in words else json.dumps(text)


def _code(text: str) -> str:
    """Return a text as code in a cell of a Markdown table, with visible spaces at its ends."""
    quoted = json.dumps(text, ensure_ascii=False).replace("|", "\\|")
    longest = max(map(len, re.findall("`+", quoted)), default=0)
    fence = "`" * (longest + 1)
    return f"{fence} {quoted} {fence}" if longest else f"`{quoted}`"
