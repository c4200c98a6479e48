"""What a session asks of its client."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bge_export.contracts import Artifact, Target, TokenBatch
from bge_export.heads.dense import UNDECLARED
from bge_export.javascript.clients import CLIENTS
from bge_export.javascript.session import ClientsSession

ONES = np.ones((1, 2), dtype=np.int64)


@dataclass
class FakeLink:
    """Answers everything with 2 s, and notes what it was asked."""

    pid: int = 0
    asked: list[tuple[str, float | None, Mapping[str, Any]]] = field(default_factory=list)

    def ask(self, op: str, seconds: float | None = None, **fields: object) -> Mapping[str, Any]:
        self.asked.append((op, seconds, fields))
        return {"seconds": 2.0, "ids": []}

    def close(self) -> None:
        raise NotImplementedError


def test_a_run_is_timed_by_the_client_and_not_cut_off_after_the_time_it_shall_take() -> None:
    artifact = Artifact(Target("onnx", "fp32"), Path(), "onnx/model.onnx", (), "", UNDECLARED, ("input_ids",), ("y",))
    link = FakeLink()
    session = ClientsSession(link, artifact, CLIENTS["4"], {}, ExitStack(), slot=3)
    assert session.seconds(TokenBatch(ONES, ONES, ONES), 0.05) == 2.0
    ((op, limit, fields),) = link.asked
    assert (op, limit, fields["least"], fields["slot"], fields["dims"]) == ("time", None, 0.05, 3, [1, 2])
    session.tokenize(["a"])
    assert link.asked[1][2]["slot"] == 3
    assert session.peak_bytes() is None  # no process of its own
