"""One int64 confusion matrix over a set of images, each counted once, at its original size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from pseudolabel import console
from pseudolabel.errors import DataError
from pseudolabel.metrics.confusion import averaged_ids, confusion, figures
from segtrain.dataset import Pixels, whole_pairs
from segtrain.networks import SegmentationNetwork
from segtrain.pairs import PairSet

if TYPE_CHECKING:
    from lightning_fabric import Fabric

LEFT_OUT = ("dr_recall", "ndr_recall", "legacy")  # need a reference map; a network has none


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


def figures_of(
    network: SegmentationNetwork,
    pairs: PairSet,
    device: torch.device,
    *,
    average_over: Sequence[str] | None = None,
    workers: int = 2,
    quiet: bool = False,
    fabric: Fabric | None = None,
) -> dict[str, Any]:
    """Figures of a network over pairs, as JSON; undefined ones are None.

    Args:
        network: in evaluation mode on the device.
        pairs: images with masks.
        device: where the network is.
        average_over: class names of the means; None takes all.
        workers, quiet: as for `train`.
        fabric: deals the images over its ranks.
    """
    if any(pair.mask is None for pair in pairs.pairs):
        missing = next(pair.id for pair in pairs.pairs if pair.mask is None)
        raise DataError(f"{missing}: has no mask to score against; choose a split that has masks")
    ids = averaged_ids(pairs.space, average_over)
    count = len(pairs.pairs) if fabric is None else -(-len(pairs.pairs) // fabric.world_size)
    with console.progress(count, "evaluate", quiet) as bar:
        matrix = score(
            network,
            pairs,
            device,
            workers=workers,
            fabric=fabric,
            advance=bar.advance,
        )
    plain = figures(matrix, "background", average_over=ids).plain(pairs.space)
    names = pairs.space.names if average_over is None else tuple(average_over)
    kept = {key: value for key, value in plain.items() if key not in LEFT_OUT}
    return {**kept, "images": len(pairs.pairs), "average_over": list(names)}
