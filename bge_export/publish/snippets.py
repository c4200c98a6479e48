"""The snippet that embeds a text with one folder in one place: a language, a host or a database."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bge_export.bundle.manifest import Manifest, Model, read_manifest
from bge_export.contracts import COMMON_POOLINGS, POOLINGS, SENTENCE_EMBEDDING
from bge_export.errors import UsageError
from bge_export.heads.dense import dense_head
from bge_export.javascript.clients import CLIENTS, FILES
from bge_export.publish.card import FORMATS, chosen_models
from bge_export.publish.facts import REPOSITORY, facts_of
from bge_export.publish.rendering import environment, values

NOWHERE = "ORGANISATION/NAME"
"""The repository in snippets that need one, as long as nobody gave one."""

PYTHON: Mapping[str, str] = {
    "onnx": "onnxruntime tokenizers numpy",
    "openvino": "openvino tokenizers numpy",
    "torchscript": "torch tokenizers numpy",
}
"""Format -> what its snippet in Python imports."""


@dataclass(frozen=True)
class Place:
    """Where a folder is used.

    Attributes:
        template: the file of its snippet; "" for Python, which has one for each format.
        install: the command or coordinates that bring what the snippet imports.
        needs: the format that it runs, `client` for a file that Transformers.js has a name for; None for any.
        comment: how a comment begins.
        prompts: whether the snippet itself embeds a query with its prompt.
        poolings: the poolings that its library has.
        divides: whether its library divides by the norm whatever the folder says.
        layers: whether the snippet gives what follows pooling too: libraries that pool by themselves leave it out.
    """

    template: str
    install: str
    needs: str | None = None
    comment: str = "#"
    prompts: bool = False
    poolings: tuple[str, ...] = POOLINGS
    divides: bool = False
    layers: bool = True


PLACES: Mapping[str, Place] = {
    "python": Place("", "pip install"),
    "sentence-transformers": Place("sentence_transformers.py.j2", "pip install 'sentence-transformers[onnx]<6'"),
    "js": Place(
        "node.js.j2", f"npm install @huggingface/transformers@{CLIENTS['4'].version}", "client", "//", layers=False
    ),
    "deno": Place("deno.ts.j2", "deno run --allow-all FILE", "client", "//", layers=False),
    "supabase": Place("supabase.ts.j2", "supabase functions deploy NAME", "client", "//", layers=False),
    "java": Place(
        "java.java.j2",
        "dev.langchain4j:langchain4j-embeddings:1.19.0-beta29",
        "onnx",
        "//",
        prompts=True,
        poolings=("cls", "mean"),
        divides=True,
        layers=False,
    ),
    "rust": Place(
        "rust.rs.j2",
        "cargo add fastembed@7",
        "onnx",
        "//",
        prompts=True,
        poolings=("cls", "mean"),
        divides=True,
        layers=False,
    ),
    "chroma": Place("chroma.py.j2", "pip install 'bge-export[onnxruntime]' chromadb", prompts=True),
    "qdrant": Place("qdrant.py.j2", "pip install 'bge-export[onnxruntime]' qdrant-client", prompts=True),
    "pgvector": Place(
        "pgvector.py.j2", "pip install 'bge-export[onnxruntime]' 'psycopg[binary]' pgvector", prompts=True
    ),
}
"""Name -> place."""


CLIENT_NAME = re.compile(r"(?!.*(\.\.|--|\.git$|\.ipynb$))\w([\w.-]{0,94}\w)?", re.ASCII)
"""A name that Transformers.js looks for below `env.localModelPath`; any other is a path to it."""


@dataclass(frozen=True)
class Local:
    """A folder on this disk, as snippets name it: whole, and for Transformers.js as a name below a parent."""

    path: str
    parent: str
    name: str

    @classmethod
    def of(cls, folder: Path) -> "Local":
        """Return the names of a folder."""
        path = folder.as_posix()
        return cls(path, folder.parent.as_posix(), folder.name if CLIENT_NAME.fullmatch(folder.name) else path)


def snippet(folder: Path, place: str, *, precision: str | None = None, repository: str | None = None) -> str:
    """Return source that embeds texts with a folder, below comments that say what to install and how queries begin.

    Args:
        folder: the folder; the snippet opens it by this path.
        place: a key of `PLACES`.
        precision: the precision of the model; by default the smallest that every client loads for Transformers.js, and
            the most exact one elsewhere.
        repository: the folder's repository on the Hub, from which the snippet fetches it in place of this disk.

    Raises:
        UsageError: there is no such place, the folder lacks what it needs, or its library cannot pool as promised.
        ArtifactError: the folder holds no valid manifest.
    """
    if place not in PLACES:
        raise UsageError(f"there is no snippet for {place!r}, only for {', '.join(PLACES)}.")
    if repository is not None and not REPOSITORY.fullmatch(repository):
        raise UsageError(f"{repository!r} is not a repository on the Hub. Give ORGANISATION/NAME.")

    manifest, where = read_manifest(folder), PLACES[place]
    _refuse_pooling(folder, place, manifest)
    models = _models(folder, manifest, precision)
    format_name = _format(folder, place, models)

    facts = facts_of(folder)
    on_disk = repository is None and place != "supabase"
    named = repository or (facts.id if facts is not None else NOWHERE)
    path = folder.as_posix() if repository is None else repository.rpartition("/")[2]
    local = Local.of(folder) if on_disk else None

    dtypes = {FILES[model.files[0]] for model in models if model.files[0] in FILES}
    known = {
        **values(manifest.spec.to_spec(), local.name if local else named, dtypes),
        "local": local,
        "folder": path,
        "precision": precision,
        "before": {use: manifest.spec.inputs.prompts.get(use, "") for use in ("query", "document")},
        "manifest": manifest,
        "embedding": SENTENCE_EMBEDDING,
        "chosen": {**_chosen(models), "named": precision is not None},
    }

    template = where.template or f"{PYTHON[format_name].split()[0].replace('torch', 'torchscript')}.py.j2"
    source = environment().get_template(f"snippets/{template}").render(**known)
    return "\n".join([*_comments(folder, place, format_name, manifest, repository), source.rstrip("\n"), ""])


def _refuse_pooling(folder: Path, place: str, manifest: Manifest) -> None:
    pooling, known = manifest.spec.dense.pooling, PLACES[place].poolings
    if not PLACES[place].layers:  # the library pools by itself
        known = tuple(name for name in known if name in COMMON_POOLINGS)
    if pooling not in known:
        raise UsageError(
            f"{folder} pools by {pooling!r}, and the library of {place} has only {', '.join(known)}. "
            "Use another place, such as python."
        )

    layers = dense_head(manifest.spec.to_spec()).layers
    if layers and not PLACES[place].layers:
        raise UsageError(
            f"{folder}: pooling is followed by {', '.join(map(str, layers))}, which the library of {place} leaves out. "
            "Use another place, such as python or sentence-transformers."
        )


def _models(folder: Path, manifest: Manifest, precision: str | None) -> Sequence[Model]:
    """Return the folder's models, or those of a precision."""
    there = sorted(manifest.models, key=lambda model: model.target)
    if precision is None:
        return there

    found = [model for model in there if model.target.partition("-")[2] == precision]
    if not found:
        names = ", ".join(dict.fromkeys(model.target.partition("-")[2] for model in there))
        raise UsageError(f"{folder} holds no {precision}, only {names}.")
    return found


def _chosen(models: Sequence[Model]) -> dict[str, Model | None]:
    """Return format -> the model of the snippets in Python, Java and Rust."""
    found = chosen_models(models)["chosen"]
    return {name: found[name] for name in FORMATS} if isinstance(found, dict) else {}


def _format(folder: Path, place: str, models: Sequence[Model]) -> str:
    """Return the format that a snippet runs, the first of the folder's unless the place needs one."""
    needs = PLACES[place].needs
    if needs == "client":
        if not any(model.files[0] in FILES for model in models):
            raise UsageError(
                f"{folder} holds no file that Transformers.js loads. Write one: bge-export transformersjs."
            )
        return "onnx"

    there = [name for name, model in _chosen(models).items() if model is not None]
    if not there or (needs is not None and needs not in there):
        what = "ONNX file" if needs else "model that takes one text"
        raise UsageError(f"{folder} holds no {what} for {place}. Write one: bge-export onnx MODEL -o {folder}")
    return needs or there[0]


def _comments(folder: Path, place: str, format_name: str, manifest: Manifest, repository: str | None) -> Sequence[str]:
    """Return the first lines: what to install, where the folder comes from, and how queries begin."""
    where = PLACES[place]
    lines = [f"{where.install} {PYTHON[format_name]}" if place == "python" else where.install]

    if repository is not None and where.prompts:
        lines.append(f"hf download {repository} --local-dir {repository.rpartition('/')[2]}")
    if place == "supabase" and repository is None and facts_of(folder) is None:
        lines.append(f"publish the folder first: bge-export publish {folder} --repo {NOWHERE}")

    query = manifest.spec.inputs.prompts.get("query")
    if query and not where.prompts:
        lines.append(f"A query begins with {query!r}, which is left out here: this embeds a document.")
    if where.divides and not dense_head(manifest.spec.to_spec()).normalize:
        lines.append("The library divides vectors by their norm, which the checkpoint does not.")
    return [f"{where.comment} {line}" for line in lines]
