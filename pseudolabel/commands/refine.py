"""`pl refine`: masks made again from the stored maps of a run, without the model.

Another refiner, background, postprocessor or threshold gives a new run folder of the same form as `pl
generate` writes; with the recipe unchanged it holds the same masks, byte for byte.
"""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pseudolabel import console, images
from pseudolabel.commands.generate import FILLS
from pseudolabel.errors import DataError, MachineError, UsageError
from pseudolabel.recipes.loading import plain_data
from pseudolabel.recipes.schema import GenerateRecipe
from pseudolabel.recipes.yaml import dump_recipe
from pseudolabel.records import Dataset, LabelSpace
from pseudolabel.runs import disk, writing
from pseudolabel.scoring.truth import run_recipe, size

if TYPE_CHECKING:
    from pseudolabel.pipeline.items import Job, Made, Walk

FREE = ("data", "fuse", "background", "postprocess", "output", "no_label")  # keys that do not decide the maps
OWN = {"id", "labels", "height", "width", "size", "sha256", "files"}  # of a manifest line; rewritten here
SMALL = 16  # images below which starting processes costs more than it brings


@dataclass(frozen=True)
class _Task:
    """One image whose maps are stored: what a worker reads, and what its manifest line keeps."""

    id: str
    labels: tuple[int, ...]
    image: Path
    maps: Path
    maps_sha256: str
    fill: int | None
    facts: dict[str, Any] = field(default_factory=dict)


def refine(
    run: Path | str,
    out: Path | str,
    *,
    overrides: Sequence[str] = (),
    workers: int = 2,
    limit: int | None = None,
    overwrite: bool = False,
    new: bool = False,
    wait: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
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
        summary.json's content with `run`, the folder. `failed` counts the images that have no mask.

    Raises:
        UsageError: overrides or folder refused.
        DataError: the run has no manifest or no maps, or its classes are not those of the data.
        MachineError: disk, worker or lock.
        Interrupted: a signal came; the same call goes on.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"--limit {limit}: is not above 0 images")
    source = Path(run)
    chosen = _recipe(source, overrides)
    lines = _lines(source)
    names = _names(source)
    reader, params = chosen.data.component, chosen.data.params
    data: Dataset = reader.run(params)
    if chosen.labels.source == "given" and data.space.names != names:
        raise DataError(f"{source}: its classes are not those of the data; look at data.root")
    tasks = _tasks(source, chosen, data, lines)
    fingerprint = _fingerprint(chosen, names, tasks)
    with writing.open_run(out, "refine", fingerprint, overwrite=overwrite, new=new, wait=wait) as folder:
        disk.write_text(folder.path / "recipe.yaml", dump_recipe(chosen))
        disk.write_text(folder.path / "classes.txt", "".join(f"{name}\n" for name in names))
        work = _Refinement(chosen, names, tasks[:limit], folder, workers, quiet)
        return {**work.complete(), "run": str(folder.path)}


def _recipe(source: Path, overrides: Sequence[str]) -> GenerateRecipe:
    """The run's recipe with the overrides.

    Raises:
        UsageError: an override touches what the stored maps were made with.
    """
    before = plain_data(run_recipe(source))
    chosen = run_recipe(source, ("output.maps=false", *overrides))
    after = plain_data(chosen)
    for plain in (before, after):
        for key in FREE:
            del plain[key]
        for map_line in plain["maps"]:
            del map_line["refine"]
    changes = writing.differences(before, after)
    if changes:
        raise UsageError(
            f"{source}: the stored maps were made otherwise ({'; '.join(changes)}); only refine, background, "
            "postprocess, output and data can change here, `pl generate` makes other maps"
        )
    return chosen


def _lines(source: Path) -> dict[str, dict[str, Any]]:
    """The run's manifest by id.

    Raises:
        DataError: the run is not finished, or it stored no maps.
    """
    manifest = source / writing.MANIFEST
    if not manifest.is_file():
        raise DataError(f"{source}: no {writing.MANIFEST}, so the run is not finished; run it to its end")
    lines = {line["id"]: line for line in disk.read_json_lines(manifest)}
    if not any(_maps_of(name) in line.get("files", {}) for name, line in lines.items()):
        raise DataError(
            f"{source}: stores no maps; run `pl generate {source}/recipe.yaml -o {source} "
            "--set output.maps=true` to add them"
        )
    return lines


def _names(source: Path) -> tuple[str, ...]:
    try:
        text = (source / "classes.txt").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{source / 'classes.txt'}: cannot be read ({error})") from error
    return LabelSpace(tuple(text.splitlines())).names


def _maps_of(name: str) -> str:
    return f"maps/{name}.safetensors"


def _tasks(
    source: Path, chosen: GenerateRecipe, data: Dataset, lines: Mapping[str, dict[str, Any]]
) -> list[_Task]:
    """The images of the list that the run has a mask of, in list order.

    Raises:
        DataError: there is none.
    """
    tasks = []
    for record in data.records:
        line = lines.get(record.id)
        if line is None:
            continue
        facts = {key: value for key, value in line.items() if key not in OWN}
        known = line.get("files", {}).get(_maps_of(record.id), {})
        fill = FILLS.get(chosen.no_label)
        maps, digest = source / _maps_of(record.id), known.get("sha256", "")
        tasks.append(_Task(record.id, tuple(line["labels"]), record.image, maps, digest, fill, facts))
    if not tasks:
        raise DataError(f"{source}: holds no image of the data's list; look at data.split")
    return tasks


def _fingerprint(chosen: GenerateRecipe, names: Sequence[str], tasks: Sequence[_Task]) -> dict[str, Any]:
    """All that decides the bytes: the line after the maps, and the digests of maps and images."""
    recipe = plain_data(chosen)
    rows = hashlib.sha256()
    for task in tasks:
        row = [task.id, task.maps_sha256, task.facts.get("input_sha256")]
        rows.update(json.dumps(row).encode("utf-8", "surrogatepass"))
    return {
        "refine": [line["refine"] for line in recipe["maps"]],
        **{key: recipe[key] for key in ("background", "postprocess", "no_label")},
        **({"fuse": recipe["fuse"]} if recipe["fuse"] else {}),
        "classes": list(names),
        "maps": {"count": len(tasks), "digest": rows.hexdigest()},
    }


class _Refinement:
    """One call of `refine` after everything was checked."""

    def __init__(
        self,
        chosen: GenerateRecipe,
        names: tuple[str, ...],
        tasks: Sequence[_Task],
        folder: writing.RunFolder,
        workers: int,
        quiet: bool,
    ) -> None:
        self.chosen, self.names, self.tasks, self.folder = chosen, names, tasks, folder
        self.workers, self.quiet = workers, quiet
        self.done = 0
        self.failed: list[str] = []

    def complete(self) -> dict[str, Any]:
        """Do what is not done, write manifest and summary; returns the summary."""
        from pseudolabel.pipeline.workers import pool

        walk = self._walk()
        begun = time.monotonic()
        left = [task for task in self.tasks if not self._is_done(task, walk)]
        with (
            console.interruptible() as stop,
            console.progress(len(self.tasks), "masks", self.quiet, done=len(self.tasks) - len(left)) as bar,
            pool(
                partial(_make, walk=walk),
                self._put,
                workers=self.workers,
                processes=len(left) >= SMALL and walk.needs_processes(),
            ) as submit,
        ):
            waiting: deque[tuple[_Task, Future[tuple[Made, dict[str, Any] | None]]]] = deque()
            for task in left:
                if stop.requested:
                    break
                waiting.append((task, submit(task)))
                if len(waiting) > 4 * self.workers:
                    self._settle(*waiting.popleft())
                    bar.advance()
            while waiting:
                self._settle(*waiting.popleft())
                bar.advance()
            if stop.requested:
                finished = sum(task.id in self.folder.finished() for task in self.tasks)
                raise stop.fault(f"{finished} of {len(self.tasks)} masks are finished")
        self.folder.finish([task.id for task in self.tasks])
        summary = self._summary(time.monotonic() - begun)
        disk.write_json(self.folder.path / "summary.json", summary)
        for name in self.failed[:10]:
            console.say(f"{name}: no mask; see {writing.PROBLEMS}")
        return summary

    def _walk(self) -> Walk:
        from pseudolabel.pipeline.items import Walk

        return Walk.of(self.chosen)

    def _is_done(self, task: _Task, walk: Walk) -> bool:
        """Whether every file that is wanted of an image is there."""
        line = self.folder.finished().get(task.id)
        if line is None or (walk.maps and _maps_of(task.id) not in line.get("files", {})):
            return False
        return not walk.overlays or (self.folder.path / "overlays" / f"{task.id}.png").is_file()

    def _put(self, task: _Task, made: Made) -> tuple[Made, dict[str, Any] | None]:
        from pseudolabel.pipeline.items import put

        return made, put(self.folder, _job(task), made)

    def _settle(self, task: _Task, future: Future[tuple[Made, dict[str, Any] | None]]) -> None:
        """Take note of a finished image."""
        made, entry = future.result()
        if entry is None:
            remedy = "mend or replace the file, or run `pl generate` again"
            self.folder.problem(task.id, "not_refined", made.fault or "no mask", remedy)
            self.failed.append(task.id)
            return
        self.folder.record(entry)
        if made.flat:
            what = f"the map is the same everywhere: {', '.join(self.names[c] for c in made.flat)}"
            remedy = "nothing is found there; look at the image"
            self.folder.problem(task.id, "flat_map", what, remedy, item=task.id)
        self.done += 1

    def _summary(self, seconds: float) -> dict[str, Any]:
        import torch

        from pseudolabel import __version__

        problems = self.folder.problems
        finished = self.folder.finished()
        return {
            "images": sum(task.id in finished for task in self.tasks),
            "done": self.done,
            "skipped": len(self.tasks) - self.done - len(self.failed),
            "failed": len(self.failed),
            "flat_maps": sum(problem["code"] == "flat_map" for problem in problems),
            "problems": len(problems),
            "seconds": round(seconds, 2),
            "images_per_second": round(self.done / seconds, 3) if seconds > 0 else None,
            "labels": self.chosen.labels.source,
            "device": "cpu",
            "workers": self.workers,
            "versions": {
                "pseudolabel": __version__,
                "python": platform.python_version(),
                "torch": torch.__version__,
            },
        }


def _make(task: _Task, walk: Walk) -> Made:
    """Read an image and its maps and do the rest of the line: what a worker does."""
    from pseudolabel.pipeline import items

    try:
        return items.make(_read(task), walk)
    except (DataError, MachineError) as fault:
        return items.Made(None, fault=str(fault))


def _read(task: _Task) -> Job:
    """The image and its maps.

    Raises:
        DataError: one of them is missing, damaged, or another than the run had.
    """
    from pseudolabel.pipeline.items import read_maps

    if not task.maps_sha256 or not task.maps.is_file():
        raise DataError(f"{task.maps}: no stored maps of this image")
    if disk.sha256_file(task.maps) != task.maps_sha256:
        raise DataError(f"{task.maps}: is not what the run wrote (another sha256)")
    images.read_size(task.image)  # refuses what is no plain file before it is opened
    if disk.sha256_file(task.image) != task.facts.get("input_sha256"):
        raise DataError(f"{task.image}: has changed since the maps were made")
    pixels, maps = images.read_image(task.image), read_maps(task.maps)
    for scores in maps:
        if tuple(scores.values.shape[1:]) != pixels.shape[:2]:
            wrong, wanted = size(scores.values.shape[1:]), size(pixels.shape[:2])
            raise DataError(f"{task.maps}: maps are {wrong}, the image {wanted}")
        if scores.ids != task.labels:
            raise DataError(f"{task.maps}: maps of classes {scores.ids}, {task.labels} wanted")
    if not task.labels and task.fill is None:
        raise DataError(f"{task.id}: has no label; set no_label: background or ignore")
    return _job(task, pixels, [scores.values.numpy() for scores in maps] if task.labels else ())


def _job(task: _Task, pixels: Any = None, maps: Any = None) -> Job:
    from pseudolabel.pipeline.items import Job

    return Job(task.id, task.labels, pixels, maps, task.fill or 0, task.facts)
