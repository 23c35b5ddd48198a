"""What an image goes through before the network sees it: resize, flip, crop, normalise.

Training: long side drawn from a range (bicubic, antialiased), left-right flip, square crop; an image
smaller than the crop stands at a random place on the mean colour. Source: IRN (arXiv 1904.05044) and its
code's `random_resize_long`, `random_crop`. Every draw follows from the generator handed in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

ImageArray = NDArray[np.uint8]  # (H, W, 3) RGB


@dataclass(frozen=True)
class Draws:
    """The random numbers of one training image, each uniform in [0, 1).

    Attributes:
        size: where in the range the long side lies.
        flip: below one half the image is mirrored.
        top, left: where the crop (or the image on its ground) lies.
    """

    size: float
    flip: float
    top: float
    left: float

    @staticmethod
    def of(generator: torch.Generator) -> Draws:
        """Four numbers from a CPU generator."""
        return Draws(*torch.rand(4, generator=generator, dtype=torch.float64).tolist())


def resized(image: ImageArray, long_side: int) -> ImageArray:
    """The image with its long side at `long_side` pixels, bicubic; 0 leaves it as it is."""
    height, width = image.shape[:2]
    if long_side == 0 or max(height, width) == long_side:
        return image
    factor = long_side / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def augmented(
    image: ImageArray, draws: Draws, *, resize: tuple[int, int], crop: int, flip: bool, ground: Sequence[int]
) -> ImageArray:
    """A training crop.

    Args:
        image: (H, W, 3) uint8 RGB.
        draws: see `Draws`.
        resize: least and greatest long side in pixels, both included.
        crop: side of the result in pixels.
        flip: whether mirroring is allowed.
        ground: RGB 0..255 where the image does not reach.

    Returns:
        (crop, crop, 3) uint8.
    """
    low, high = resize
    image = resized(image, low + int(draws.size * (high - low + 1)))
    if flip and draws.flip < 0.5:
        image = image[:, ::-1]
    out = np.empty((crop, crop, 3), np.uint8)
    out[:] = np.asarray(ground, np.uint8)
    (from_y, to_y), (from_x, to_x) = (
        _spans(side, crop, draw) for side, draw in zip(image.shape[:2], (draws.top, draws.left), strict=True)
    )
    out[to_y, to_x] = image[from_y, from_x]
    return out


def normalised(
    images: Sequence[ImageArray], mean: Sequence[float], std: Sequence[float], device: torch.device
) -> Tensor:
    """Equal-sized images as (B, 3, H, W) float32 on a device: (x / 255 - mean) / std."""
    stacked = torch.from_numpy(np.stack(images)).to(device)  # moved as bytes, a quarter of the floats
    shift = torch.tensor(mean, dtype=torch.float32, device=device).view(1, 3, 1, 1) * 255
    scale = torch.tensor(std, dtype=torch.float32, device=device).view(1, 3, 1, 1) * 255
    return (stacked.permute(0, 3, 1, 2).to(torch.float32) - shift) / scale


def ground_colour(mean: Sequence[float]) -> tuple[int, ...]:
    """The mean colour as 0..255: what normalisation brings to about zero."""
    return tuple(round(255 * value) for value in mean)


def _spans(side: int, crop: int, draw: float) -> tuple[slice, slice]:
    """Along one axis: which pixels of the image go where in the crop."""
    offset = int(draw * (abs(side - crop) + 1))
    if side >= crop:
        return slice(offset, offset + crop), slice(0, crop)
    return slice(0, side), slice(offset, offset + side)
