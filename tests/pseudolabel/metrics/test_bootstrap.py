"""The interval of mIoU over images: its oracle, any order of images, no width without spread."""

import math

import numpy as np
import pytest

from pseudolabel.metrics.bootstrap import miou_interval
from pseudolabel.metrics.confusion import READINGS, figures
from tests.oracles import metrics as oracles


@pytest.fixture(scope="module")
def matrices():
    counts = np.random.default_rng(0).integers(0, 50, size=(7, 3, 4))
    counts[::2, 2] = 0  # a class that some draws lack
    return counts.astype(np.int64)


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
