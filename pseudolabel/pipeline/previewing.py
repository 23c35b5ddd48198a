"""A few images through a recipe, and what is shown of them: maps, masks, mistakes and time."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pseudolabel import console, images, masks
from pseudolabel.errors import DataError
from pseudolabel.pipeline.driver import NotDone
from pseudolabel.pipeline.explaining import Prepared, explained
from pseudolabel.pipeline.postprocessing import ImageMaps, ImageResult, PostprocessingPlan, postprocess_image
from pseudolabel.recipes.schema import GenerateRecipe
from pseudolabel.recipes.steps import Step
from pseudolabel.records import ImageRecord
from pseudolabel.runs import layout, writing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pseudolabel.figures.preview_sheet import Row
    from pseudolabel.pipeline.lanes import Lanes

MAPS = 3  # classes of one image whose maps are shown


@dataclass(eq=False)
class ShownImage:
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


@dataclass
class Preview:
    """A few images through a recipe, and what is written of them."""

    prepared: Prepared
    lanes: Lanes
    folder: writing.RunFolder

    def show(self, records: Sequence[ImageRecord], quiet: bool) -> list[ShownImage]:
        """Explain and postprocess every record; one that cannot be done says why."""
        shown = {record.id: ShownImage(record) for record in records}
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
                    self._complete(shown[event.id], event, plan)
                bar.advance()
            if stop.requested:
                raise stop.fault(f"{bar.done} of {len(records)} images, no sheet", kept=False)
        return list(shown.values())

    def _complete(self, image: ShownImage, maps: ImageMaps, plan: PostprocessingPlan) -> None:
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

    def _fail(self, image: ShownImage, fault: str) -> None:
        image.fault = fault
        self.folder.problem(image.record.id, "not_shown", fault, "look at image, truth and classifier")

    def _score(self, image: ShownImage) -> None:
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

    def summary(self, shown: Sequence[ShownImage], picked: str) -> PreviewSummary:
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

    def _facts(self, image: ShownImage) -> dict[str, Any]:
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

    def sheet(self, shown: Sequence[ShownImage], summary: PreviewSummary) -> NDArray[np.uint8]:
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

    def _row(self, image: ShownImage, facts: Mapping[str, Any]) -> Row:
        from pseudolabel.figures.preview_sheet import Row, ShownMap
        from pseudolabel.registry import UNIT

        maps = []
        result = image.result
        if result is not None and result.raw and result.refined is not None:
            unit = self.prepared.recipe.background.component.takes == UNIT
            for label in _strongest(image):
                index = result.raw[0].ids.index(label)
                raw, refined = result.raw[0].values[index].numpy(), result.refined.values[index].numpy()
                maps.append(ShownMap(label, raw, refined, unit))
        mask = None if result is None else result.mask
        values = None if image.maps is None else image.maps.image
        return Row(_caption(facts), values, maps, mask, image.truth)


def _strongest(image: ShownImage) -> list[int]:
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
