"""Average precision against its oracle, by hand, and with ties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudolabel.classifier.average_precision import average_precision
from tests.oracles import classifier as oracles

pairs = st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=1, max_size=30)


@settings(max_examples=200, deadline=None)
@given(pairs)
def test_equals_its_oracle_and_order_does_not_matter(rows: list[tuple[int, bool]]) -> None:
    scores, present = np.array([s for s, _ in rows], np.float32), np.array([p for _, p in rows])
    expected = oracles.average_precision(scores, present)
    for order in (slice(None), slice(None, None, -1)):
        actual = average_precision(scores[order], present[order])
        assert actual == (None if expected is None else pytest.approx(expected, abs=1e-12))


def test_by_hand() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.6])
    assert average_precision(scores, np.array([True, True, False, False])) == 1
    assert average_precision(scores, np.array([False, True, False, True])) == pytest.approx(
        (1 / 2 + 2 / 4) / 2
    )
    assert average_precision(np.zeros(4), np.array([True, False, False, False])) == 0.25


def test_without_a_positive_there_is_none() -> None:
    assert average_precision(np.arange(3.0), np.zeros(3, bool)) is None
