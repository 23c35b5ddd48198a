"""Training images with their masks, augmented together; images for evaluation as they are.

Every draw is a function of (seed, epoch, index) only: neither worker nor history changes it. Pixels stay
with Pillow and NumPy until a batch is whole: torch's own threads would take the cores from the network.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

import segtrain._torchvision  # noqa: F401
from pseudolabel import draws, images, masks
from pseudolabel.errors import DataError, PseudolabelError
from pseudolabel.records import IGNORE, LabelSpace
from pseudolabel.training.feed import ahead
from segtrain.pairs import Pair

from torchvision.transforms import InterpolationMode  # isort: skip
from torchvision.transforms.v2 import functional as transforms  # isort: skip

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Augment:
    """Scale, pad, crop and flip of an image and its mask together.

    Attributes:
        scale: factors between which one is drawn uniformly.
        crop: side of the square, pixels.
        flip: left-right with probability one half.
        fill: colour 0..255 of the padding.
    """

    scale: tuple[float, float]
    crop: int
    flip: bool
    fill: tuple[int, int, int]

    def __call__(self, image: Pixels, mask: Pixels, key: Sequence[int | str]) -> tuple[Pixels, Pixels]:
        """Augment one pair.

        Args:
            image: (H, W, 3).
            mask: (H, W).
            key: root of the draws.

        Returns:
            (crop, crop, 3) and (crop, crop); outside the image `fill` and 255.
        """
        draw = torch.rand(4, generator=draws.generator(*key), dtype=torch.float64).tolist()
        input_image, ids = Image.fromarray(image), Image.fromarray(mask)
        factor = self.scale[0] + (self.scale[1] - self.scale[0]) * draw[0]
        size = [max(1, round(side * factor)) for side in mask.shape]
        if size != list(mask.shape):
            input_image = transforms.resize(input_image, size, InterpolationMode.BILINEAR)
            # nearest_exact takes the pixel below the centre, as bilinear does; nearest is shifted
            ids = transforms.resize(ids, size, InterpolationMode.NEAREST_EXACT)
        top, left = (_offset(side, self.crop, u) for side, u in zip(size, draw[1:3], strict=True))
        below, right = (start + self.crop - side for start, side in zip((top, left), size, strict=True))
        border = [max(0, -left), max(0, -top), max(0, right), max(0, below)]
        if any(border):
            input_image = transforms.pad(input_image, border, fill=list(self.fill))
            ids = transforms.pad(ids, border, fill=IGNORE)
        window = (max(0, top), max(0, left), self.crop, self.crop)
        input_image, ids = transforms.crop(input_image, *window), transforms.crop(ids, *window)
        if self.flip and draw[3] < 0.5:
            input_image, ids = transforms.horizontal_flip(input_image), transforms.horizontal_flip(ids)
        return np.asarray(input_image), np.asarray(ids)


def _offset(side: int, crop: int, draw: float) -> int:
    """Where the window starts: inside a larger image, or before a smaller one, which then moves in it."""
    least, most = min(0, side - crop), max(0, side - crop)
    return least + min(int(draw * (most - least + 1)), most - least)


@dataclass(frozen=True)
class TrainingPairs:
    """Augmented pairs by (epoch, index).

    Attributes:
        pairs: every one with a mask.
        space: classes that a mask may hold.
        augment: what is done to a pair.
        seed: root of the draws.
    """

    pairs: Sequence[Pair]
    space: LabelSpace
    augment: Augment
    seed: int

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Pixels, Pixels]:
        """(crop, crop, 3) and (crop, crop) of an index in an epoch."""
        epoch, index = key
        image, mask = read_pair(self.pairs[index], self.space)
        return self.augment(image, mask, ("augment", self.seed, epoch, index))


def read_pair(pair: Pair, space: LabelSpace) -> tuple[Pixels, Pixels]:
    """(H, W, 3) and (H, W) of a pair.

    Raises:
        DataError: a file cannot be read, sizes differ, or the mask holds a value outside the classes.
    """
    if pair.mask is None:
        raise DataError(f"{pair.id}: has no mask; give one, or take the image off the list")
    image = images.read_image(pair.image)
    mask = masks.read_mask(pair.mask)
    masks.check_size(mask.shape, image.shape[:2], pair.mask)
    masks.check_values(mask, space, pair.mask)
    return image, mask


def whole_pairs(
    pairs: Sequence[Pair], space: LabelSpace, workers: int
) -> Iterator[tuple[Pair, Pixels, Pixels]]:
    """Each pair with its image (H, W, 3) and mask (H, W), in order.

    Raises:
        DataError: see `read_pair`.
    """
    for pair, (image, mask) in ahead(pairs, lambda pair: read_pair(pair, space), workers=workers):
        yield pair, image, mask


def whole_images(pairs: Sequence[Pair], workers: int) -> Iterator[tuple[Pair, Pixels | PseudolabelError]]:
    """Each image (H, W, 3), or why it cannot be read, in order."""

    def read(pair: Pair) -> Pixels | PseudolabelError:
        try:
            return images.read_image(pair.image)
        except PseudolabelError as fault:
            return fault

    yield from ahead(pairs, read, workers=workers)
