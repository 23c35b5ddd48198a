"""Thresholds that are picked, and figures at equal precision: their oracles and what is not reached."""

import math

import numpy as np
import pytest

from pseudolabel.metrics.threshold_curves import (
    Curve,
    at_precision,
    best_of,
    difference_at_precision,
    largest_with_precision,
    mious,
    pick,
)
from tests.oracles import metrics as oracles

NAN = math.nan
RISING = Curve(np.array([0.2, 0.4, 0.5, 0.7]), np.array([0.9, 0.7, 0.4, 0.1]))


def test_mious_equal_their_oracle():
    counts = np.random.default_rng(0).integers(0, 50, (5, 3, 4)).astype(np.int64)
    for classes in (None, (0, 2)):
        wanted = [oracles.miou(m.tolist(), 3, "background", classes or range(3)) for m in counts]
        assert mious(counts, classes) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(
    ("values", "index"),
    [([0.1, 0.3, 0.2], 1), ([0.3, 0.1, 0.3], 0), ([NAN, 0.1, NAN], 1), ([0.0], 0), ([NAN, NAN], None)],
)
def test_the_first_of_the_largest_defined_values_is_taken(values, index):
    assert best_of(np.array(values)) == index == oracles.largest(values)


def test_a_threshold_is_picked_on_one_set_and_scored_on_the_other():
    picking, scoring = np.array([0.1, 0.6, 0.2, 0.3]), np.array([0.8, 0.5, 0.1, 0.9])
    taken = pick(picking, scoring)
    assert taken.index == oracles.largest(picking.tolist()) == 1
    assert (taken.picked, taken.scored, taken.largest, taken.largest_index) == (0.6, 0.5, 0.9, 3)
    assert taken.gap == pytest.approx(0.4)
    assert pick(scoring, picking).index == 3
    assert pick(np.array([NAN, NAN]), np.array([0.1, 0.2])) is None
    undefined = pick(np.array([0.2, 0.1]), np.array([NAN, NAN]))
    assert (undefined.index, undefined.largest_index) == (0, None)
    assert all(math.isnan(value) for value in (undefined.scored, undefined.largest, undefined.gap))


@pytest.mark.parametrize(
    ("precision", "figure"),
    [
        (0.2, 0.9),  # the first threshold itself
        (0.3, 0.8),  # halfway
        (0.4, 0.7),
        (0.65, 0.175),
        (0.7, 0.1),  # the last one itself
        (0.19, None),  # every threshold is more precise
        (0.71, None),  # every threshold is less precise
    ],
)
def test_the_figure_at_a_precision_lies_on_the_line_between_thresholds(precision, figure):
    got = at_precision(RISING, precision)
    assert got == (None if figure is None else pytest.approx(figure, abs=1e-12))
    wanted = oracles.at_precision(RISING.precision.tolist(), RISING.figure.tolist(), precision)
    assert got == (None if wanted is None else pytest.approx(wanted, abs=1e-12))


def test_at_equal_precision_it_equals_its_oracle():
    random = np.random.default_rng(0)
    reached = 0
    for _ in range(200):
        count = int(random.integers(1, 9))
        precisions, values = random.random((2, count)).round(1)  # ties, and curves that go up and down
        precisions[random.random(count) < 0.2] = NAN
        wanted = float(random.random(1).round(1)[0])
        curve = Curve(precisions, values)
        expected = oracles.at_precision(precisions.tolist(), values.tolist(), wanted)
        got = at_precision(curve, wanted)
        assert got == (None if expected is None else pytest.approx(expected, abs=1e-9))
        reached += got is not None
        expected = oracles.largest_with_precision(precisions.tolist(), values.tolist(), wanted)
        assert largest_with_precision(curve, wanted) == expected
    assert 40 < reached < 160, "the curves must show both outcomes"


def test_of_several_places_of_one_precision_the_lowest_threshold_counts():
    curve = Curve(np.array([0.6, 0.4, 0.6]), np.array([0.9, 0.5, 0.1]))
    assert at_precision(curve, 0.5) == pytest.approx(0.7)
    assert at_precision(curve, 0.6) == pytest.approx(0.9)
    flat = Curve(np.array([0.5, 0.5]), np.array([0.9, 0.1]))
    assert at_precision(flat, 0.5) == pytest.approx(0.9)


def test_undefined_thresholds_are_left_out_and_undefined_figures_are_none():
    curve = Curve(np.array([0.2, NAN, 0.4, NAN]), np.array([0.8, 0.0, 0.4, NAN]))
    assert at_precision(curve, 0.3) == pytest.approx(0.6)
    assert at_precision(Curve(np.array([0.2, 0.4]), np.array([NAN, 0.4])), 0.3) is None
    assert at_precision(Curve(np.array([NAN]), np.array([0.4])), 0.3) is None
    assert at_precision(Curve(np.array([0.3]), np.array([0.4])), 0.3) == 0.4


def test_a_difference_at_equal_precision_is_the_first_minus_the_second():
    other = Curve(np.array([0.1, 0.5]), np.array([0.4, 0.0]))
    assert difference_at_precision(RISING, other, 0.3) == pytest.approx(0.8 - 0.2)
    assert difference_at_precision(other, RISING, 0.3) == pytest.approx(0.2 - 0.8)
    assert difference_at_precision(RISING, other, 0.6) is None  # the other is never that precise
    assert difference_at_precision(other, RISING, 0.6) is None
    assert difference_at_precision(RISING, RISING, 0.6) == 0


def test_thresholds_of_at_least_a_precision_are_taken_as_they_are():
    assert largest_with_precision(RISING, 0.4) == 0.7  # a threshold of just this precision counts
    assert largest_with_precision(RISING, 0.41) == 0.4
    assert largest_with_precision(RISING, 0.1) == 0.9  # a method that is always more precise has one
    assert largest_with_precision(RISING, 0.71) is None
    assert largest_with_precision(Curve(np.array([0.5]), np.array([NAN])), 0.5) is None
