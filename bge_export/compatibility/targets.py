"""The capabilities of each client and host, as a table.

The highest opsets and IR versions were found by loading one graph in 98 combinations of both in each client, the
operators by running graphs of every variant. An unlisted operator was never seen to run there, so it is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from bge_export.javascript.clients import CLIENTS, FILES, Client

FUSED = frozenset({"Attention", "BiasGelu", "EmbedLayerNormalization", "QAttention", "SkipLayerNormalization"})
FOUR_BIT = frozenset({"GatherBlockQuantized", "MatMulBnb4", "MatMulNBits"})
DYNAMIC_INT8 = frozenset({"DynamicQuantizeLinear", "MatMulInteger"})
CONTRIB = "com.microsoft"
V2_CLASSES = frozenset(
    {"BertTokenizer", "DistilBertTokenizer", "MPNetTokenizer", "RobertaTokenizer", "XLMRobertaTokenizer"}
)


@dataclass(frozen=True)
class TargetFacts:
    """The capabilities of one client on one kind of host.

    Attributes:
        client: the version of Transformers.js.
        opset: the highest opset of ai.onnx.
        ir: the highest IR version.
        contrib: the operators of `com.microsoft` that run there.
        missing: operators of ai.onnx that do not run there, or silently give wrong values.
        fp16_opsets: the lowest and highest opset at which float16 graphs with layer normalisation load.
        bits: the weight widths in bits that MatMulNBits supports.
        external_data: whether weights may be in a file beside the model.
        dtypes: the dtypes that users load there; files of another dtype are not checked.
        tokenizer_classes: the tokenizer classes that it supports; None if it accepts any.
        device: the `transformersjs` device on which the host is measured.
        memory_bytes: the host's memory limit.
        cpu_seconds: the host's CPU time limit for one request, including the first.
    """

    client: Client
    opset: int
    ir: int
    contrib: frozenset[str]
    dtypes: frozenset[str]
    missing: frozenset[str] = frozenset()
    fp16_opsets: tuple[int, int] = (7, 99)
    bits: frozenset[int] = frozenset()
    external_data: bool = True
    tokenizer_classes: frozenset[str] | None = None
    device: str | None = None
    memory_bytes: int | None = None
    cpu_seconds: float | None = None


EVERY = frozenset(FILES.values())

TARGETS: Mapping[str, TargetFacts] = MappingProxyType(
    {
        "transformers.js@2.5": TargetFacts(
            CLIENTS["2.5"],
            opset=18,
            ir=8,
            contrib=FUSED,
            dtypes=frozenset({"fp32", "q8"}),
            fp16_opsets=(7, 17),
            external_data=False,
            tokenizer_classes=V2_CLASSES,
        ),
        "transformers.js@2.17": TargetFacts(
            CLIENTS["2.17"],
            opset=18,
            ir=8,
            contrib=FUSED,
            dtypes=frozenset({"fp32", "q8", "fp16", "int8", "uint8"}),
            fp16_opsets=(7, 17),
            external_data=False,
            tokenizer_classes=V2_CLASSES,
        ),
        "transformers.js@3": TargetFacts(
            CLIENTS["3"],
            opset=22,
            ir=10,
            contrib=FUSED | FOUR_BIT,
            dtypes=EVERY,
            bits=frozenset({4}),
        ),
        "transformers.js@4": TargetFacts(
            CLIENTS["4"],
            opset=26,
            ir=13,
            contrib=FUSED | FOUR_BIT,
            dtypes=EVERY,
            bits=frozenset({4, 8}),
        ),
        # On WebGPU, version 3 silently returns garbage for integer arithmetic, and rejects masked Attention.
        "transformers.js@3-webgpu": TargetFacts(
            CLIENTS["3"],
            opset=22,
            ir=10,
            contrib=frozenset({"MatMulNBits", "SkipLayerNormalization", "BiasGelu"}),
            dtypes=EVERY,
            missing=DYNAMIC_INT8 | {"DequantizeLinear", "QuantizeLinear"},
            fp16_opsets=(17, 99),
            bits=frozenset({4}),
        ),
        "transformers.js@4-webgpu": TargetFacts(
            CLIENTS["4"],
            opset=26,
            ir=13,
            contrib=FUSED | FOUR_BIT,
            dtypes=EVERY,
            fp16_opsets=(17, 99),
            bits=frozenset({4, 8}),
        ),
        # Bundles ONNX Runtime 1.20.1 and opens sessions only from buffers; the limits are from its documentation.
        "supabase-edge": TargetFacts(
            CLIENTS["3"],
            opset=21,
            ir=10,
            contrib=FUSED | FOUR_BIT,
            dtypes=EVERY,
            bits=frozenset({4}),
            external_data=False,
            device="edge@3",
            memory_bytes=256 << 20,
            cpu_seconds=2.0,
        ),
    }
)
