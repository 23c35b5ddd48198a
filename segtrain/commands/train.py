"""`seg train`: images and masks to a segmentation network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pseudolabel import console, weights
from pseudolabel.errors import DataError, UsageError
from pseudolabel.recipes.loading import load_recipe
from pseudolabel.recipes.overrides import Overrides
from pseudolabel.recipes.yaml import dump_recipe
from pseudolabel.runs import disk, layout
from segtrain.inspection import Inspection
from segtrain.pairs import PairSet, pair_up, read_data
from segtrain.recipe import SegRecipe, decisive
from segtrain.results import TrainingSummary


def train(  # most of it is its arguments and what they mean
    recipe: Path | str | Mapping[str, Any] | SegRecipe,
    out: Path | str,
    *,
    overrides: Overrides = (),
    device: str = "auto",
    workers: int = 2,
    limit: int | None = None,
    on_bad: str = "stop",
    overwrite: bool = False,
    new: bool = False,
    wait: bool = False,
    quiet: bool = False,
) -> TrainingSummary:
    """Train a network; a run that was stopped goes on where it was, to the same bits on a CPU.

    Under a launcher such as `torchrun` every batch is dealt over the ranks.

    Args:
        recipe: of `seg train`.
        out: folder of the run.
        overrides: `schedule.epochs=2` and the like.
        device: auto, cpu, cuda or cuda:n.
        workers: threads that read; no byte depends on them.
        limit: only the first images of the training list, and of the validation list.
        on_bad: an image that cannot be read: stop, or skip (leave it out and say so).
        overwrite, new, wait: what to do about a folder that is in use, see `writing.open_run`.
        quiet: show no progress.

    Returns:
        Epochs, steps and loss of the run so far, and the mIoU of the last and of the best validation.

    Raises:
        DataError: a mask or image has a fault; all of them are told, and nothing was written.
        UsageError, MachineError, NumericError, Interrupted: see `pseudolabel.errors`.
    """
    settled = load_recipe(recipe, SegRecipe, overrides)
    pairs, inspection = _checked(settled, limit, on_bad, quiet)
    validation, validated = None, None
    if settled.validation is not None:
        validation, validated = _checked_validation(settled, limit, pairs, quiet)
    fingerprint = {
        "recipe": decisive(settled),
        "classes": list(pairs.space.names),
        "weights": weights.digest(settled.network.encoder, settled.network.weights),
        "inputs": disk.digest(inspection.inputs),
        "validation": disk.digest(validated.inputs if validated is not None else []),
    }

    from pseudolabel.training.device import launch
    from pseudolabel.training.watch import open_run
    from segtrain.training_run import SegmentationTraining

    fabric = launch(device, settled.precision)
    options = {"overwrite": overwrite, "new": new, "wait": wait, "items": "checkpoints"}
    with (
        open_run(fabric, out, "seg train", fingerprint, **options) as (folder, run),
        console.interruptible() as stop,
    ):
        if run is not None:
            disk.write_text(folder / layout.RECIPE, dump_recipe(settled))
        quiet = quiet or run is None
        training = SegmentationTraining(
            settled, pairs, validation, inspection, fabric, folder, run, workers, quiet
        )
        return training.run_to_end(stop)


def _checked(recipe: SegRecipe, limit: int | None, on_bad: str, quiet: bool) -> tuple[PairSet, Inspection]:
    """The training pairs after a look at every one of them."""
    from segtrain.inspection import inspect

    if on_bad not in ("stop", "skip"):
        raise UsageError(f"--on-bad {on_bad}: not known; choose stop or skip")
    pairs = pair_up(read_data(recipe.data, limit=limit), recipe.masks)
    with console.progress(len(pairs.pairs), "check training pairs", quiet) as bar:
        inspection = inspect(pairs, bar.advance)
    faults = inspection.faults
    if on_bad == "skip":
        bad = {fault.id for fault in faults if fault.code == "image"}
        faults = [fault for fault in faults if fault.id not in bad]
        kept = tuple(pair for pair in pairs.pairs if pair.id not in bad)
        if bad and kept:
            console.say(f"{len(bad)} of {len(pairs.pairs)} images cannot be read and are left out")
        pairs = PairSet(kept, pairs.space, pairs.folder, pairs.run)
        if not kept:
            raise DataError("data: no image can be read; look at its root and split")
    _refuse(faults, "training")
    if len(inspection.ignored) == len(pairs.pairs):
        raise DataError("masks: every pixel of every mask is 255; there is nothing to learn")
    return pairs, inspection


def _checked_validation(
    recipe: SegRecipe, limit: int | None, training: PairSet, quiet: bool
) -> tuple[PairSet, Inspection]:
    from segtrain.inspection import inspect

    pairs = pair_up(read_data(recipe.data, recipe.validation, limit))
    if pairs.space != training.space:
        raise DataError("validation: its classes are not those of the training data; use one class list")
    with console.progress(len(pairs.pairs), "check validation pairs", quiet) as bar:
        inspection = inspect(pairs, bar.advance)
    _refuse(inspection.faults, "validation")
    return pairs, inspection


def _refuse(faults: Sequence[Any], what: str) -> None:
    if faults:
        files = len({fault.file for fault in faults})
        lines = "\n".join(str(fault) for fault in faults)
        raise DataError(f"{files} files of the {what} data have faults:\n{lines}")
