"""Resize, flip, crop, normalise: against a crop made a pixel at a time, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pseudolabel.classifier.augmentation import Draws, augmented, ground_colour, normalised, resized
from pseudolabel.draws import generator
from tests.oracles import classifier as oracles

GROUND = (10, 20, 30)
ALMOST_ONE = 1 - 2**-53


@pytest.fixture
def image() -> np.ndarray:
    """Every pixel differs from every other."""
    values = np.arange(30 * 40, dtype=np.uint16).reshape(30, 40)
    return np.stack([values % 256, values // 256, np.full_like(values, 7)], axis=2).astype(np.uint8)


@pytest.mark.parametrize("crop", [16, 30, 36, 40, 50])
@pytest.mark.parametrize("top", [0.0, 0.4, ALMOST_ONE])
@pytest.mark.parametrize("left", [0.0, 0.7, ALMOST_ONE])
@pytest.mark.parametrize("mirrored", [False, True])
def test_crop_equals_its_oracle(
    image: np.ndarray, crop: int, top: float, left: float, mirrored: bool
) -> None:
    draws = Draws(size=0.5, flip=0.49 if mirrored else 0.5, top=top, left=left)
    out = augmented(image, draws, resize=(40, 40), crop=crop, flip=True, ground=GROUND)
    corners = [
        int(draw * (side - crop + 1)) if side >= crop else -int(draw * (crop - side + 1))
        for side, draw in zip(image.shape[:2], (top, left), strict=True)
    ]
    shown = image[:, ::-1] if mirrored else image
    assert np.array_equal(out, oracles.crop(shown, crop, *corners, GROUND))


def test_every_place_of_a_crop_is_reached_and_none_beyond(image: np.ndarray) -> None:
    reached = set()
    for count in range(200):
        draws = Draws.of(generator(0, "id", count))
        out = augmented(image, draws, resize=(40, 40), crop=28, flip=False, ground=GROUND)
        reached.add(tuple(out[0, 0]))
    corners = {tuple(image[y, x]) for y in range(3) for x in range(13)}
    assert reached == corners


def test_no_flip_where_the_recipe_forbids_it(image: np.ndarray) -> None:
    draws = Draws(size=0, flip=0.1, top=0, left=0)
    out = augmented(image, draws, resize=(40, 40), crop=40, flip=False, ground=GROUND)
    assert np.array_equal(out[:30], image)


@pytest.mark.parametrize(("draw", "side"), [(0.0, 20), (0.5, 25), (ALMOST_ONE, 30)])
def test_long_side_lies_in_the_range(image: np.ndarray, draw: float, side: int) -> None:
    draws = Draws(size=draw, flip=1, top=0, left=0)
    out = augmented(image, draws, resize=(20, 30), crop=40, flip=False, ground=(1, 1, 1))
    content = (out != 1).any(axis=2)
    assert content.any(axis=0).sum() == side
    assert content.any(axis=1).sum() == round(side * 30 / 40)


def test_resized_keeps_the_shape_and_averages() -> None:
    board = np.zeros((40, 80, 3), np.uint8)
    board[::2, ::2] = board[1::2, 1::2] = 255
    assert resized(board, 0) is board
    small = resized(board, 20)
    assert small.shape == (10, 20, 3)
    # antialiased, so that the board turns grey instead of into some of its own pixels
    assert np.abs(small[2:-2, 2:-2].astype(int) - 127).max() < 12
    assert resized(np.zeros((1, 90, 3), np.uint8), 20).shape == (1, 20, 3)


def test_normalised_by_hand() -> None:
    images = [np.full((2, 3, 3), (0, 127, 255), np.uint8), np.full((2, 3, 3), 51, np.uint8)]
    actual = normalised(images, (127 / 255, 127 / 255, 0.2), (128 / 255, 1, 0.5), torch.device("cpu"))
    assert actual.shape == (2, 3, 2, 3)
    expected = [[-127 / 128, 0, 1.6], [-76 / 128, 51 / 255 - 127 / 255, 0]]
    torch.testing.assert_close(actual[:, :, 0, 0], torch.tensor(expected), atol=1e-6, rtol=0)


def test_ground_is_about_nothing_once_normalised() -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    ground = np.array(ground_colour(mean), np.uint8)[None, None]
    assert normalised([ground], mean, std, torch.device("cpu")).abs().max() < 0.01  # half a grey level
