"""The pinned Transformers.js versions, as data: each one's names for model files, and the paths of its builds.

Sources: `src/utils/dtypes.js` and `src/models.js` of each version, and the observed behaviour of each.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from bge_export.precision import precisions

FILES: Mapping[str, str] = {one.files["onnx"]: one.client_dtype for one in precisions("onnx") if one.client_dtype}
"""Model file -> its `dtype` in versions 3 and 4."""


@dataclass(frozen=True)
class Client:
    """One pinned version of Transformers.js.

    Attributes:
        name: the version's name in a lane, such as the 4 in `node@4`.
        version: the pinned version.
        package: its folder in `node_modules`.
        npm: the package's name in the registry, as users import it.
        node: the build for Node and Deno, relative to the package.
        wasm: folder and name of the WebAssembly files that the web build needs, relative to the package: `.wasm`,
            and from version 3 on an `.mjs` beside it.
        cls: whether its pipeline supports CLS pooling; if not, the first row is taken by hand.
    """

    name: str
    version: str
    package: str
    npm: str
    node: str
    wasm: tuple[str, str | None]
    cls: bool

    WEB = "dist/transformers.min.js"
    """The build for browsers; other builds (`transformers.web.js`) import packages by bare names."""

    @property
    def major(self) -> int:
        """Return the number before the first dot."""
        return int(self.version.partition(".")[0])

    def options(self, model: str) -> Mapping[str, object] | None:
        """Return the options with which this version loads a model file of the folder; None if it cannot load it.

        Version 2 knows two files and chooses by `quantized`. From 2.17 on, its pipeline also passes `model_file_name`
        on; 2.5.0 does not.
        """
        if model not in FILES:
            return None
        if self.major > 2:
            return {"dtype": FILES[model]}

        if model == "onnx/model.onnx":
            return {"quantized": False}
        if model == "onnx/model_quantized.onnx":
            return {"quantized": True}

        if self.version == "2.5.0" or FILES[model] not in ("fp16", "int8", "uint8"):
            return None  # its ONNX Runtime predates 4-bit operators
        return {"quantized": False, "model_file_name": model.removeprefix("onnx/").removesuffix(".onnx")}


CLIENTS: Mapping[str, Client] = {
    client.name: client
    for client in (
        Client(
            "2.5", "2.5.0", "transformers-2.5", "@xenova/transformers", "src/transformers.js", ("dist", None), cls=False
        ),
        Client(
            "2.17",
            "2.17.2",
            "transformers-2.17",
            "@xenova/transformers",
            "src/transformers.js",
            ("dist", None),
            cls=True,
        ),
        Client(
            "3",
            "3.8.1",
            "transformers-3",
            "@huggingface/transformers",
            "dist/transformers.node.mjs",
            ("dist", "ort-wasm-simd-threaded.jsep"),
            cls=True,
        ),
        Client(
            "4",
            "4.3.1",
            "transformers-4",
            "@huggingface/transformers",
            "dist/transformers.node.mjs",
            ("node_modules/onnxruntime-web/dist", "ort-wasm-simd-threaded.asyncify"),
            cls=True,
        ),
    )
}
