"""`pl preview`: what a recipe does to a few images, on one sheet, before the long run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pseudolabel import console, images, masks
from pseudolabel.commands._selection import named, spread
from pseudolabel.errors import DataError, MachineError, UsageError
from pseudolabel.recipes.loading import load_recipe
from pseudolabel.recipes.schema import GenerateRecipe
from pseudolabel.recipes.steps import Step
from pseudolabel.records import Dataset, ImageRecord
from pseudolabel.runs import disk, writing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pseudolabel.classifier.checkpoint import Loaded
    from pseudolabel.figures.preview_sheet import Row
    from pseudolabel.pipeline.explaining import ClassifierOf
    from pseudolabel.pipeline.items import Job, Made, Walk
    from pseudolabel.recipes.loading import load_recipe
    from pseudolabel.recipes.steps import Step

SHEET, RESULT, OVERLAYS = "preview.png", "preview.json", "overlays"
MAPS = 3  # classes of one image whose maps are shown


@dataclass(eq=False)
class _Seen:
    """One image and all that is told of it."""

    record: ImageRecord
    pixels: NDArray[np.uint8] | None = None
    labels: tuple[int, ...] = ()
    made: Made | None = None
    truth: NDArray[np.uint8] | None = None
    seconds: float = 0.0
    fault: str | None = None
    said: dict[str, Any] = field(default_factory=dict)


def preview(
    recipe: Path | str | Mapping[str, Any] | GenerateRecipe,
    out: Path | str,
    *,
    count: int = 8,
    ids: Sequence[str] | None = None,
    overrides: Sequence[str] = (),
    device: str = "auto",
    quiet: bool = False,
) -> dict[str, Any]:
    """Do what `generate` does to a few images and show it; nothing of it is kept for the run.

    Args:
        recipe: of `pl generate`: a YAML file, plain data, or a recipe already read.
        out: a folder for previews alone; an older preview in it is replaced. Gets preview.png (the sheet),
            preview.json (the result), overlays/<id>.png, problems.jsonl.
        count: how many images, picked by `spread`.
        ids: these images instead, in this order.
        overrides: `background.threshold=0.2` and the like.
        device: auto, cpu, cuda or cuda:n.
        quiet: no progress.

    Returns:
        `shown`, each with `id, labels, maps_shown, miou, seconds, flat, uncovered, fault` (`miou`: mean
        IoU over the classes of this one image's truth and mask, null where there is no truth); `images`,
        `failed`, `listed` (images of the recipe's list), `seconds_a_image` (all but the first, which
        warms the model up, where there are three), `estimate_seconds` (listed images x seconds),
        `picked` (how they were chosen), `device`, `classifier`, and `run`, the folder.

    Raises:
        UsageError: recipe, folder or an id refused.
        DataError: data or classifier refused.
        MachineError: device, memory, disk or lock.
        Interrupted: a signal came.
    """
    from pseudolabel.pipeline.chosen import chosen_classifier
    from pseudolabel.pipeline.explaining import ClassifierOf, exact_kernels
    from pseudolabel.training.device import pick

    if count < 1:
        raise UsageError(f"--count {count}: is not above 0 images")
    chosen = load_recipe(recipe, GenerateRecipe, overrides)
    where = pick(device)
    reader, params = chosen.data.component, chosen.data.params
    data: Dataset = reader.run(params)
    say: Callable[[str], None] = (lambda text: None) if quiet else console.say
    loaded, data = chosen_classifier(chosen, data, say)
    records = named(data.records, ids) if ids is not None else spread(data.records, count, chosen.seed)
    _refuse_run(Path(out))
    with writing.open_run(out, "preview", {}) as folder:
        _clear(folder.path)
        classifier = ClassifierOf(
            loaded, chosen.maps, device=where, batch=chosen.batch, precision=chosen.precision
        )
        for text in classifier.targets():
            say(text)
        line = _Line(chosen, data, loaded, classifier, folder)
        seen: list[_Seen] = []
        with (
            console.interruptible() as stop,
            console.progress(len(records), "images", quiet) as bar,
            exact_kernels(),
        ):
            for record in records:
                if stop.requested:
                    raise stop.fault(f"{len(seen)} of {len(records)} images, no sheet", kept=False)
                seen.append(line.see(record))
                bar.advance()
        result = line.result(seen, "named" if ids is not None else "spread")
        images.write_image(folder.path / SHEET, line.sheet(seen, result))
        disk.write_json(folder.path / RESULT, result)
        return {**result, "run": str(folder.path)}


def _refuse_run(out: Path) -> None:
    """A preview writes over what it finds, which no run's masks must become."""
    path = out / writing.FINGERPRINT
    if path.is_file() and disk.read_json(path).get("kind") != "preview":
        raise UsageError(f"{out}: is a run's folder; give previews a folder of their own")


def _clear(folder: Path) -> None:
    """Take the older preview away; the folder is ours, its fingerprint says so."""
    try:
        overlays = sorted((folder / OVERLAYS).rglob("*.png"))  # an id may name a folder
        for path in (folder / RESULT, folder / SHEET, folder / writing.PROBLEMS, *overlays):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise MachineError(f"{folder}: cannot be cleared ({error}); take another folder") from error


@dataclass
class _Line:
    """The line of a recipe, one image after the other, timed."""

    chosen: GenerateRecipe
    data: Dataset
    loaded: Loaded
    classifier: ClassifierOf
    folder: writing.RunFolder

    def see(self, record: ImageRecord) -> _Seen:
        """Walk one image down the line; one that cannot be done says why."""
        seen = _Seen(record)
        begun = time.monotonic()
        try:
            self._walk(seen)
            seen.seconds = time.monotonic() - begun
            if seen.made is not None and seen.made.overlay is not None:
                images.write_image(self.folder.file(OVERLAYS, record.id, ".png"), seen.made.overlay)
            self._score(seen)
        except DataError as error:
            seen.fault = str(error)
        if seen.fault is not None:
            self.folder.problem(record.id, "not_shown", seen.fault, "look at image, truth and classifier")
        return seen

    def _walk(self, seen: _Seen) -> None:
        from pseudolabel.pipeline.items import Job, make

        record = seen.record
        seen.pixels = images.read_image(record.image)
        inputs = self.classifier.inputs([seen.pixels])
        labels: tuple[int, ...] | None = record.labels or ()
        if self.chosen.labels.source == "predicted":
            (labels,) = self.classifier.predicted(inputs, self.chosen.labels.threshold)
        if labels is None:
            raise DataError("the classifier's scores are NaN or infinite")
        seen.labels = labels
        job = None if labels else self._unlabelled(seen)
        if job is None:
            found = self.classifier.maps(inputs, [labels], [(self.chosen.seed, record.id)])
            if found.uncovered[0] is not None:
                seen.said["uncovered"] = found.uncovered[0]
            job = Job(record.id, labels, seen.pixels, found.values[0])
        seen.made = make(job, self._steps())
        seen.fault = seen.made.fault

    def _unlabelled(self, seen: _Seen) -> Job:
        from pseudolabel.commands.generate import FILLS
        from pseudolabel.pipeline.items import Job

        fill = FILLS.get(self.chosen.no_label)
        if fill is None or seen.pixels is None:
            raise DataError("it has no label, and no class is predicted for it")
        return Job(seen.record.id, (), seen.pixels, (), fill)

    def _steps(self) -> Walk:
        from dataclasses import replace

        from pseudolabel.pipeline.items import Walk

        return replace(Walk.of(self.chosen), maps=False, overlays=True, scores=True)

    def _score(self, seen: _Seen) -> None:
        """Hold the mask against the truth, where there is one of the same classes."""
        from pseudolabel.figures.mistakes import kinds
        from pseudolabel.metrics.confusion import confusion, defined, iou, mean, read

        made, path = seen.made, seen.record.mask
        if made is None or made.mask is None or path is None or self.data.space != self.loaded.space:
            return
        truth = masks.read_mask(path)
        height, width = truth.shape
        masks.check_size((height, width), (made.mask.shape[0], made.mask.shape[1]), path)
        masks.check_values(truth, self.data.space, path)
        names = len(self.data.space.names)
        union = iou(read(confusion(truth, made.mask, names), "background"))
        seen.truth = truth
        seen.said["miou"] = defined(mean(union, range(names))[0])
        seen.said["shares"] = {
            kind: round(float(place.mean()), 6) for kind, place in kinds(made.mask, truth).items()
        }

    def result(self, seen: Sequence[_Seen], picked: str) -> dict[str, Any]:
        """What preview.json holds."""
        import torch

        names, model = self.loaded.space.names, self.classifier.model
        timed = [one.seconds for one in seen if one.fault is None]
        if len(timed) > 2:
            timed = timed[1:]
        each = sum(timed) / len(timed) if timed else None
        listed = len(self.data.records)
        return {
            "shown": [
                {
                    "id": one.record.id,
                    "labels": [names[label] for label in one.labels],
                    "maps_shown": [names[label] for label in self._strongest(one)],
                    "miou": None,
                    "shares": None,
                    "uncovered": None,
                    "seconds": round(one.seconds, 3),
                    "flat": [names[label] for label in (one.made.flat if one.made else ())],
                    "fault": one.fault,
                    **one.said,
                }
                for one in seen
            ],
            "images": sum(one.fault is None for one in seen),
            "failed": sum(one.fault is not None for one in seen),
            "listed": listed,
            "picked": picked,
            "seconds_a_image": None if each is None else round(each, 3),
            "estimate_seconds": None if each is None else round(each * listed, 1),
            "device": torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else "cpu",
            "classifier": self.loaded.sha256,
        }

    def _strongest(self, seen: _Seen) -> list[int]:
        """The classes whose maps are shown: the largest raw values first."""
        if seen.made is None or not seen.made.raw:
            return []
        raw = seen.made.raw[0]
        peaks = dict(zip(raw.ids, raw.values.amax(dim=(1, 2)).tolist(), strict=True))
        return sorted(peaks, key=lambda label: (-peaks[label], label))[:MAPS]

    def sheet(self, seen: Sequence[_Seen], result: Mapping[str, Any]) -> NDArray[np.uint8]:
        """The contact sheet (H, W, 3) uint8."""
        from pseudolabel.figures.preview_sheet import preview_sheet

        title = f"{len(seen)} of {result['listed']} images"
        if result["seconds_a_image"] is not None:
            took = console.duration(result["estimate_seconds"])
            each, where = result["seconds_a_image"], result["device"]
            title += f": {each:.2g} s each; {took} for all, one after the other, on {where}"
        lines = [title, *_walked(self.chosen)]
        if self.data.space != self.loaded.space and any(one.record.mask for one in seen):
            lines.append("the truth has other classes than the classifier and is not shown")
        rows = [self._row(one, facts) for one, facts in zip(seen, result["shown"], strict=True)]
        names = dict(enumerate(self.loaded.space.names))
        return preview_sheet(rows, names, lines)

    def _row(self, seen: _Seen, facts: Mapping[str, Any]) -> Row:
        from pseudolabel.figures.preview_sheet import ClassMap, Row
        from pseudolabel.registry import UNIT

        maps = []
        made = seen.made
        if made is not None and made.raw and made.refined is not None:
            unit = self.chosen.background.component.takes == UNIT
            for label in self._strongest(seen):
                at = made.raw[0].ids.index(label)
                raw, refined = made.raw[0].values[at].numpy(), made.refined.values[at].numpy()
                maps.append(ClassMap(label, raw, refined, unit))
        mask = None if made is None else made.mask
        return Row(_caption(facts), seen.pixels, maps, mask, seen.truth)


def _walked(chosen: GenerateRecipe) -> list[str]:
    """The line of a recipe in words, a text a branch and one for the rest: only what is no default."""
    texts = [" > ".join(map(_step, (one.method, *one.aggregate, *one.refine))) for one in chosen.maps]
    rest = [_step(step) for step in (chosen.background, *chosen.postprocess)]
    if chosen.fuse is not None:
        weights = "" if chosen.fuse.weights is None else f" {list(chosen.fuse.weights)}"
        rest = [f"fuse by {chosen.fuse.by}{weights}", *map(_step, chosen.fuse.refine), *rest]
        return [*texts, " > ".join(rest)]
    return [" > ".join([*texts, *rest])]


def _step(step: Step) -> str:
    defaults = step.component.params.model_fields
    moved = {
        key: value for key, value in step.params.as_dict().items() if value != defaults[key].get_default()
    }
    said = ", ".join(f"{key} {value}" for key, value in moved.items())
    return step.component_name + (f" ({said})" if said else "")


def _caption(facts: Mapping[str, Any]) -> str:
    """One line under an image."""
    parts = [facts["id"], ", ".join(facts["labels"]) or "no class"]
    if facts["fault"] is not None:
        return f"{facts['id']} | not done: {facts['fault']}"
    if len(facts["labels"]) > len(facts["maps_shown"]):
        shown, there = facts["maps_shown"], len(facts["labels"])
        parts.append(f"maps of the {len(shown)} strongest of {there} classes")
    if facts["miou"] is not None:
        parts.append(f"mIoU {100 * facts['miou']:.1f} %")
    if facts["flat"]:
        parts.append(f"the map is the same everywhere: {', '.join(facts['flat'])}")
    if facts["uncovered"]:
        parts.append(f"{100 * facts['uncovered']:.1f} % covered by no crop")
    return " | ".join([*parts, f"{facts['seconds']:.2f} s"])
