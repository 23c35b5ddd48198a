"""`seg evaluate`: the mIoU of a trained network, images at their own size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pseudolabel import __version__, console
from pseudolabel.errors import DataError, UsageError
from pseudolabel.recipes.loading import load_recipe
from pseudolabel.recipes.overrides import Overrides
from pseudolabel.recipes.schema import validation_step
from pseudolabel.runs import disk, layout
from pseudolabel.scoring.provenance import image_list, versions
from segtrain.pairs import pair_up, read_data
from segtrain.recipe import SegRecipe
from segtrain.results import SegmentationEvaluation


def evaluate(  # most of it is its arguments and what they mean
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
        What evaluation.json holds: the figures, and of what they are: reader, split, image list, checkpoint,
        the masks and labels that were trained on, and `training_images`, how many scored images were.

    Raises:
        DataError: the checkpoint is of other classes, or an image or mask cannot be used.
    """
    from pseudolabel.training.device import place
    from segtrain.checkpoint import load_network, locate
    from segtrain.scoring import figures_of

    folder = Path(run)
    recipe = load_recipe(_recipe_of(folder), SegRecipe, overrides)
    step = recipe.data if recipe.validation is None else validation_step(recipe.data, recipe.validation)
    data = read_data(step)
    pairs = pair_up(data)
    loaded = load_network(folder, checkpoint, pairs.space)
    where = place(device)
    network = loaded.network.to(where)
    figures = figures_of(
        network,
        pairs,
        where,
        average_over=tuple(average_over) if average_over is not None else recipe.average_over,
        workers=workers,
        quiet=quiet,
    )
    ids, name = [pair.id for pair in pairs.pairs], locate(folder, checkpoint).stem
    evaluation = SegmentationEvaluation(
        **figures,
        checkpoint={"name": name, "sha256": loaded.sha256, "epoch": loaded.header.epoch},
        classes=list(pairs.space.names),
        reader=step.component_name,
        split=step.parameters().get("split"),
        image_list=image_list(ids, len(data.records)),
        **_trained_on(folder, recipe, ids),
        threshold=None,
        postprocess=[],
        versions=versions(__version__),
    )
    if not quiet:
        _say_trained_on(evaluation)
    disk.write_json(Path(out or folder) / layout.EVALUATION, evaluation.as_dict())
    return evaluation


def _trained_on(folder: Path, recipe: SegRecipe, ids: Sequence[str]) -> dict[str, Any]:
    """The masks that were trained on, and how many scored images are among the training images.

    Data, masks and root are those that stand in the recipe now; the list is the one that was trained on. What
    cannot be read any more is None.
    """
    before = load_recipe(_recipe_of(folder), SegRecipe)
    split = before.data.parameters().get("split")
    known: dict[str, Any] = {"masks": "ground truth" if before.masks is None else "pseudo-masks"}
    try:
        step = recipe.data if split is None else validation_step(recipe.data, {"split": split})
        pairs = pair_up(read_data(step), recipe.masks)
    except (DataError, UsageError):
        return {**known, "labels": None, "labels_from": None, "training_images": None}
    trained = {pair.id for pair in pairs.pairs}
    return {**known, **pairs.labels, "training_images": sum(item in trained for item in ids)}


def _say_trained_on(evaluation: SegmentationEvaluation) -> None:
    if evaluation.training_images:
        console.say(
            f"{evaluation.training_images} of the {evaluation.images} scored images were trained on; name "
            "others with --set 'validation={split: val}'"
        )


def _recipe_of(folder: Path) -> Path:
    path = folder / layout.RECIPE
    if not path.is_file():
        raise UsageError(f"{folder}: no run of `seg train` (no recipe.yaml); give the folder that it wrote")
    return path
