"""`pl generate`: a classifier and image-level labels to pseudo-masks."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pseudolabel import console
from pseudolabel.errors import DataError, UsageError
from pseudolabel.recipes.loading import load_recipe, plain_data
from pseudolabel.recipes.schema import GenerateRecipe
from pseudolabel.recipes.yaml import dump_recipe
from pseudolabel.records import IGNORE, Dataset, ImageRecord
from pseudolabel.runs import disk, writing

if TYPE_CHECKING:
    from pseudolabel.classifier.checkpoint import Loaded
    from pseudolabel.pipeline.explaining import ClassifierOf
    from pseudolabel.pipeline.items import Job, Made
    from pseudolabel.pipeline.lanes import Lanes
    from pseudolabel.pipeline.reading import InputImage

WORTH_PROCESSES = 100  # images; processes take 1.5 s of a core to start, SLIC 0.08 s an image
FILLS = {"background": 0, "ignore": IGNORE}


@dataclass(frozen=True, eq=False)
class _Done:
    """A job after the pool: its manifest line, or why there is none."""

    job: Job
    made: Made
    entry: dict[str, Any] | None


@dataclass(frozen=True, eq=False)
class _Seen:
    """A batch after the model: labels of each image that could be read, and what is to be done."""

    labels: dict[str, tuple[int, ...] | None]
    jobs: list[Job]


@dataclass
class _Count:
    """What this call did; `failed` are names that stay undone."""

    done: int = 0
    skipped: int = 0
    failed: list[str] = field(default_factory=list)


def generate(
    recipe: Path | str | Mapping[str, Any] | GenerateRecipe,
    out: Path | str,
    *,
    overrides: Sequence[str] = (),
    device: str = "auto",
    workers: int = 2,
    limit: int | None = None,
    on_bad: Literal["skip", "stop"] = "skip",
    overwrite: bool = False,
    new: bool = False,
    wait: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
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
        summary.json's content with `run`, the folder. `failed` counts the images that have no mask.

    Raises:
        UsageError: recipe or folder refused.
        DataError: data or classifier refused, no gradient reaches the input, or on_bad is `stop`.
        MachineError: device, memory, disk, worker or lock.
        Interrupted: a signal came; the same call goes on.
    """
    from pseudolabel.pipeline.chosen import chosen_classifier
    from pseudolabel.pipeline.explaining import ClassifierOf
    from pseudolabel.pipeline.lanes import Lanes
    from pseudolabel.pipeline.workers import make_ready
    from pseudolabel.training.device import pick

    if limit is not None and limit < 1:
        raise UsageError(f"--limit {limit}: is not above 0 images")
    chosen = load_recipe(recipe, GenerateRecipe, overrides)
    where = pick(device)
    reader, params = chosen.data.component, chosen.data.params
    data: Dataset = reader.run(params)
    if workers and _wants_processes(chosen, data.records[:limit]):
        make_ready()
    say: Callable[[str], None] = (lambda text: None) if quiet else console.say
    loaded, data = chosen_classifier(chosen, data, say)
    fingerprint = _fingerprint(chosen, data, loaded)
    with writing.open_run(out, "generate", fingerprint, overwrite=overwrite, new=new, wait=wait) as folder:
        disk.write_text(folder.path / "recipe.yaml", dump_recipe(chosen))
        disk.write_text(folder.path / "classes.txt", "".join(f"{name}\n" for name in loaded.space.names))

        def classifier() -> ClassifierOf:
            return ClassifierOf(
                loaded, chosen.maps, device=where, batch=chosen.batch, precision=chosen.precision
            )

        lanes = Lanes(classifier, where)
        for text in lanes.first.targets():
            say(text)
        run = _Run(chosen, data, loaded, folder, lanes, workers, limit, on_bad == "stop", quiet)
        return {**run.complete(), "run": str(folder.path)}


def _wants_processes(chosen: GenerateRecipe, records: Sequence[ImageRecord]) -> bool:
    """Whether what follows the maps is worth worker processes."""
    from pseudolabel.pipeline.items import Walk

    return len(records) >= WORTH_PROCESSES and Walk.of(chosen).needs_processes()


def _fingerprint(chosen: GenerateRecipe, data: Dataset, loaded: Loaded) -> dict[str, Any]:
    """All that decides the bytes; each input's own digest stands in its manifest line."""
    recipe = plain_data(chosen)
    del recipe["data"], recipe["classifier"], recipe["output"]
    for key, plain in (("fuse", None), ("precision", "float32")):
        if recipe[key] == plain:
            del recipe[key]  # keys that folders of before them lack
    rows = hashlib.sha256()
    for record in data.records:
        rows.update(json.dumps([record.id, record.labels]).encode("utf-8", "surrogatepass"))
    return {
        "recipe": recipe,
        "classifier": loaded.sha256,
        "classes": list(loaded.space.names),
        "images": {"count": len(data.records), "digest": rows.hexdigest()},
    }


@dataclass
class _Run:
    """One call of `generate` after everything was checked."""

    chosen: GenerateRecipe
    data: Dataset
    loaded: Loaded
    folder: writing.RunFolder
    lanes: Lanes
    workers: int
    limit: int | None
    stop_on_bad: bool
    quiet: bool

    def __post_init__(self) -> None:
        self.wanted = dict.fromkeys((record.id for record in self.data.records[: self.limit]), True)
        self.count = _Count()

    def complete(self) -> dict[str, Any]:
        """Do what is not done, write manifest and summary; returns the summary."""

        from pseudolabel.pipeline.explaining import exact_kernels
        from pseudolabel.pipeline.items import Walk, make
        from pseudolabel.pipeline.workers import pool

        walk = Walk.of(self.chosen)
        begun = time.monotonic()
        with (
            console.interruptible() as stop,
            console.progress(len(self.wanted), "masks", self.quiet) as bar,
            pool(
                partial(make, walk=walk),
                self._put,
                workers=self.workers,
                processes=_wants_processes(self.chosen, self.data.records[: self.limit]),
            ) as submit,
            exact_kernels(),
        ):
            waiting: deque[Future[_Done]] = deque()
            for images, seen in self.lanes.run(self._read(), partial(self._explain, stop=stop)):
                if seen is None:
                    break
                self._note(images, seen.labels, bar.advance)
                for job in seen.jobs:
                    waiting.append(submit(job))
                    while waiting and (waiting[0].done() or len(waiting) > 4 * self.workers):
                        self._settle(waiting.popleft().result(), bar.advance)
            while waiting:
                self._settle(waiting.popleft().result(), bar.advance)
            if stop.requested:
                done = self.count.done + self.count.skipped
                raise stop.fault(f"{done} of {len(self.wanted)} masks are finished")
        self.folder.finish(list(self.wanted))
        summary = self._summary(time.monotonic() - begun)
        disk.write_json(self.folder.path / "summary.json", summary)
        if self.lanes.batch < self.lanes.first.model.asked:
            asked = self.lanes.first.model.asked
            console.say(f"memory ran out: {self.lanes.batch} items a forward instead of {asked}")
        for name in self.count.failed[:10]:
            console.say(f"{name}: no mask; see {writing.PROBLEMS}")
        return summary

    def _read(self) -> Iterator[list[InputImage]]:
        """Images of one batch after the other, read ahead."""
        from pseudolabel.classifier.feed import ahead
        from pseudolabel.pipeline.batches import plan
        from pseudolabel.pipeline.reading import Complete, read_batch

        output = self.chosen.output
        finished = Complete(self.folder, maps=output.maps, overlays=output.overlays)
        batches = plan(self.data.records, self.lanes.first.images, self.limit)
        read = partial(read_batch, wanted=self.wanted, finished=finished)
        for _, images in ahead(batches, read, workers=self.workers, depth=self.workers + 2):
            yield images

    def _explain(
        self, classifier: ClassifierOf, images: list[InputImage], stop: console.Stop
    ) -> _Seen | None:
        """The model's part of a batch, in a lane; None where the run is to stop."""
        from pseudolabel.pipeline.items import Job

        if stop.requested:
            return None
        classifier.model.leave = lambda: stop.leaving
        whole = [image for image in images if image.pixels is not None]
        pixels = [image.pixels for image in whole if image.pixels is not None]
        found: list[tuple[int, ...] | None] = [image.record.labels or () for image in whole]
        source = self.chosen.labels
        if source.source == "predicted" and whole:
            found = classifier.predicted(classifier.inputs(pixels), source.threshold)
        labels = {image.record.id: row for image, row in zip(whole, found, strict=True)}
        shown = [(image, row) for image, row in zip(whole, found, strict=True) if row]
        jobs = self._explained(classifier, shown) if any(one.wanted for one, _ in shown) else []
        fill = FILLS.get(self.chosen.no_label)
        for image in whole:
            if labels[image.record.id] == () and image.wanted and fill is not None:
                assert image.pixels is not None
                facts = {"input_sha256": image.sha256}
                jobs.append(Job(image.record.id, (), image.pixels, (), fill, facts))
        return _Seen(labels, jobs)

    def _explained(
        self, classifier: ClassifierOf, shown: Sequence[tuple[InputImage, tuple[int, ...]]]
    ) -> list[Job]:
        from pseudolabel.pipeline.items import Job

        pixels = [image.pixels for image, _ in shown if image.pixels is not None]
        keys = [(self.chosen.seed, image.record.id) for image, _ in shown]
        maps = classifier.maps(classifier.inputs(pixels), [row for _, row in shown], keys)
        jobs = []
        for (image, row), values, uncovered in zip(shown, maps.values, maps.uncovered, strict=True):
            if image.wanted and image.pixels is not None:
                facts: dict[str, Any] = {"input_sha256": image.sha256}
                if uncovered is not None:
                    facts["uncovered"] = uncovered
                jobs.append(Job(image.record.id, row, image.pixels, values, facts=facts))
        return jobs

    def _note(
        self,
        images: list[InputImage],
        labels: Mapping[str, tuple[int, ...] | None],
        advance: Callable[[], None],
    ) -> None:
        """Take note of what is done already and of what cannot be done.

        Args:
            images: a batch.
            labels: of those that could be read: () without a class, None where the scores are not finite.
            advance: moves the progress by one.
        """
        for image in images:
            record = image.record
            if not image.wanted:
                if record.id in self.wanted:
                    self.count.skipped += 1
                    advance()
                continue
            if record.id in self.folder.finished():
                self.folder.forget(record.id)  # its input has changed, or a file that is now wanted
            if image.fault is not None:
                self._fail(record, "unreadable", image.fault, "mend or replace the file", advance)
            elif labels[record.id] is None:
                what = "the classifier's scores are NaN or infinite"
                self._fail(record, "not_finite", what, "look at image and classifier", advance)
            elif not labels[record.id] and self.chosen.no_label == "refuse":
                said = "has no label" if self.chosen.labels.source == "given" else "no class is predicted"
                remedy = "label it, take it off the list, or set no_label: background or ignore"
                self._fail(record, "no_label", said, remedy, advance)

    def _put(self, job: Job, made: Made) -> _Done:
        from pseudolabel.pipeline.items import put

        return _Done(job, made, put(self.folder, job, made))

    def _settle(self, done: _Done, advance: Callable[[], None]) -> None:
        """Take note of a finished image."""
        if done.entry is None:
            record = ImageRecord(done.job.id, Path(done.job.id))
            remedy = "look at image and classifier; a lower precision or a broken weight does this"
            self._fail(record, "not_finite", done.made.fault or "no mask", remedy, advance)
            return
        if done.made.flat:
            names = ", ".join(self.loaded.space.names[c] for c in done.made.flat)
            self.folder.problem(
                done.job.id,
                "flat_map",
                f"the map is the same everywhere: {names}",
                "nothing is found there; look at the image",
                item=done.job.id,
            )
        self.folder.record(done.entry)  # last: a kill before it does the image again, note and all
        self.count.done += 1
        advance()

    def _fail(
        self, record: ImageRecord, code: str, what: str, remedy: str, advance: Callable[[], None]
    ) -> None:
        """List an image that has no mask.

        Raises:
            DataError: the run is to stop at the first.
        """
        if self.stop_on_bad:
            raise DataError(f"{record.id}: {what}; {remedy}")
        self.folder.problem(record.id, code, what, remedy)
        self.count.failed.append(record.id)
        advance()

    def _summary(self, seconds: float) -> dict[str, Any]:
        """What was done and in what surroundings; nothing of it decides bytes."""
        import timm
        import torch

        from pseudolabel import __version__

        model, count = self.lanes.first.model, self.count
        finished = self.folder.finished()
        names = [name for name in self.wanted if name in finished]
        views = self.lanes.first.views > 1
        shares = [finished[name].get("uncovered", 0.0) for name in names] if views else []
        problems = self.folder.problems
        return {
            "images": len(names),
            "done": count.done,
            "skipped": count.skipped,
            "failed": len(count.failed),
            "flat_maps": sum(problem["code"] == "flat_map" for problem in problems),
            "problems": len(problems),
            "seconds": round(seconds, 2),
            "images_per_second": round(count.done / seconds, 3) if seconds > 0 else None,
            "uncovered": round(sum(shares) / len(shares), 6) if shares else None,
            "labels": self.chosen.labels.source,
            "target_layers": self.lanes.first.layers(),
            "batch": self.lanes.batch,
            "batch_asked": model.asked,
            "norms_folded": model.norms,
            "device": torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else "cpu",
            "threads": torch.get_num_threads(),
            "workers": self.workers,
            "classifier": self.loaded.sha256,
            "versions": {
                "pseudolabel": __version__,
                "python": platform.python_version(),
                "torch": torch.__version__,
                "timm": timm.__version__,
            },
        }
