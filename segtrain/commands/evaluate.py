"""`seg evaluate`: the mIoU of a trained network, images at their own size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pseudolabel import console
from pseudolabel.errors import DataError, UsageError
from pseudolabel.recipes.loading import load_recipe
from pseudolabel.runs import disk, layout
from segtrain.pairs import PairSet, pair_up, read_data
from segtrain.recipe import SegRecipe

if TYPE_CHECKING:
    import torch
    from lightning_fabric import Fabric

    from segtrain.networks import SegmentationNetwork

LEFT_OUT = ("dr_recall", "ndr_recall", "legacy")  # need a reference map; a network has none


def evaluate(
    run: Path | str,
    *,
    out: Path | str | None = None,
    checkpoint: str = "last",
    overrides: Sequence[str] = (),
    average_over: Sequence[str] | None = None,
    device: str = "auto",
    workers: int = 2,
    quiet: bool = False,
) -> dict[str, Any]:
    """Score a trained network on its validation images, or on its data where it has none.

    The default checkpoint is `last`: `best` was chosen by looking at these very images.

    Args:
        run: a run of `seg train`.
        out: a folder for evaluation.json; None writes it into the run.
        checkpoint: last, best or previous.
        overrides: of the run's recipe, `validation.split=train` or `data.root=...`.
        average_over: class names that the means are taken over; None takes the recipe's.
        device, workers, quiet: as for `train`.

    Returns:
        What evaluation.json holds.

    Raises:
        DataError: the checkpoint is of other classes, or an image or mask cannot be used.
    """
    from segtrain.checkpoint import load_network
    from segtrain.runtime import place

    folder = Path(run)
    recipe = load_recipe(_recipe_of(folder), SegRecipe, overrides)
    pairs = pair_up(read_data(recipe.data, recipe.validation))
    loaded = load_network(folder, checkpoint, pairs.space)
    where = place(device)
    network = loaded.network.to(where)
    found = figures_of(
        network,
        pairs,
        where,
        average_over=tuple(average_over) if average_over is not None else recipe.average_over,
        workers=workers,
        quiet=quiet,
    )
    found |= {
        "checkpoint": {"name": checkpoint, "sha256": loaded.sha256, "epoch": loaded.header.epoch},
        "classes": list(pairs.space.names),
    }
    disk.write_json(Path(out or folder) / layout.EVALUATION, found)
    return found


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
    from pseudolabel.metrics.confusion import averaged_ids, figures
    from segtrain.scoring import score

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


def _recipe_of(folder: Path) -> Path:
    path = folder / layout.RECIPE
    if not path.is_file():
        raise UsageError(f"{folder}: no run of `seg train` (no recipe.yaml); give the folder that it wrote")
    return path
