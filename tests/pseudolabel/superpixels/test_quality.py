"""Under-segmentation error and achievable accuracy, by hand and against their oracles."""

from __future__ import annotations

import numpy as np
import pytest

from pseudolabel.superpixels.quality import achievable_accuracy, under_segmentation_error
from tests.oracles import superpixels as oracles


def arrays(segments: list[list[int]], truth: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array(segments, np.int32), np.array(truth, np.uint8)


def test_by_hand() -> None:
    # superpixel 0: three pixels of id 1, one of id 0; superpixel 1: two of id 0, one unknown
    segments, truth = arrays([[0, 0, 0, 0, 1, 1, 1]], [[1, 1, 1, 0, 0, 0, 255]])
    assert under_segmentation_error(segments, truth) == (2, 6)  # min(3, 1) + min(1, 3) + min(2, 0)
    assert achievable_accuracy(segments, truth) == (5, 6)


def test_three_ids_in_a_superpixel_leak_as_three_segments() -> None:
    segments, truth = arrays([[0, 0, 0, 0, 0]], [[1, 1, 2, 3, 3]])
    assert under_segmentation_error(segments, truth) == (2 + 1 + 2, 5)
    assert achievable_accuracy(segments, truth) == (2, 5)


def test_a_superpixel_for_each_pixel_is_perfect() -> None:
    truth = np.random.default_rng(0).integers(0, 5, (6, 7)).astype(np.uint8)
    segments = np.arange(42, dtype=np.int32).reshape(6, 7)
    assert under_segmentation_error(segments, truth) == (0, 42)
    assert achievable_accuracy(segments, truth) == (42, 42)


def test_nothing_known_is_nothing_counted() -> None:
    segments, truth = arrays([[0, 1]], [[255, 255]])
    assert under_segmentation_error(segments, truth) == (0, 0)
    assert achievable_accuracy(segments, truth) == (0, 0)


@pytest.mark.parametrize("seed", range(6))
def test_equal_their_oracles(seed: int) -> None:
    source = np.random.default_rng(seed)
    segments = source.integers(0, 12, (13, 17)).astype(np.int32)
    truth = source.choice(np.array([0, 1, 7, 254, 255], np.uint8), (13, 17))
    assert under_segmentation_error(segments, truth) == oracles.under_segmentation_error(segments, truth)
    assert achievable_accuracy(segments, truth) == oracles.achievable_accuracy(segments, truth)


def test_another_size_is_refused() -> None:
    segments, truth = arrays([[0, 1]], [[1], [2]])
    for figure in (under_segmentation_error, achievable_accuracy):
        with pytest.raises(ValueError, match=r"superpixels are \(1, 2\), the truth \(2, 1\)"):
            figure(segments, truth)
