"""Augmentation: image and mask move together, and every draw follows from (seed, epoch, index)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pseudolabel.errors import DataError
from pseudolabel.records import LabelSpace
from pseudolabel.training.feed import ahead
from segtrain.dataset import Augment, TrainingPairs, _offset, whole_pairs
from segtrain.pairs import Pair

FILL = (9, 8, 7)


def coded(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """An image whose red channel is 10 times its mask: blocks of 8 pixels, so that scaling keeps them."""
    rows, columns = np.indices((height, width)) // 8
    mask = ((rows * 5 + columns) % 20 + 1).astype(np.uint8)
    return np.stack([mask * 10, 255 - mask, mask], axis=2).astype(np.uint8), mask


def test_nothing_to_do_changes_nothing() -> None:
    image, mask = coded(40, 40)
    result = Augment((1.0, 1.0), 40, False, FILL)(image, mask, ("x",))
    np.testing.assert_array_equal(result[0], image)
    np.testing.assert_array_equal(result[1], mask)


@pytest.mark.parametrize("scale", [(1.0, 1.0), (0.5, 2.0), (3.0, 3.0)])
@pytest.mark.parametrize("size", [(24, 64), (64, 24), (8, 8), (100, 90)])
def test_image_and_mask_move_together(size: tuple[int, int], scale: tuple[float, float]) -> None:
    augment = Augment(scale, 48, True, FILL)
    image, mask = coded(*size)
    for key in range(8):
        input_image, ids = augment(image, mask, (key,))
        assert input_image.shape == (48, 48, 3)
        assert ids.shape == (48, 48)
        outside = (input_image == FILL).all(axis=2)
        np.testing.assert_array_equal(outside, ids == 255)
        wrong = np.abs(input_image[:, :, 0].astype(int) - 10 * ids.astype(int))[~outside] > 4
        # only pixels beside a block's edge are mixtures; half a pixel's shift would make more
        share = wrong.mean() if wrong.size else 0
        assert share < (0.01 if scale == (1.0, 1.0) else 0.6)


def test_scaling_keeps_edges_in_place() -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    mask = np.zeros((32, 32), np.uint8)
    image[:, 16:], mask[:, 16:] = 200, 1
    for factor in (0.5, 1.5, 2.0):
        side = round(32 * factor)
        input_image, ids = Augment((factor, factor), side, False, FILL)(image, mask, ("edge",))
        np.testing.assert_array_equal(input_image[:, :, 0] > 100, ids == 1)


def test_draws_follow_from_the_key_alone() -> None:
    augment = Augment((0.5, 2.0), 24, True, FILL)
    image, mask = coded(64, 48)
    first = [augment(image, mask, ("augment", 0, 1, index)) for index in range(12)]
    again = [augment(image, mask, ("augment", 0, 1, index)) for index in reversed(range(12))][::-1]
    for sample, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(sample[0], other[0])
        np.testing.assert_array_equal(sample[1], other[1])
    assert len({sample.tobytes() for sample, _ in first}) == 12
    other_epoch = augment(image, mask, ("augment", 0, 2, 0))
    assert not np.array_equal(other_epoch[0], first[0][0])


def test_flips_half_of_the_time() -> None:
    augment = Augment((1.0, 1.0), 16, True, FILL)
    image, mask = coded(16, 16)
    flipped = sum(not np.array_equal(augment(image, mask, (index,))[0], image) for index in range(200))
    assert 70 < flipped < 130
    assert np.array_equal(Augment((1.0, 1.0), 16, False, FILL)(image, mask, (0,))[0], image)


@pytest.mark.parametrize(("side", "crop", "wanted"), [(10, 4, range(7)), (4, 10, range(-6, 1)), (5, 5, [0])])
def test_windows_reach_every_place(side: int, crop: int, wanted: range) -> None:
    offsets = {_offset(side, crop, draw) for draw in np.linspace(0, 1, 200)}
    assert offsets == set(wanted)


def test_pairs_are_the_same_for_any_workers(make_voc: Callable[..., Path]) -> None:
    root = make_voc(count=5)
    pairs = [
        Pair(f"train_{i}", root / f"JPEGImages/train_{i}.png", root / f"SegmentationClass/train_{i}.png")
        for i in range(5)
    ]
    data = TrainingPairs(
        pairs, LabelSpace(("background", "red", "green")), Augment((0.5, 1.5), 32, True, FILL), 0
    )
    keys = [(0, 3), (0, 1), (0, 0), (0, 2), (0, 4), (1, 3)]
    wanted = [data[key] for key in keys]
    assert not np.array_equal(wanted[0][0], wanted[5][0]), "another epoch draws anew"
    for workers in (0, 1, 3):
        for sample, (key, other) in zip(wanted, ahead(keys, data.__getitem__, workers=workers), strict=True):
            np.testing.assert_array_equal(sample[0], other[0], err_msg=str(key))
            np.testing.assert_array_equal(sample[1], other[1], err_msg=str(key))


def test_a_mask_that_does_not_fit_is_refused(make_voc: Callable[..., Path]) -> None:
    root = make_voc(count=2)
    pair = Pair("a", root / "JPEGImages/train_0.png", root / "SegmentationClass/train_1.png")
    with pytest.raises(DataError, match="mask is 40 x 33, its image 24 x 31; save the mask as"):
        list(whole_pairs([pair], LabelSpace(("background", "red", "green")), 0))
