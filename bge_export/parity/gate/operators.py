"""Refusals about operators that no set of texts can prove: random numbers, control flow, state, foreign code."""

from collections.abc import Iterable, Iterator

from bge_export.formats import find_format
from bge_export.formats._torchscript_file import OUTSIDE, OWN_DOMAINS
from bge_export.formats.contents import STATE, TRAINING
from bge_export.parity.gate.verdict import Failure, failure
from bge_export.parity.report import ParityReport

OWN_OPERATORS = frozenset({"com.microsoft::MatMulNBits", "com.microsoft::MatMulBnb4"})
"""Operators outside ONNX's own that the exporters write."""

RANDOM = frozenset({
    "aten::_cudnn_init_dropout_state", "aten::_fill_mem_eff_dropout_mask_", "aten::_fused_dropout",
    "aten::_sample_dirichlet", "aten::_standard_gamma", "aten::empty", "aten::empty_like", "aten::empty_permuted",
    "aten::empty_strided", "aten::manual_seed", "aten::new_empty", "aten::new_empty_strided",
    "aten::normal_functional", "aten::rrelu_with_noise_functional", "aten::seed",
    "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike",
    "aten::bernoulli", "aten::bernoulli_", "aten::binomial", "aten::cauchy", "aten::cauchy_", "aten::exponential",
    "aten::exponential_", "aten::geometric", "aten::geometric_", "aten::log_normal", "aten::log_normal_",
    "aten::multinomial", "aten::normal", "aten::normal_", "aten::poisson", "aten::rand", "aten::rand_like",
    "aten::randint", "aten::randint_like", "aten::randn", "aten::randn_like", "aten::random", "aten::random_",
    "aten::randperm", "aten::rrelu_with_noise", "aten::rrelu_with_noise_", "aten::uniform", "aten::uniform_",
})  # fmt: skip
"""Operators that draw random numbers, or give memory as it happens to be, whatever their arguments are."""

CONTROL_FLOW = frozenset({"If", "Loop", "Scan", "SequenceMap", "TensorIterator", "prim::If", "prim::Loop"})
"""Operators that decide by their input what they compute; no exporter writes one."""

STATEFUL = frozenset({"Assign", "ReadValue", "prim::SetAttr"})
"""Operators that read or write what stays until the next call."""


def operator_failures(report: ParityReport) -> Iterator[Failure]:
    """Yield the refusals of files with such operators, and of files whose operators nobody looked at.

    The list belongs to the file, not to the runtime: one lane with the same bytes may supply it for all.
    """
    files = dict.fromkeys((lane.target, lane.model, lane.artifact_digest) for lane in report.lanes)

    for target, model, digest in files:
        lanes = [x for x in report.lanes if (x.target, x.model, x.artifact_digest) == (target, model, digest)]
        found = list(dict.fromkeys(lane.operators for lane in lanes if lane.operators is not None))

        if find_format(target.partition("-")[0]).contents is not None and not any(found):
            yield failure("operators", f"the operators of {model} were not looked at", "a list of them")
        if len(found) > 1:
            yield failure("inconsistent", f"{len(found)} lists of the operators of {model}", "one for the same bytes")

        yield from listed_failures(target, model, dict.fromkeys(name for names in found for name in names))


def listed_failures(target: str, model: str, names: Iterable[str]) -> Iterator[Failure]:
    """Yield the refusal of each operator of a file that no set of texts can prove."""
    for name in names:
        reason = _reason(name)
        if reason is not None:
            yield failure("operators", f"{target} {model} has {name}, which {reason}", "none")


def _reason(name: str) -> str | None:
    """Return what is wrong with an operator, None if nothing is.

    Runtimes take some names in any case, so the case says nothing.
    """
    domain, _, _ = name.rpartition("::")

    if _is_of(name, RANDOM) or name.endswith(TRAINING):
        return "draws random numbers"
    if _is_of(name, STATEFUL) or name.endswith(STATE):
        return "keeps a state from one call to the next"
    if _is_of(name.partition(" ")[0], OUTSIDE):
        return "reaches files and streams outside of the model"
    if _is_of(name, CONTROL_FLOW):
        return "decides by the input what is computed"
    if domain and domain not in OWN_DOMAINS and name not in OWN_OPERATORS:
        return "is no operator of the format or of the exporter"

    return None


def _is_of(name: str, operators: frozenset[str]) -> bool:
    """Return whether a name is one of those, in any case."""
    return name.casefold() in {one.casefold() for one in operators}
