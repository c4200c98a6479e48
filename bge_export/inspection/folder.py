"""Describes a folder of artifacts, or a single model file, from its bytes. Nothing is run."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bge_export.bundle.manifest import Manifest, read_bundle
from bge_export.contracts import Artifact
from bge_export.errors import ArtifactError, MissingLibrary
from bge_export.saturation import PairFacts, facts_of

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class GraphFacts:
    """The content of one ONNX file: versions, inputs and outputs, operators, weights."""

    path: str
    size_bytes: int
    opset: str
    ir_version: int
    producer: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    operators: dict[str, int]
    weights: dict[str, int]
    """Bytes of the initializers by element type."""
    external_data: bool
    pairs: PairFacts
    """The check of its int8 weights against the saturation constraint."""


@dataclass(frozen=True)
class ModelFacts:
    """The check of an OpenVINO IR model's int8 weights against the saturation constraint."""

    path: str
    pairs: PairFacts


@dataclass(frozen=True)
class FolderFacts:
    """A folder's manifest (reading it verifies the digests), its ONNX graphs and its OpenVINO models."""

    manifest: Manifest | None
    graphs: tuple[GraphFacts, ...]
    models: tuple[ModelFacts, ...] = ()
    target: tuple[str, ...] = field(default=())


def inspect_path(path: Path) -> FolderFacts:
    """Return the facts of the folder or the file at `path`.

    Raises:
        ArtifactError: the path does not exist, a file is damaged, or its bytes do not match the manifest.
        MissingLibrary: onnx is not installed, or openvino for a single .xml file.
    """
    if path.is_file() and path.suffix == ".xml":
        return FolderFacts(None, (), (ModelFacts(path.name, facts_of(path, "openvino")),))
    if path.is_file():
        return FolderFacts(None, (_graph(path, path.name),))
    if not path.is_dir():
        raise ArtifactError(f"{path} does not exist. Give a folder that bge-export wrote, or an .onnx or .xml file.")

    manifest, artifacts = read_bundle(path)
    graphs = tuple(_graph(path / item.model, item.model) for item in artifacts if item.target.format == "onnx")
    models = tuple(model for item in artifacts for model in _model(item))
    return FolderFacts(manifest, graphs, models, tuple(str(item.target) for item in artifacts))


def _model(artifact: Artifact) -> tuple[ModelFacts, ...]:
    """Return the facts of an OpenVINO model; empty for another format, or if openvino is not installed."""
    if artifact.target.format != "openvino":
        return ()

    try:
        return (ModelFacts(artifact.model, facts_of(artifact.root / artifact.model, "openvino")),)
    except MissingLibrary:
        return ()


def _graph(path: Path, name: str) -> GraphFacts:
    try:
        import onnx

        from bge_export.files.onnx_reader import load_graph
    except ImportError as error:
        raise MissingLibrary("onnx", "inspect", "looking into ONNX files") from error

    try:
        model = load_graph(path)
        onnx.checker.check_model(model)
    except Exception as error:
        raise ArtifactError(f"{path} is not a valid ONNX file: {error}. Export it again.") from error

    weights: Counter[str] = Counter()
    for tensor in model.graph.initializer:
        weights[onnx.TensorProto.DataType.Name(tensor.data_type).lower()] += _tensor_bytes(tensor)

    return GraphFacts(
        path=name,
        size_bytes=path.stat().st_size,
        opset=", ".join(f"{entry.domain or 'ai.onnx'} {entry.version}" for entry in model.opset_import),
        ir_version=model.ir_version,
        producer=model.producer_name,
        inputs=tuple(_describe(value) for value in model.graph.input),
        outputs=tuple(_describe(value) for value in model.graph.output),
        operators=dict(Counter(node.op_type for node in model.graph.node).most_common()),
        weights=dict(weights.most_common()),
        external_data=any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer),
        pairs=facts_of(path, "onnx"),
    )


def _tensor_bytes(tensor: "onnx.TensorProto") -> int:
    import onnx

    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return sum(int(entry.value) for entry in tensor.external_data if entry.key == "length")

    return len(tensor.raw_data) or int(onnx.numpy_helper.to_array(tensor).nbytes)


def _describe(value: "onnx.ValueInfoProto") -> str:
    """Return a value as `name: element type [axes]`."""
    import onnx

    kind = value.type.tensor_type
    axes = ", ".join(dim.dim_param or str(dim.dim_value) for dim in kind.shape.dim)
    return f"{value.name}: {onnx.TensorProto.DataType.Name(kind.elem_type).lower()} [{axes}]"
