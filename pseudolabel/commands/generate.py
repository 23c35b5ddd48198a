"""`pl generate`: a classifier and image-level labels to pseudo-masks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pseudolabel import console
from pseudolabel.pipeline import needs
from pseudolabel.pipeline.driver import Driver, ModelFacts, RunSummary, worth_processes
from pseudolabel.pipeline.explaining import Prepared, check_limit, explained, prepare, read_recipe
from pseudolabel.pipeline.postprocessing import PostprocessingPlan, postprocess_image
from pseudolabel.pipeline.reading import Complete
from pseudolabel.recipes.loading import plain_data
from pseudolabel.recipes.overrides import Overrides
from pseudolabel.recipes.schema import GenerateRecipe
from pseudolabel.recipes.yaml import dump_recipe
from pseudolabel.runs import disk, layout, writing

if TYPE_CHECKING:
    from pseudolabel.pipeline.lanes import Lanes

REMEDY = "look at image and classifier; a lower precision or a broken weight does this"


def generate(  # most of it is its arguments and what they mean
    recipe: Path | str | Mapping[str, Any] | GenerateRecipe,
    out: Path | str,
    *,
    overrides: Overrides = (),
    device: str = "auto",
    workers: int = 2,
    limit: int | None = None,
    on_bad: Literal["skip", "stop"] = "skip",
    overwrite: bool = False,
    new: bool = False,
    wait: bool = False,
    quiet: bool = False,
) -> RunSummary:
    """Make a mask for every image of the data, or go on where an earlier call was stopped.

    Args:
        recipe: a YAML file, plain data, or a recipe already read.
        out: the run's folder: masks/<id>.png, manifest.jsonl, problems.jsonl, recipe.yaml, classes.txt,
            summary.json; on request maps/<id>.safetensors and overlays/<id>.png.
        overrides: `background.threshold=0.2` and the like.
        device: auto, cpu, cuda or cuda:n.
        workers: threads that read images, and as many that finish masks; with components of the CPU as many
            processes. 0 does everything in turn. The bytes do not depend on it.
        limit: only the first so many images of the list.
        on_bad: an image that cannot be done is listed and left out, or ends the run.
        overwrite, new, wait: for a folder of another run: move it aside, take the next numbered one;
            for a folder in use: wait.
        quiet: no progress.

    Returns:
        What summary.json holds, and the folder.

    Raises:
        UsageError: recipe or folder refused.
        DataError: data or classifier refused, no gradient reaches the input, or on_bad is `stop`.
        MachineError: device, memory, disk, worker or lock.
        Interrupted: a signal came; the same call goes on.
    """
    import torch

    from pseudolabel.pipeline.explained_classifier import exact_kernels
    from pseudolabel.pipeline.workers import make_ready
    from pseudolabel.training.device import pick

    check_limit(limit)
    settled, data = read_recipe(recipe, overrides)
    where = pick(device)
    steps = PostprocessingPlan.of(settled)
    ids = [record.id for record in data.records[:limit]]
    processes = worth_processes(len(ids), workers, steps.needs_processes())
    if processes:
        make_ready()
    say: Callable[[str], None] = (lambda text: None) if quiet else console.say
    prepared = prepare(settled, data, say)
    fingerprint = _fingerprint(prepared)
    with writing.open_run(out, "generate", fingerprint, overwrite=overwrite, new=new, wait=wait) as folder:
        names = prepared.loaded.space.names
        disk.write_text(folder.path / layout.RECIPE, dump_recipe(settled))
        disk.write_text(folder.path / layout.CLASSES, prepared.loaded.space.text())
        lanes = prepared.lanes(where)
        for text in lanes.first.targets():
            say(text)
        driver = Driver(folder, ids, names, REMEDY, quiet, on_bad == "stop")
        finished = Complete(folder, maps=steps.maps, overlays=steps.overlays)

        def events(stop: console.Stop) -> Any:
            return explained(
                prepared, lanes, prepared.data.records, stop, limit=limit, finished=finished, workers=workers
            )

        with exact_kernels():
            driver.run(events, partial(postprocess_image, plan=steps), workers=workers, processes=processes)
        model = lanes.first.model
        if lanes.batch < model.asked:
            console.say(f"memory ran out: {lanes.batch} items a forward instead of {model.asked}")
        return driver.summary(
            labels=settled.labels.source,
            labels_from=data.labels_from,
            device=torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu",
            workers=workers,
            versions={"timm": version("timm")},
            model=_model_facts(prepared, lanes, driver),
        )


def _fingerprint(prepared: Prepared) -> dict[str, Any]:
    """All that decides the bytes; each input's own digest stands in its manifest line."""
    records = prepared.data.records
    recipe = needs.decisive(prepared.recipe, plain_data(prepared.recipe), [record.id for record in records])
    del recipe["data"], recipe["classifier"], recipe["output"]
    rows = hashlib.sha256()
    for record in records:
        rows.update(json.dumps([record.id, record.labels]).encode("utf-8", "surrogatepass"))
    return {
        "recipe": recipe,
        "classifier": prepared.loaded.sha256,
        "classes": list(prepared.loaded.space.names),
        "images": {"count": len(records), "digest": rows.hexdigest()},
    }


def _model_facts(prepared: Prepared, lanes: Lanes, driver: Driver) -> ModelFacts:
    """What the summary says of the model."""
    import torch

    model, finished = lanes.first.model, driver.folder.finished()
    lines = [finished[item] for item in driver.ids if item in finished] if lanes.first.views > 1 else []
    shares = [line.get("uncovered", 0.0) for line in lines]
    return ModelFacts(
        classifier=prepared.loaded.sha256,
        target_layers=lanes.first.layers(),
        batch=lanes.batch,
        batch_asked=model.asked,
        norms_folded=model.norms,
        threads=torch.get_num_threads(),
        uncovered=round(sum(shares) / len(shares), 6) if shares else None,
    )
