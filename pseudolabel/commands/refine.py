"""`pl refine`: masks made again from the stored maps of a run, without the model.

Another refiner, background, postprocessor or threshold gives a new run folder of the same form as `pl
generate` writes; with the recipe unchanged it holds the same masks, byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from pseudolabel import console
from pseudolabel.errors import DataError, UsageError
from pseudolabel.pipeline.driver import AlreadyDone, Driver, Event, RunSummary, worth_processes
from pseudolabel.pipeline.explaining import check_limit
from pseudolabel.pipeline.postprocessing import PostprocessingPlan
from pseudolabel.pipeline.reading import Complete
from pseudolabel.pipeline.stored_images import fingerprint, masked, stored_images
from pseudolabel.recipes.loading import plain_data
from pseudolabel.recipes.overrides import Overrides, as_texts
from pseudolabel.recipes.schema import GenerateRecipe
from pseudolabel.recipes.yaml import dump_recipe
from pseudolabel.records import Dataset
from pseudolabel.runs import disk, layout, writing
from pseudolabel.runs.run import Run

REMEDY = "mend or replace the file, or run `pl generate` again"
FREE = ("data", "fuse", "background", "postprocess", "output", "no_label")  # keys that do not decide the maps


def refine(  # most of it is its arguments and what they mean
    run: Path | str,
    out: Path | str,
    *,
    overrides: Overrides = (),
    workers: int = 2,
    limit: int | None = None,
    overwrite: bool = False,
    new: bool = False,
    wait: bool = False,
    quiet: bool = False,
) -> RunSummary:
    """Make masks from stored maps, or go on where an earlier call was stopped.

    Args:
        run: a finished run of `pl generate` with `output.maps`; only read.
        out: the new run's folder: masks/<id>.png, manifest.jsonl, problems.jsonl, recipe.yaml, classes.txt,
            summary.json. It holds maps of its own only with `output.maps=true` among the overrides.
        overrides: `background.threshold=0.2` and the like: refiners, background, postprocess, output,
            no_label, and
            where the data lie. What decides the maps cannot be changed here.
        workers: images done at once; with components of the CPU in as many processes. 0 does each in turn.
            The bytes do not depend on it.
        limit: only the first so many images.
        overwrite, new, wait: for a folder of another run: move it aside, take the next numbered one; for a
            folder in use: wait.
        quiet: no progress.

    Returns:
        What summary.json holds, and the folder.

    Raises:
        UsageError: overrides or folder refused.
        DataError: the run has no manifest or no maps, or its classes are not those of the data.
        MachineError: disk, worker or lock.
        Interrupted: a signal came; the same call goes on.
    """
    check_limit(limit)
    source = Run.open(run)
    recipe = _recipe(source, overrides)
    names = source.classes.names
    data: Dataset = recipe.data.component.run(recipe.data.params)
    if recipe.labels.source == "given" and data.space.names != names:
        raise DataError(f"{source.path}: its classes are not those of the data; look at data.root")
    images = stored_images(source, recipe, data)
    decisive = fingerprint(recipe, names, images)
    with writing.open_run(out, "refine", decisive, overwrite=overwrite, new=new, wait=wait) as folder:
        disk.write_text(folder.path / layout.RECIPE, dump_recipe(recipe))
        disk.write_text(folder.path / layout.CLASSES, source.classes.text())
        images = images[:limit]
        plan = PostprocessingPlan.of(recipe)
        finished = Complete(folder, maps=plan.maps, overlays=plan.overlays)
        left = sum(image.id not in finished for image in images)
        driver = Driver(folder, [image.id for image in images], names, REMEDY, quiet)

        def events(stop: console.Stop) -> Iterator[Event]:
            for image in images:
                if stop.requested:
                    return
                yield AlreadyDone(image.id) if image.id in finished else image

        processes = worth_processes(left, workers, plan.needs_processes())
        driver.run(events, partial(masked, plan=plan), workers=workers, processes=processes)
        return driver.summary(
            labels=recipe.labels.source,
            labels_from=source.labels_from,
            device="cpu",
            workers=workers,
            classifier=source.classifier,
        )


def _recipe(source: Run, overrides: Overrides) -> GenerateRecipe:
    """The run's recipe with the overrides.

    Raises:
        UsageError: an override touches what the stored maps were made with.
    """
    before = plain_data(source.recipe)
    recipe = source.recipe_with(("output.maps=false", *as_texts(overrides)))
    after = plain_data(recipe)
    for plain in (before, after):
        for key in FREE:
            del plain[key]
        for map_line in plain["maps"]:
            del map_line["refine"]
    changes = writing.differences(before, after)
    if changes:
        raise UsageError(
            f"{source.path}: the stored maps were made otherwise ({'; '.join(changes)}); only refine, "
            "background, postprocess, output and data can change here, `pl generate` makes other maps"
        )
    return recipe
