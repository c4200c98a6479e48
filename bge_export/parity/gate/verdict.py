"""The verdict of the gate: passed, or every reason for the refusal."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bge_export.parity.figures import escaped, excerpt
from bge_export.precision import precisions
from bge_export.texts.corpus import Kind

_AGAIN = "Measure again with: bge-export parity FOLDER --reference MODEL"
_OTHER_IN_BATCHES = (
    "The mask or a shape is baked in, a scale depends on neighbours, or the runtime makes other sums in other shapes, "
    "as ONNX Runtime on a GPU does of int8. Do not use this artifact there."
)
_EXPORT = "Do not use this artifact. Export again; if it stays, the exporter or the runtime is wrong."

_ROUNDED = (
    "Rounding loses too much of this checkpoint in this precision. Use int8, which follows the checkpoint up to its "
    "most accurate variant (--min-cosine asks for more), or a wider precision (--precision, or transformersjs "
    "--dtypes); --calibration takes texts like yours. To accept it knowingly, give limits of your own (--thresholds): "
    "an export leaves such a file beside what it refused."
)
_FLOATS = frozenset({"bf16", *(one.name for one in precisions() if not one.rounded)})
"""Precisions whose losses are no rounding to integers; the checkpoint itself has one more than the exporters."""

_ROUNDING = frozenset({"cosine", "max-abs", "token-states", "logit", "order", "top", "sweep-logit"})
"""Rules that rounded weights alone may break."""

RULES: Mapping[str, str] = {
    "edited-report": f"A report is never edited. {_AGAIN}",
    "inconsistent": f"No measurement gives this. {_AGAIN}",
    "no-texts": "Nothing compared is nothing proven. Give a file with texts, some of them everyday ones.",
    "other-texts": "Judge with the texts that were measured (--texts), or measure these.",
    "no-lanes": f"Nothing compared is nothing proven. {_AGAIN}",
    "not-measured": "Measure it with a runtime that reads it, or take it out of the folder.",
    "other-bytes": f"The report speaks of other files. {_AGAIN}",
    "other-files": "Weights outside the list are not what was measured; a listed model without a target was measured "
    "nowhere. Export again.",
    "other-content": "The file is not what its target says. Export again.",
    "other-settings": "Consumers would load other settings, tokens or weights. Export the folder again.",
    "other-reference": "Measure again with the checkpoint: bge-export parity FOLDER --reference MODEL",
    "required-missing": "Measure there, on a machine that has it, or do not require it.",
    "unavailable": "Install the runtime or use a machine that has the device, or do not ask for it.",
    "crashed": _EXPORT,
    "unknown-target": "Measure it, choose limits, and add a table for it to the file of limits.",
    "pair-rule": "Processors without VNNI would give other vectors, or nobody knows. Do not use this artifact; export "
    "again with weights that keep it. If they were not inspected, measure where the format's library is installed.",
    "operators": "No set of texts proves what such a file computes. Do not use this artifact; export again. If they "
    "were not looked at, measure again with this version of bge-export.",
    "coverage": f"What nothing looked at is not proven. {_AGAIN}",
    "token-table": _EXPORT,
    "token-states": _EXPORT,
    "not-repeatable": _EXPORT,
    "logit": _EXPORT,
    "order": _EXPORT,
    "top": _EXPORT,
    "sweep-logit": _EXPORT,
    "token-weight": _EXPORT,
    "lexical-score": _EXPORT,
    "sweep-weight": _EXPORT,
    "token-vector": _EXPORT,
    "vector-norm": "Token states or vectors have another length than the checkpoint's, or another one in batches: "
    "normalisation or a scale is wrong. Do not use this artifact; export again.",
    "max-sim": _EXPORT,
    "batch-weight": _OTHER_IN_BATCHES,
    "batch-vector": _OTHER_IN_BATCHES,
    "no-weights": "Nothing compared is nothing proven. Give texts of whose tokens the checkpoint weighs some.",
    "batch-logit": _OTHER_IN_BATCHES,
    "no-order": "Nothing compared is nothing proven. Give several candidates of a query, which the checkpoint orders.",
    "missing-row": _AGAIN,
    "extra-row": _AGAIN,
    "duplicate-row": _AGAIN,
    "row-order": _AGAIN,
    "token-ids": "The tokenizer files are not the checkpoint's. Export the folder again.",
    "not-finite": "Values overflowed in this precision. Do not use this artifact; use a wider one.",
    "zero-norm": _EXPORT,
    "cosine": _EXPORT,
    "max-abs": _EXPORT,
    "norm": "Normalisation is missing, doubled or of another kind than the checkpoint's. Export again.",
    "norm-shift": "Normalisation or a scale is of another kind than the checkpoint's. Export again.",
    "batch-cosine": _OTHER_IN_BATCHES,
    "batch-norm": _OTHER_IN_BATCHES,
    "swapped-rows": "Vectors are given to the wrong texts. Do not use this runtime with this artifact.",
    "client-tokens": "The client reads the tokenizer otherwise. Look at the text, or accept its kind in the limits.",
    "client-cosine": "The client pools or normalises otherwise than the checkpoint. Look at the options of its call.",
    "client-norm": "The client normalises otherwise than the checkpoint. Look at the options of its call.",
    "client-missing": f"The client's own tokenizer must be heard there. {_AGAIN}",
    "wrong-pooling": "Export again with the pooling that the checkpoint declares.",
}
"""Rule -> advice for the user if the rule refuses. Rule names are stable: scripts may match them."""


@dataclass(frozen=True)
class Failure:
    """One reason for a refusal.

    Attributes:
        rule: a key of `RULES`.
        lane: the lane's name, or "" if the whole report is refused.
        row: the text's full id if one row is refused; messages hold only its first characters.
        text: the first characters of the text, unescaped.
        got: the measured figure, never rounded towards passing.
        needed: the limit, or the expected fact.
        would_pass: the limit that would let the figure pass, if a limit can.
        message: a sentence with all of the above, on one line.
        figure: the measured figure as a number, if the rule has a numeric limit and the figure is finite.
        kind: the kind of the text, if it selects the limit.
    """

    rule: str
    lane: str
    row: str | None
    text: str | None
    got: str
    needed: str
    would_pass: str | None
    message: str
    figure: float | None = None
    kind: Kind | None = None

    @property
    def target(self) -> str:
        """Return the target of the lane, or "" if the whole report is refused."""
        return self.lane.partition("@")[0]

    @property
    def may_be_rounding(self) -> bool:
        """Return whether rounded weights alone may explain the failure, so that it need not be a fault."""
        return self.rule in _ROUNDING and self.target.partition("-")[2] not in _FLOATS

    @property
    def advice(self) -> str:
        """Return the advice to the user."""
        return _ROUNDED if self.may_be_rounding else RULES[self.rule]


@dataclass(frozen=True)
class Verdict:
    """The reasons for a refusal; the report passed if there are none, so the two cannot disagree."""

    failures: tuple[Failure, ...]

    @property
    def passed(self) -> bool:
        """Return whether nothing is refused."""
        return not self.failures

    def joined(self, failures: Iterable[Failure]) -> "Verdict":
        """Return a verdict with further reasons; each sentence counts once."""
        return Verdict(tuple(dict.fromkeys((*self.failures, *failures))))

    @property
    def exit_status(self) -> int:
        """Return 0 for passed, 1 for refused."""
        return 0 if self.passed else 1


def failure(
    rule: str,
    got: str,
    needed: str,
    *,
    lane: str = "",
    row: str | None = None,
    text: str | None = None,
    would_pass: str | None = None,
    figure: float | None = None,
    kind: Kind | None = None,
) -> Failure:
    """Return a failure with its message: the location, the finding and the requirement."""
    where = [lane] if lane else []
    if row is not None:
        where.append(f"text '{excerpt(row)}'" + (f" ({text})" if text else ""))

    loosened = f"; a limit of {would_pass} would pass" if would_pass is not None else ""
    message = f"{', '.join(where) or 'report'}: {rule}: {got}; needed: {needed}{loosened}"

    known = figure if figure is not None and math.isfinite(figure) else None
    return Failure(rule, lane, row, text, got, needed, would_pass, escaped(message), known, kind)
