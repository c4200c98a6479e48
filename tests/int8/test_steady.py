"""The choice of a form in which no single mark tips over."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from bge_export.int8.form import Form
from bge_export.int8.steady import ENOUGH, WIDENINGS, steadiest


@dataclass
class Cosines:
    """Builds forms, and judges each by the cosines written down for its widening."""

    given: dict[float, list[float]]

    def build(self, form: Form) -> float:
        return form.widening

    def cosines(self, widening: float, *, cls_only: bool) -> tuple[np.ndarray, float, int]:
        assert not cls_only
        return np.array(self.given[widening]), 0.0, 0


def chosen(given: dict[float, list[float]]) -> tuple[float, int]:
    cases: Any = Cosines(given)
    tried: list[int] = []
    form = steadiest(cases, Form(), cases, cls_only=False, advance=tried.append)
    return form.widening, sum(tried)


def test_the_first_in_which_no_text_tips_over_is_taken() -> None:
    assert chosen({WIDENINGS[0]: [0.9999, 0.997], WIDENINGS[1]: [0.9999, ENOUGH]}) == (WIDENINGS[1], 2)


def test_where_one_always_does_the_least_bad_is_taken() -> None:
    given = {widening: [0.9999, 0.99 + place / 1e4] for place, widening in enumerate(WIDENINGS)}
    given[WIDENINGS[2]] = [0.9984]
    assert chosen(given) == (WIDENINGS[2], len(WIDENINGS))
