"""One int64 confusion matrix over a set of images, each counted once, at its original size."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from pseudolabel.errors import DataError
from pseudolabel.metrics.confusion import confusion
from segtrain.dataset import Pixels, whole_pairs
from segtrain.networks import SegmentationNetwork
from segtrain.pairs import PairSet

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def score(
    network: SegmentationNetwork,
    data: PairSet,
    device: torch.device,
    *,
    workers: int,
    fabric: Fabric | None = None,
    advance: Callable[[], None] = lambda: None,
) -> NDArray[np.int64]:
    """The (C+1, C+2) matrix of `pseudolabel.metrics.confusion` over all pairs.

    Args:
        network: in evaluation mode on the device.
        data: pairs with masks.
        device: where the network is.
        workers: threads that read; they change nothing but the speed.
        fabric: deals the images over its ranks, by position, and adds the matrices up.
        advance: called after each image.

    Raises:
        DataError: an image or mask cannot be read or does not fit.
    """
    names = len(data.space.names)
    total = np.zeros((names, names + 1), dtype=np.int64)
    rank, world = (fabric.global_rank, fabric.world_size) if fabric is not None else (0, 1)
    counted = 0
    for _, image, truth in whole_pairs(data.pairs[rank::world], data.space, workers):
        total += confusion(truth, predict(network, image, device), names)
        counted += 1
        advance()
    if fabric is not None and world > 1:
        both = torch.from_numpy(np.append(total.ravel(), counted)).to(fabric.device)
        summed: Any = fabric.all_reduce(both, reduce_op="sum")
        flat = summed.cpu().numpy()
        total, counted = flat[:-1].reshape(total.shape), int(flat[-1])
    if counted != len(data.pairs):
        raise DataError(f"{counted} of {len(data.pairs)} images were scored; a part is no score")
    return total


def predict(network: SegmentationNetwork, image: Pixels, device: torch.device) -> Pixels:
    """Class ids (H, W) of an image (H, W, 3)."""
    with torch.inference_mode():
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None].to(device)
        ids: Pixels = network(pixels)[0].argmax(dim=0).to(torch.uint8).cpu().numpy()
    return ids
