"""`seg evaluate`: the mIoU of a trained network, images at their own size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pseudolabel.errors import UsageError
from pseudolabel.recipes.loading import load_recipe
from pseudolabel.recipes.overrides import Overrides
from pseudolabel.runs import disk, layout
from segtrain.pairs import pair_up, read_data
from segtrain.recipe import SegRecipe
from segtrain.results import SegmentationEvaluation


def evaluate(
    run: Path | str,
    *,
    out: Path | str | None = None,
    checkpoint: str = "last",
    overrides: Overrides = (),
    average_over: Sequence[str] | None = None,
    device: str = "auto",
    workers: int = 2,
    quiet: bool = False,
) -> SegmentationEvaluation:
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
    from pseudolabel.training.device import place
    from segtrain.checkpoint import load_network
    from segtrain.scoring import figures_of

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
    evaluation = SegmentationEvaluation(
        **found,
        checkpoint={"name": checkpoint, "sha256": loaded.sha256, "epoch": loaded.header.epoch},
        classes=list(pairs.space.names),
    )
    disk.write_json(Path(out or folder) / layout.EVALUATION, evaluation.as_dict())
    return evaluation


def _recipe_of(folder: Path) -> Path:
    path = folder / layout.RECIPE
    if not path.is_file():
        raise UsageError(f"{folder}: no run of `seg train` (no recipe.yaml); give the folder that it wrote")
    return path
