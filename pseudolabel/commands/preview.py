"""`pl preview`: what a recipe does to a few images, on one sheet, before the long run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pseudolabel import console, images, masks
from pseudolabel.commands._selection import named, spread
from pseudolabel.errors import DataError, MachineError, UsageError
from pseudolabel.pipeline.driver import NotDone
from pseudolabel.pipeline.explaining import Prepared, explained, prepare, read_recipe
from pseudolabel.pipeline.postprocessing import ImageMaps, ImageResult, PostprocessingPlan, postprocess_image
from pseudolabel.recipes.overrides import Overrides
from pseudolabel.recipes.schema import GenerateRecipe
from pseudolabel.recipes.steps import Step
from pseudolabel.records import ImageRecord
from pseudolabel.runs import disk, layout, writing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pseudolabel.figures.preview_sheet import Row
    from pseudolabel.pipeline.lanes import Lanes

SHEET, RESULT = "preview.png", "preview.json"
MAPS = 3  # classes of one image whose maps are shown


@dataclass(eq=False)
class _Shown:
    """One image and all that the sheet says of it."""

    record: ImageRecord
    maps: ImageMaps | None = None
    result: ImageResult | None = None
    truth: NDArray[np.uint8] | None = None
    seconds: float = 0.0
    fault: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PreviewSummary:
    """What `pl preview` returns and writes to preview.json.

    Attributes:
        run: the folder.
        shown: of each image `id, labels, maps_shown, miou, shares, uncovered, seconds, flat, fault`; `miou`
            is the
            mean IoU over the classes of this one image's truth and mask, None where there is no truth.
        images, failed: images that could be shown, and that could not.
        listed: images of the recipe's list.
        picked: how the images were chosen, `named` or `spread`.
        seconds_per_image: all but the first, which warms the model up, where there are three.
        estimate_seconds: listed images x seconds per image.
        device, classifier: where it ran, and the sha256 of the classifier's file.
    """

    run: str
    shown: list[dict[str, Any]]
    images: int
    failed: int
    listed: int
    picked: str
    seconds_per_image: float | None
    estimate_seconds: float | None
    device: str
    classifier: str

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def preview(
    recipe: Path | str | Mapping[str, Any] | GenerateRecipe,
    out: Path | str,
    *,
    count: int = 8,
    ids: Sequence[str] | None = None,
    overrides: Overrides = (),
    device: str = "auto",
    quiet: bool = False,
) -> PreviewSummary:
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
        What preview.json holds, and the folder.

    Raises:
        UsageError: recipe, folder or an id refused.
        DataError: data or classifier refused.
        MachineError: device, memory, disk or lock.
        Interrupted: a signal came.
    """
    from pseudolabel.pipeline.explained_classifier import exact_kernels
    from pseudolabel.training.device import pick

    if count < 1:
        raise UsageError(f"--count {count}: is not above 0 images")
    settled, data = read_recipe(recipe, overrides)
    where = pick(device)
    prepared = prepare(settled, data, (lambda text: None) if quiet else console.say)
    records = prepared.data.records
    records = tuple(named(records, ids) if ids is not None else spread(records, count, settled.seed))
    _refuse_run(Path(out))
    with writing.open_run(out, "preview", {}) as folder:
        _clear(folder.path)
        lanes = prepared.lanes(where)
        for text in lanes.first.targets():
            if not quiet:
                console.say(text)
        sheet = _Preview(prepared, lanes, folder)
        with exact_kernels():
            shown = sheet.show(records, quiet)
        summary = sheet.summary(shown, "named" if ids is not None else "spread")
        images.write_image(folder.path / SHEET, sheet.sheet(shown, summary))
        plain = summary.as_dict()
        del plain["run"]
        disk.write_json(folder.path / RESULT, plain)
        return summary


def _refuse_run(out: Path) -> None:
    """A preview writes over what it finds, which no run's masks must become."""
    path = out / layout.FINGERPRINT
    if path.is_file() and disk.read_json(path).get("kind") != "preview":
        raise UsageError(f"{out}: is a run's folder; give previews a folder of their own")


def _clear(folder: Path) -> None:
    """Take the older preview away; the folder is ours, its fingerprint says so."""
    try:
        overlays = sorted((folder / layout.OVERLAYS).rglob("*.png"))  # an id may name a folder
        for path in (folder / RESULT, folder / SHEET, folder / layout.PROBLEMS, *overlays):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise MachineError(f"{folder}: cannot be cleared ({error}); take another folder") from error


@dataclass
class _Preview:
    """A few images through a recipe, and what is written of them."""

    prepared: Prepared
    lanes: Lanes
    folder: writing.RunFolder

    def show(self, records: Sequence[ImageRecord], quiet: bool) -> list[_Shown]:
        """Explain and postprocess every record; one that cannot be done says why."""
        shown = {record.id: _Shown(record) for record in records}
        plan = replace(
            PostprocessingPlan.of(self.prepared.recipe), maps=False, overlays=True, keep_scores=True
        )
        with (
            console.interruptible() as stop,
            console.progress(len(records), "images", quiet) as bar,
        ):
            for event in explained(self.prepared, self.lanes, records, stop):
                if isinstance(event, NotDone):
                    self._fail(shown[event.id], event.what)
                elif isinstance(event, ImageMaps):
                    self._finish(shown[event.id], event, plan)
                bar.advance()
            if stop.requested:
                raise stop.fault(f"{bar.done} of {len(records)} images, no sheet", kept=False)
        return list(shown.values())

    def _finish(self, image: _Shown, maps: ImageMaps, plan: PostprocessingPlan) -> None:
        start = time.monotonic()
        image.maps, image.result = maps, postprocess_image(maps, plan)
        image.seconds = maps.seconds + time.monotonic() - start
        if "uncovered" in maps.facts:
            image.facts["uncovered"] = maps.facts["uncovered"]
        try:
            if image.result.overlay is not None:
                path = self.folder.path / layout.overlay_file(image.record.id)
                images.write_image(path, image.result.overlay)
            self._score(image)
        except DataError as error:
            self._fail(image, str(error))
        else:
            if image.result.fault is not None:
                self._fail(image, image.result.fault)

    def _fail(self, image: _Shown, fault: str) -> None:
        image.fault = fault
        self.folder.problem(image.record.id, "not_shown", fault, "look at image, truth and classifier")

    def _score(self, image: _Shown) -> None:
        """Hold the mask against the truth, where there is one of the same classes."""
        from pseudolabel.figures.mistakes import kinds
        from pseudolabel.metrics.confusion import confusion, defined, iou, mean, read

        result, path, data = image.result, image.record.mask, self.prepared.data
        if result is None or result.mask is None or path is None or data.space != self.prepared.loaded.space:
            return
        truth = masks.read_mask(path)
        height, width = truth.shape
        masks.check_size((height, width), (result.mask.shape[0], result.mask.shape[1]), path)
        masks.check_values(truth, data.space, path)
        names = len(data.space.names)
        union = iou(read(confusion(truth, result.mask, names), "background"))
        image.truth = truth
        image.facts["miou"] = defined(mean(union, range(names))[0])
        image.facts["shares"] = {
            kind: round(float(region.mean()), 6) for kind, region in kinds(result.mask, truth).items()
        }

    def summary(self, shown: Sequence[_Shown], picked: str) -> PreviewSummary:
        """What the preview says."""
        import torch

        model = self.lanes.first.model
        seconds = [image.seconds for image in shown if image.fault is None]
        if len(seconds) > 2:
            seconds = seconds[1:]
        mean_seconds = sum(seconds) / len(seconds) if seconds else None
        listed = len(self.prepared.data.records)
        return PreviewSummary(
            run=str(self.folder.path),
            shown=[self._facts(image) for image in shown],
            images=sum(image.fault is None for image in shown),
            failed=sum(image.fault is not None for image in shown),
            listed=listed,
            picked=picked,
            seconds_per_image=None if mean_seconds is None else round(mean_seconds, 3),
            estimate_seconds=None if mean_seconds is None else round(mean_seconds * listed, 1),
            device=torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else "cpu",
            classifier=self.prepared.loaded.sha256,
        )

    def _facts(self, image: _Shown) -> dict[str, Any]:
        names = self.prepared.loaded.space.names
        return {
            "id": image.record.id,
            "labels": [names[label] for label in (image.maps.labels if image.maps else ())],
            "maps_shown": [names[label] for label in _strongest(image)],
            "miou": None,
            "shares": None,
            "uncovered": None,
            "seconds": round(image.seconds, 3),
            "flat": [names[label] for label in (image.result.flat if image.result else ())],
            "fault": image.fault,
            **image.facts,
        }

    def sheet(self, shown: Sequence[_Shown], summary: PreviewSummary) -> NDArray[np.uint8]:
        """The contact sheet (H, W, 3) uint8."""
        from pseudolabel.figures.preview_sheet import preview_sheet

        prepared = self.prepared
        title = f"{len(shown)} of {summary.listed} images"
        if summary.seconds_per_image is not None and summary.estimate_seconds is not None:
            took = console.duration(summary.estimate_seconds)
            title += (
                f": {summary.seconds_per_image:.2g} s each; {took} for all, one after the other, on "
                f"{summary.device}"
            )
        lines = [title, *_in_words(prepared.recipe)]
        if prepared.data.space != prepared.loaded.space and any(image.record.mask for image in shown):
            lines.append("the truth has other classes than the classifier and is not shown")
        rows = [self._row(image, facts) for image, facts in zip(shown, summary.shown, strict=True)]
        return preview_sheet(rows, dict(enumerate(prepared.loaded.space.names)), lines)

    def _row(self, image: _Shown, facts: Mapping[str, Any]) -> Row:
        from pseudolabel.figures.preview_sheet import ClassMap, Row
        from pseudolabel.registry import UNIT

        maps = []
        result = image.result
        if result is not None and result.raw and result.refined is not None:
            unit = self.prepared.recipe.background.component.takes == UNIT
            for label in _strongest(image):
                index = result.raw[0].ids.index(label)
                raw, refined = result.raw[0].values[index].numpy(), result.refined.values[index].numpy()
                maps.append(ClassMap(label, raw, refined, unit))
        mask = None if result is None else result.mask
        values = None if image.maps is None else image.maps.image
        return Row(_caption(facts), values, maps, mask, image.truth)


def _strongest(image: _Shown) -> list[int]:
    """The classes whose maps are shown: the largest raw values first."""
    if image.result is None or not image.result.raw:
        return []
    raw = image.result.raw[0]
    peaks = dict(zip(raw.ids, raw.values.amax(dim=(1, 2)).tolist(), strict=True))
    return sorted(peaks, key=lambda label: (-peaks[label], label))[:MAPS]


def _in_words(recipe: GenerateRecipe) -> list[str]:
    """The steps of a recipe, a text a branch and one for the rest: only what is no default."""
    branches = [
        " > ".join(map(_step, (branch.method, *branch.aggregate, *branch.refine))) for branch in recipe.maps
    ]
    rest = [_step(step) for step in (recipe.background, *recipe.postprocess)]
    if recipe.fuse is None:
        return [" > ".join([*branches, *rest])]
    weights = "" if recipe.fuse.weights is None else f" {list(recipe.fuse.weights)}"
    rest = [f"fuse by {recipe.fuse.by}{weights}", *map(_step, recipe.fuse.refine), *rest]
    return [*branches, " > ".join(rest)]


def _step(step: Step) -> str:
    fields = step.component.params.model_fields
    moved = {key: value for key, value in step.params.as_dict().items() if value != fields[key].get_default()}
    text = ", ".join(f"{key} {value}" for key, value in moved.items())
    return step.component_name + (f" ({text})" if text else "")


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
