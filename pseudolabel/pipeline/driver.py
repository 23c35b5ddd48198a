"""The one loop behind generate and refine: submit, collect, record, progress, stop, summary.

A source gives events, one for each image: it is done already, it cannot be done, or a job for the worker
pool. The driver sends jobs away, writes the files of each result, then its manifest line, and counts.
"""

from __future__ import annotations

import dataclasses
import platform
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pseudolabel import console, images, masks
from pseudolabel.errors import DataError
from pseudolabel.runs import disk, layout, writing

if TYPE_CHECKING:
    from pseudolabel.pipeline.postprocessing import ImageResult

WORTH_PROCESSES = (
    16  # images per worker process; starting one takes about 1 s of a core, SLIC 0.08 s an image
)
FLAT, NOTHING = "flat_map", "nothing_found"  # codes of problems of images that have a mask
NAMED = 10  # images without a mask that are named on the terminal


class Job(Protocol):
    """An image that is to get a mask; `ImageMaps` is one."""

    @property
    def id(self) -> str:
        """Of the image."""

    @property
    def labels(self) -> tuple[int, ...]:
        """(K,) ascending class ids."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What else its manifest line says."""


@dataclass(frozen=True)
class AlreadyDone:
    """An image whose files are there."""

    id: str


@dataclass(frozen=True)
class NotDone:
    """An image that cannot be done: a line of problems.jsonl."""

    id: str
    code: str
    what: str
    remedy: str


Event = AlreadyDone | NotDone | Job
J = TypeVar("J", bound=Job)
Collected = tuple[Job, "ImageResult", dict[str, Any] | None]


@dataclass(frozen=True)
class ModelFacts:
    """What the summary of a run says of the model; nothing of it decides bytes.

    Attributes:
        classifier: sha256 of its file.
        target_layers: of each branch that explains a layer of the network, that layer.
        batch, batch_asked: items of one forward, and what was asked for: less where memory ran out.
        norms_folded: batch norms that were folded into convolutions.
        threads: of torch.
        uncovered: mean share of pixels that no view covered; None where every view is the whole image.
    """

    classifier: str
    target_layers: list[str]
    batch: int
    batch_asked: int
    norms_folded: int
    threads: int
    uncovered: float | None


@dataclass(frozen=True)
class RunSummary:
    """What `pl generate` and `pl refine` return and write to summary.json.

    Attributes:
        run: the folder.
        images: images of the list that have a mask now.
        done, skipped, failed: images of this call: masks made, there already, that stay without one.
        flat_maps: images with a class whose map is constant.
        nothing_found: images with a class whose mask holds none: background or 255 everywhere.
        problems: lines of problems.jsonl.
        seconds, images_per_second: of this call.
        labels: where the image-level labels came from, `given` or `predicted`.
        labels_from: given by what: `csv`, `xml`, `masks`, ...; see `Dataset`.
        device, workers, versions: in what surroundings.
        classifier: sha256 of the classifier that made the maps; None where that is not known.
        target_layers, batch, batch_asked, norms_folded, threads, uncovered: see `ModelFacts`; None where maps
            were stored and no model ran.
    """

    run: str
    images: int
    done: int
    skipped: int
    failed: int
    flat_maps: int
    nothing_found: int
    problems: int
    seconds: float
    images_per_second: float | None
    labels: str
    labels_from: str | None
    device: str
    workers: int
    versions: dict[str, str]
    classifier: str | None = None
    target_layers: list[str] | None = None
    batch: int | None = None
    batch_asked: int | None = None
    norms_folded: int | None = None
    threads: int | None = None
    uncovered: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return dataclasses.asdict(self)


def worth_processes(count: int, workers: int, needed: bool) -> bool:
    """Whether worker processes pay: a component holds the interpreter's lock, and there are enough images.

    Args:
        count: images to do.
        workers: processes that would be started.
        needed: some component runs on the CPU only (`PostprocessingPlan.needs_processes`).
    """
    return needed and workers > 0 and count >= WORTH_PROCESSES * workers


@dataclass
class Driver:
    """One call of a command that makes a mask for each image of a list.

    Attributes:
        folder: the run that is written.
        ids: of the images, in list order.
        class_names: by class id.
        remedy: what to do about an image whose maps are refused.
        quiet: no progress.
        stop_on_bad: end at the first image that cannot be done.
        done, skipped, failed: what this call did; `failed` are ids that stay undone.
    """

    folder: writing.RunFolder
    ids: Sequence[str]
    class_names: Sequence[str]
    remedy: str
    quiet: bool = False
    stop_on_bad: bool = False
    done: int = 0
    skipped: int = 0
    failed: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def run(
        self,
        events: Callable[[console.Stop], Iterable[Event]],
        make: Callable[[J], ImageResult],
        *,
        workers: int,
        processes: bool,
    ) -> None:
        """Do what is not done and write the manifest.

        Args:
            events: gives one event for each image; ends early where a stop is requested.
            make: a job to its result; pure, picklable where processes are used.
            workers: threads, and processes behind them; 0 does each job in turn.
            processes: send `make` to worker processes.

        Raises:
            DataError: an image cannot be done and `stop_on_bad` is set.
            Interrupted: a signal came; the same call goes on.
        """
        from pseudolabel.pipeline.workers import pool

        start = time.monotonic()
        with (
            console.interruptible() as stop,
            console.progress(len(self.ids), "masks", self.quiet) as bar,
            pool(make, self._put, workers=workers, processes=processes) as submit,
        ):
            waiting: deque[Future[Collected]] = deque()
            for event in events(stop):
                if isinstance(event, AlreadyDone):
                    self.skipped += 1
                    bar.advance()
                    continue
                if event.id in self.folder.finished():
                    self.folder.forget(event.id)  # its input has changed, or a file that is now wanted
                if isinstance(event, NotDone):
                    self._fail(event)
                    bar.advance()
                    continue
                waiting.append(submit(event))  # type: ignore[arg-type]
                while waiting and (waiting[0].done() or len(waiting) > 4 * workers):
                    self._collect(*waiting.popleft().result())
                    bar.advance()
            while waiting:
                self._collect(*waiting.popleft().result())
                bar.advance()
            if stop.requested:
                raise stop.fault(f"{self.done + self.skipped} of {len(self.ids)} masks are finished")
        self.folder.complete(list(self.ids))
        self.seconds = time.monotonic() - start

    def summary(
        self,
        *,
        labels: str,
        labels_from: str | None,
        device: str,
        workers: int,
        versions: Mapping[str, str] | None = None,
        model: ModelFacts | None = None,
        classifier: str | None = None,
    ) -> RunSummary:
        """Write summary.json and name what has no mask.

        Args:
            labels, labels_from, device, workers, model: see `RunSummary`.
            versions: of further packages.
            classifier: sha256 of the classifier of stored maps, where no model ran.
        """
        import torch

        from pseudolabel import __version__

        finished, problems = self.folder.finished(), self.folder.problems
        summary = RunSummary(
            run=str(self.folder.path),
            images=sum(item in finished for item in self.ids),
            done=self.done,
            skipped=self.skipped,
            failed=len(self.failed),
            flat_maps=sum(problem["code"] == FLAT for problem in problems),
            nothing_found=sum(problem["code"] == NOTHING for problem in problems),
            problems=len(problems),
            seconds=round(self.seconds, 2),
            images_per_second=round(self.done / self.seconds, 3) if self.seconds > 0 else None,
            labels=labels,
            labels_from=labels_from if labels == "given" else None,
            device=device,
            workers=workers,
            versions={
                "pseudolabel": __version__,
                "python": platform.python_version(),
                "torch": torch.__version__,
                **(versions or {}),
            },
            **({"classifier": classifier} if model is None else dataclasses.asdict(model)),
        )
        plain = summary.as_dict()
        del plain["run"]
        disk.write_json(self.folder.path / layout.SUMMARY, plain)
        for item in self.failed[:NAMED]:
            console.say(f"{item}: no mask; see {layout.PROBLEMS}")
        return summary

    def _put(self, job: Job, result: ImageResult) -> Collected:
        return job, result, write_files(self.folder, job, result)

    def _collect(self, job: Job, result: ImageResult, line: dict[str, Any] | None) -> None:
        """Take note of a finished image."""
        if line is None:
            self._fail(NotDone(job.id, "not_finite", result.fault or "no mask", self.remedy))
            return
        if result.flat:
            names = ", ".join(self.class_names[label] for label in result.flat)
            what = f"the map is the same everywhere: {names}"
            remedy = "nothing is found there; look at the image"
            self.folder.problem(job.id, FLAT, what, remedy, item=job.id)
        if not result.has_foreground and job.labels:
            names = ", ".join(self.class_names[label] for label in job.labels)
            what = f"no pixel of its mask is of a class: {names}"
            self.folder.problem(job.id, NOTHING, what, "look at the threshold and the map", item=job.id)
        self.folder.record(line)  # last: a kill before it does the image again, note and all
        self.done += 1

    def _fail(self, event: NotDone) -> None:
        """List an image that has no mask."""
        if self.stop_on_bad:
            raise DataError(f"{event.id}: {event.what}; {event.remedy}")
        self.folder.problem(event.id, event.code, event.what, event.remedy)
        self.failed.append(event.id)


def write_files(folder: writing.RunFolder, job: Job, result: ImageResult) -> dict[str, Any] | None:
    """Write the files of an image, the mask last.

    Returns:
        Its manifest line; None where there is no mask.

    Raises:
        DataError: the id makes no file name inside the folder.
        MachineError: a file cannot be written.
    """
    if result.mask is None:
        return None
    files = {}
    if result.maps is not None:
        name = layout.maps_file(job.id)
        disk.write_bytes(folder.path / name, result.maps)
        files[name] = {"size": len(result.maps), "sha256": disk.sha256_bytes(result.maps)}
    if result.overlay is not None:
        images.write_image(folder.path / layout.overlay_file(job.id), result.overlay)
    data = masks.encode_mask(result.mask)
    disk.write_bytes(folder.path / layout.mask_file(job.id), data)
    height, width = result.mask.shape
    line: dict[str, Any] = {
        "id": job.id,
        "labels": list(job.labels),
        "height": height,
        "width": width,
        "size": len(data),
        "sha256": disk.sha256_bytes(data),
        **job.facts,
    }
    return {**line, "files": files} if files else line
