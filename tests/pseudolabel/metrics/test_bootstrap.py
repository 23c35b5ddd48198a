"""Intervals over images: their oracles, any order of images, no width without spread, pairs kept together."""

import functools
import math

import numpy as np
import pytest

from pseudolabel.metrics.bootstrap import (
    miou_interval,
    multiplicities,
    paired_differences,
    percentile_interval,
    resampled,
)
from pseudolabel.metrics.confusion import READINGS, figures
from pseudolabel.metrics.figure_arrays import figure_arrays
from tests.oracles import metrics as oracles

REGIONS = ("whole", "dr", "ndr")
FIGURES = (
    "miou",
    "fg_recall",
    "fg_precision",
    "fg_hit",
    "coverage",
    "pixel_accuracy",
    "dr_recall",
    "dr_miou_legacy",
    "ndr_recall",
    "ndr_miou_legacy",
)


@pytest.fixture(scope="module")
def matrices():
    counts = np.random.default_rng(0).integers(0, 50, size=(7, 3, 4))
    counts[::2, 2] = 0  # a class that some draws lack
    return counts.astype(np.int64)


@pytest.fixture(scope="module")
def pairs():
    """Two methods on 9 images: (N, 3, C+1, C+2) each, the whole = DR + NDR + a background row."""
    random = np.random.default_rng(5)
    methods = []
    for better in (0, 60):
        dr, ndr = random.integers(0, 40, (9, 3, 4)), random.integers(0, 90, (9, 3, 4))
        dr[:, [1, 2], [1, 2]] += better
        ndr[::3, 2] = 0  # a class that some draws lack
        dr[:, 0] = ndr[:, 0] = 0
        background = random.integers(50, 90, (9, 3, 4)) * np.array([1, 0, 0])[:, None]
        methods.append(np.stack([dr + ndr + background, dr, ndr], axis=1).astype(np.int64))
    return methods


def figures_of(counts, reading="background", classes=None):
    total, dr, ndr = np.moveaxis(counts, -3, 0)
    return figure_arrays(total, reading, dr=dr, ndr=ndr, average_over=classes)


def named(counts):
    """The counts of every image as the oracle takes them."""
    return [dict(zip(REGIONS, image.tolist(), strict=True)) for image in counts]


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("classes", [None, (0, 2)])
def test_equals_its_oracle(matrices, reading, classes):
    interval = miou_interval(matrices, draws=90, level=0.8, seed=3, reading=reading, average_over=classes)
    wanted = oracles.miou_interval(matrices, 90, 0.8, 3, reading, classes or range(3))
    assert interval == pytest.approx(wanted, rel=1e-12)
    assert interval[0] < figures(matrices.sum(axis=0), reading, average_over=classes).miou < interval[1]


def test_order_changes_nothing_and_the_seed_does(matrices):
    shuffled = matrices[np.random.default_rng(4).permutation(7)]
    assert miou_interval(shuffled) == miou_interval(matrices)
    assert miou_interval(matrices, seed=1) != miou_interval(matrices)


def test_equal_images_have_no_spread(matrices):
    low, high = miou_interval(np.repeat(matrices[:1], 5, axis=0))
    assert low == high == figures(matrices[0]).miou


def test_nothing_labelled_is_undefined_and_no_image_refused(matrices):
    assert all(math.isnan(v) for v in miou_interval(np.zeros((2, 3, 4), np.int64)))
    with pytest.raises(ValueError, match="no image"):
        miou_interval(matrices[:0])
    with pytest.raises(ValueError, match="too large"):
        miou_interval(matrices + 2**52)


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("classes", [None, (0, 2)])
def test_every_figure_equals_its_oracle(pairs, reading, classes):
    sums = pairs[0].sum(axis=0)
    got = figures_of(np.stack([sums, pairs[1].sum(axis=0)]), reading, classes)
    assert set(got) == set(FIGURES)
    (total,) = named(sums[None])
    for name, values in got.items():
        wanted = oracles.figure(total, name, reading, classes or range(3))
        assert values[0] == pytest.approx(wanted, rel=1e-12), name
    single = figures(sums[0], reading, dr=sums[1], ndr=sums[2], average_over=classes)
    for name in FIGURES:
        value = getattr(single, name) if hasattr(single, name) else single.legacy[name]
        assert got[name][0] == pytest.approx(value, rel=1e-12), name
    assert len({float(values[0]) for values in got.values()}) > 6, "the figures must be told apart"


@pytest.mark.parametrize("classes", [None, (0, 2)])
@pytest.mark.parametrize("which", FIGURES)
def test_a_paired_difference_equals_its_oracle(pairs, which, classes):
    reading = "wrong" if which == "coverage" else "background"
    got = paired_differences(
        *pairs,
        functools.partial(figures_of, reading=reading, classes=classes),
        samples=40,
        level=0.8,
        seed=3,
    )[which]
    first, second = map(named, pairs)
    wanted = oracles.paired_difference(first, second, which, 40, 0.8, 3, reading, classes or range(3))
    assert (got.value, got.low, got.high) == pytest.approx(wanted, rel=1e-9, abs=1e-12)
    assert got.low < got.value < got.high


def test_draws_take_as_many_images_as_there_are():
    times = multiplicities(9, 500, 1)
    assert times.shape == (500, 9)
    assert set(times.sum(axis=1)) == {9.0}
    assert (times.max(), times.min()) == (5, 0)
    np.testing.assert_array_equal(times, np.random.default_rng(1).multinomial(9, [1 / 9] * 9, size=500))
    assert (multiplicities(9, 500, 2) != times).any()


def test_every_block_of_draws_is_kept(pairs):
    times = multiplicities(9, 150)
    values = resampled(pairs[0], times, figures_of)["miou"]
    for draw in (0, 63, 64, 127, 128, 149):
        total = (pairs[0] * times[draw].astype(np.int64)[:, None, None, None]).sum(axis=0)
        assert values[draw] == pytest.approx(figures(total[0]).miou, rel=1e-12)
    assert values.shape == (150,)


def test_several_thresholds_are_drawn_together(pairs):
    times = multiplicities(9, 30)
    stacked = np.stack(pairs, axis=1)  # (N, T, 3, C+1, C+2)
    values = resampled(stacked, times, figures_of)["ndr_recall"]
    for index, method in enumerate(pairs):
        np.testing.assert_array_equal(values[:, index], resampled(method, times, figures_of)["ndr_recall"])


@pytest.mark.parametrize(("level", "ends"), [(0.95, (0.025, 0.975)), (0.5, (0.25, 0.75)), (0, (0.5, 0.5))])
def test_an_interval_holds_its_share_of_the_defined_values(level, ends):
    values = np.random.default_rng(0).permutation(np.arange(1001) / 1000)
    values = np.append(values, [np.nan, np.nan])
    assert percentile_interval(values, level) == pytest.approx(ends, abs=1e-12)
    if level == 0.95:
        assert percentile_interval(values) == percentile_interval(values, 0.95)
    assert all(math.isnan(end) for end in percentile_interval(np.array([np.nan])))


def test_differences_hold_95_percent_of_1000_draws_unless_said_otherwise(pairs):
    plain = paired_differences(*pairs, figures_of)
    assert plain == paired_differences(*pairs, figures_of, samples=1000, level=0.95, seed=0)
    narrow = paired_differences(*pairs, figures_of, level=0.5)
    for name, entry in plain.items():
        assert entry.low < narrow[name].low < narrow[name].high < entry.high
    assert paired_differences(*pairs, figures_of, seed=1) != plain


def test_the_order_of_images_changes_no_difference(pairs):
    order = np.random.default_rng(4).permutation(9)
    shuffled = paired_differences(*(method[order] for method in pairs), figures_of)
    assert shuffled == paired_differences(*pairs, figures_of)


def test_swapped_methods_flip_the_sign(pairs):
    there, back = paired_differences(*pairs, figures_of), paired_differences(*pairs[::-1], figures_of)
    assert there["dr_recall"].high < 0 < back["dr_recall"].low, "the second method is better"
    for name, entry in there.items():
        other = back[name]
        assert (other.value, other.low, other.high) == pytest.approx(
            (-entry.value, -entry.high, -entry.low), rel=1e-12
        )


def test_a_method_against_itself_is_0(pairs):
    for entry in paired_differences(pairs[0], pairs[0], figures_of).values():
        assert entry.as_dict() == {"difference": 0.0, "low": 0.0, "high": 0.0}


def test_pairs_are_drawn_together():
    """Where one method abstains on 10 of 100 pixels more in every image, no draw sees another difference."""
    first = np.zeros((9, 2, 3), np.int64)
    first[:, 1, 2] = np.random.default_rng(0).integers(0, 80, 9)
    second = first + np.array([[0, 0, 0], [0, 0, 10]])
    for method in (first, second):
        method[:, 1, 1] = 100 - method[:, 1, 2]
    entry = paired_differences(first, second, figure_arrays)["coverage"]
    assert (entry.value, entry.low, entry.high) == pytest.approx((0.1, 0.1, 0.1), abs=1e-12)
    low, high = percentile_interval(resampled(first, multiplicities(9), figure_arrays)["coverage"])
    assert high - low > 0.1


def test_what_is_undefined_is_null(pairs):
    empty = np.zeros_like(pairs[0])
    for entry in paired_differences(pairs[0], empty, figures_of).values():
        assert entry.as_dict() == {"difference": None, "low": None, "high": None}


def test_pairs_that_do_not_fit_are_refused(pairs):
    with pytest.raises(ValueError, match="pairs have one shape"):
        paired_differences(pairs[0], pairs[1][:8], figures_of)
    with pytest.raises(ValueError, match="no image"):
        paired_differences(pairs[0][:0], pairs[1][:0], figures_of)
    with pytest.raises(ValueError, match="too large"):
        paired_differences(pairs[0] + 2**50, pairs[1] + 2**50, figures_of)
