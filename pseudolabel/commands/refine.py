"""`pl refine`: masks made again from the stored maps of a run, without the model.

Another refiner, background, postprocessor or threshold gives a new run folder of the same form as `pl
generate` writes; with the recipe unchanged it holds the same masks, byte for byte.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pseudolabel import console, images
from pseudolabel.errors import DataError, MachineError, UsageError
from pseudolabel.pipeline import needs
from pseudolabel.pipeline.driver import AlreadyDone, Driver, Event, RunSummary, worth_processes
from pseudolabel.pipeline.explaining import FILLS, check_limit
from pseudolabel.pipeline.postprocessing import ImageMaps, ImageResult, PostprocessingPlan, postprocess_image
from pseudolabel.pipeline.reading import Complete
from pseudolabel.recipes.loading import plain_data
from pseudolabel.recipes.overrides import Overrides, as_texts
from pseudolabel.recipes.schema import GenerateRecipe
from pseudolabel.recipes.yaml import dump_recipe
from pseudolabel.records import Dataset
from pseudolabel.runs import disk, layout, writing
from pseudolabel.runs.run import Run, StoredMaps
from pseudolabel.scoring.truth import size

REMEDY = "mend or replace the file, or run `pl generate` again"
FREE = ("data", "fuse", "background", "postprocess", "output", "no_label")  # keys that do not decide the maps
OWN = {"id", "labels", "height", "width", "size", "sha256", "files"}  # of a manifest line; rewritten here


@dataclass(frozen=True)
class _Task:
    """One image whose maps are stored: what a worker reads, and what its manifest line keeps."""

    id: str
    labels: tuple[int, ...]
    image: Path
    maps: StoredMaps
    fill: int | None
    facts: dict[str, Any] = field(default_factory=dict)


def refine(
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
    tasks = _tasks(source, recipe, data)
    fingerprint = _fingerprint(recipe, names, tasks)
    with writing.open_run(out, "refine", fingerprint, overwrite=overwrite, new=new, wait=wait) as folder:
        disk.write_text(folder.path / layout.RECIPE, dump_recipe(recipe))
        disk.write_text(folder.path / layout.CLASSES, source.classes.text())
        tasks = tasks[:limit]
        plan = PostprocessingPlan.of(recipe)
        finished = Complete(folder, maps=plan.maps, overlays=plan.overlays)
        left = sum(task.id not in finished for task in tasks)
        driver = Driver(folder, [task.id for task in tasks], names, REMEDY, quiet)

        def events(stop: console.Stop) -> Iterator[Event]:
            for task in tasks:
                if stop.requested:
                    return
                yield AlreadyDone(task.id) if task.id in finished else task

        processes = worth_processes(left, workers, plan.needs_processes())
        driver.run(events, partial(_make, plan=plan), workers=workers, processes=processes)
        return driver.summary(labels=recipe.labels.source, device="cpu", workers=workers)


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


def _tasks(source: Run, recipe: GenerateRecipe, data: Dataset) -> list[_Task]:
    """The images of the list that the run has a mask of, in list order.

    Raises:
        DataError: there is none, or the run stores no maps.
    """
    tasks = []
    for record in data.records:
        if record.id not in source.manifest:
            continue
        line = source.manifest[record.id]
        facts = {key: value for key, value in line.items() if key not in OWN}
        fill = FILLS.get(recipe.no_label)
        maps = source.stored(record.id)
        tasks.append(_Task(record.id, maps.labels, record.image, maps, fill, facts))
    if not tasks:
        raise DataError(f"{source.path}: holds no image of the data's list; look at data.split")
    if all(task.maps.sha256 is None for task in tasks):
        raise DataError(
            f"{source.path}: stores no maps; run `pl generate {source.path / layout.RECIPE} -o {source.path} "
            "--set output.maps=true` to add them"
        )
    return tasks


def _fingerprint(recipe: GenerateRecipe, names: Sequence[str], tasks: Sequence[_Task]) -> dict[str, Any]:
    """All that decides the bytes: the line after the maps, and the digests of maps and images."""
    plain = needs.decisive(recipe, plain_data(recipe), [task.id for task in tasks])
    rows = hashlib.sha256()
    for task in tasks:
        row = [task.id, task.maps.sha256 or "", task.facts.get("input_sha256")]
        rows.update(json.dumps(row).encode("utf-8", "surrogatepass"))
    return {
        "refine": [branch["refine"] for branch in plain["maps"]],
        **{key: plain[key] for key in ("background", "postprocess", "no_label")},
        **({"fuse": plain["fuse"]} if plain["fuse"] else {}),
        "classes": list(names),
        "maps": {"count": len(tasks), "digest": rows.hexdigest()},
    }


def _make(task: _Task, plan: PostprocessingPlan) -> ImageResult:
    """Read an image and its maps and make the mask: what a worker does."""
    try:
        return postprocess_image(_read(task), plan)
    except (DataError, MachineError) as error:
        return ImageResult(None, fault=str(error))


def _read(task: _Task) -> ImageMaps:
    """The image and its maps.

    Raises:
        DataError: one of them is missing, damaged, or another than the run had.
    """
    maps, content = task.maps.read(), images.read_file(task.image)
    task.maps.check_image(task.image, content)
    image = images.read_image(task.image, data=content)
    for scores in maps:
        if tuple(scores.values.shape[1:]) != image.shape[:2]:
            wrong, wanted = size(scores.values.shape[1:]), size(image.shape[:2])
            raise DataError(f"{task.maps.path}: maps are {wrong}, the image {wanted}")
        if scores.ids != task.labels:
            raise DataError(f"{task.maps.path}: maps of classes {scores.ids}, {task.labels} wanted")
    if not task.labels and task.fill is None:
        raise DataError(f"{task.id}: has no label; set no_label: background or ignore")
    values = [scores.values.numpy() for scores in maps] if task.labels else []
    return ImageMaps(task.id, task.labels, image, values, task.fill or 0, task.facts)
