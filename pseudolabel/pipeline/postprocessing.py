"""From the maps of one image to its mask: refiners, fusion, a background rule, postprocessors.

Pure functions of one image, in one torch thread wherever they run: the same bytes with any number of workers.
Shared by generate, refine, preview and sweep.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from pseudolabel.errors import UsageError
from pseudolabel.pipeline.needs import handed
from pseudolabel.recipes.composition import FuseShape, StepShape, swept_key
from pseudolabel.records import BACKGROUND, IGNORE
from pseudolabel.registry import Component, Parameters

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from pseudolabel.recipes.schema import GenerateRecipe
    from pseudolabel.records import LabelScores, Scores


def refine(
    scores: Scores, image: NDArray[np.uint8] | Tensor, steps: Sequence[StepShape], item: str = ""
) -> Scores:
    """Run refiners in the order given.

    Args:
        scores: raw maps of one image, (K, H, W) float32, any device; left as they are.
        image: (H, W, 3) uint8 RGB as shown.
        steps: refiners.
        item: id of the image, for refiners that need more than scores and image.

    Returns:
        Scores (K, H, W) float32 on the same device; those of an image without a class as they came.
    """
    if not scores.ids:
        return scores
    image_tensor = _tensor(image, scores)
    for step in steps:
        scores = step.component.run(scores, image_tensor, step.params, **handed(step, item))
    return scores


def combine(
    maps: Sequence[Scores],
    image: NDArray[np.uint8] | Tensor,
    branches: Sequence[Sequence[StepShape]],
    fuse: FuseShape | None,
    item: str = "",
) -> Scores:
    """Refine the maps of each branch, then make one map of them.

    Args:
        maps: raw maps of one image, one a branch: (K, H, W) float32 of the same classes.
        image: (H, W, 3) uint8 RGB as shown.
        branches: refiners of each branch.
        fuse: how several become one; None where there is one branch.
        item: id of the image.

    Returns:
        Scores (K, H, W) float32.
    """
    refined = [refine(scores, image, steps, item) for scores, steps in zip(maps, branches, strict=True)]
    if fuse is None or not maps[0].ids:
        return refined[0]
    from pseudolabel.pipeline.fusion import fused

    return refine(fused(refined, fuse.by, fuse.weights), image, fuse.refine, item)


def resolve(
    scores: Scores,
    image: NDArray[np.uint8] | Tensor,
    background: StepShape,
    postprocess: Sequence[StepShape] = (),
    item: str = "",
) -> NDArray[np.uint8]:
    """Turn refined scores into a mask.

    Args:
        scores: refined maps of one image, (K, H, W) float32, in the range that the background rule takes.
        image: (H, W, 3) uint8 RGB as shown.
        background: decides what is background.
        postprocess: postprocessors in the order given.
        item: id of the image.

    Returns:
        (H, W) uint8: 0, ids of the scores, 255 where nothing is kept. An image without a class is all
        background; a recipe that wants something else (`no_label`) does not ask.
    """
    import numpy as np

    if not scores.ids:
        return np.zeros(tuple(scores.values.shape[1:]), np.uint8)
    label_scores = background.component.run(
        scores, _tensor(image, scores), background.params, **handed(background, item)
    )
    return _mask(label_scores, image, postprocess, item)


def sweep(
    scores: Scores,
    image: NDArray[np.uint8] | Tensor,
    background: StepShape,
    values: Sequence[float],
    postprocess: Sequence[StepShape] = (),
    item: str = "",
) -> NDArray[np.uint8]:
    """Masks at many values of the key that the background rule declares as swept; shared work is done once.

    Args:
        scores, image, background, postprocess, item: as for `resolve`; the rule's own value of that key does
            not
            count.
        values: of `swept_key(background)`.

    Returns:
        (len(values), H, W) uint8, each plane equal to `resolve` at that value.

    Raises:
        UsageError: the background rule has no such key, or it refuses a value.
    """
    import numpy as np

    component, params = background.component, background.params
    key = swept_key(background)
    variants = [_with(component, params, key, value) for value in values]
    if not scores.ids or not variants:
        return np.zeros((len(variants), *scores.values.shape[1:]), np.uint8)
    image_tensor = _tensor(image, scores)
    at_once = component.traits.get("sweep")
    if at_once is not None and not postprocess:
        masks: NDArray[np.uint8] = at_once(scores, image_tensor, params, list(values)).cpu().numpy()
        return masks
    more = handed(background, item)
    return np.stack(
        [
            _mask(component.run(scores, image_tensor, variant, **more), image, postprocess, item)
            for variant in variants
        ]
    )


def _with(component: Component, params: Parameters, key: str, value: float) -> Parameters:
    try:
        return component.params.model_validate({**params.as_dict(), key: value})
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise UsageError(f"background.{key}: {value} is refused by {component.name!r} ({reason})") from error


def _mask(
    label_scores: LabelScores, image: NDArray[np.uint8] | Tensor, postprocess: Sequence[StepShape], item: str
) -> NDArray[np.uint8]:
    for step in postprocess:
        label_scores = step.component.run(
            label_scores, _tensor(image, label_scores), step.params, **handed(step, item)
        )
    mask: NDArray[np.uint8] = label_scores.mask().cpu().numpy()
    return mask


def _tensor(image: NDArray[np.uint8] | Tensor, beside: Scores | LabelScores) -> Tensor:
    """The image as a tensor on the device of the scores."""
    import torch

    if not isinstance(image, torch.Tensor):
        # a decoder's array may be read-only, which torch does not know
        image = torch.from_numpy(image if image.flags.writeable else image.copy())
    return image.to(beside.values.device)


@dataclass(frozen=True)
class PostprocessingPlan:
    """What is done to the maps of every image, and what is wanted beside the mask.

    Attributes:
        branches: refiners of each branch.
        fuse, background, postprocess: the rest of the recipe's steps.
        maps, overlays: files that are written beside the mask.
        keep_scores: hand the maps back before and after the refiners.
        superpixels: folder that keeps superpixels, or None.
    """

    branches: Sequence[Sequence[StepShape]]
    fuse: FuseShape | None
    background: StepShape
    postprocess: Sequence[StepShape]
    maps: bool = False
    overlays: bool = False
    keep_scores: bool = False
    superpixels: Path | None = None

    @staticmethod
    def of(recipe: GenerateRecipe) -> PostprocessingPlan:
        """What a recipe does after the maps."""
        folder = recipe.output.superpixels
        return PostprocessingPlan(
            tuple(branch.refine for branch in recipe.maps),
            recipe.fuse,
            recipe.background,
            recipe.postprocess,
            recipe.output.maps,
            recipe.output.overlays,
            superpixels=None if folder is None else Path(folder),
        )

    def steps(self) -> Iterator[StepShape]:
        """Every step."""
        for branch in self.branches:
            yield from branch
        if self.fuse is not None:
            yield from self.fuse.refine
        yield self.background
        yield from self.postprocess

    def needs_processes(self) -> bool:
        """Whether a component says that it runs on the CPU and may hold the interpreter's lock."""
        return any(step.component.device == "cpu" for step in self.steps())


@dataclass(frozen=True, eq=False)
class ImageMaps:
    """One image after the model.

    Attributes:
        id: of the image.
        labels: (K,) ascending class ids.
        image: (H, W, 3) uint8.
        maps: for each branch (K, h', w') float32, reduced, one a label; empty for an image without a class.
        fill: value of the whole mask of an image without a class.
        facts: what else its manifest line says.
        seconds: that the model took for it.
    """

    id: str
    labels: tuple[int, ...]
    image: NDArray[np.uint8]
    maps: Sequence[NDArray[np.float32]]
    fill: int = 0
    facts: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class ImageResult:
    """What came of the maps of one image.

    Attributes:
        mask: (H, W) uint8, or None where nothing is to be written.
        maps: bytes of the file of stored maps, or None.
        overlay: (H, W, 3) uint8, or None.
        flat: classes whose map is constant.
        fault: why nothing is to be written.
        raw, refined: maps of each branch at image size, and what the background rule took; empty unless
            asked for.
    """

    mask: NDArray[np.uint8] | None
    maps: bytes | None = None
    overlay: NDArray[np.uint8] | None = None
    flat: tuple[int, ...] = ()
    fault: str | None = None
    raw: tuple[Scores, ...] = ()
    refined: Scores | None = None

    @property
    def has_foreground(self) -> bool:
        """Whether some pixel of the mask is of a class."""
        return self.mask is not None and bool(((self.mask != BACKGROUND) & (self.mask != IGNORE)).any())


def postprocess_image(given: ImageMaps, plan: PostprocessingPlan) -> ImageResult:
    """Refine, decide on the background, postprocess and encode, in one thread of torch."""
    import torch

    from pseudolabel.superpixels.engine import kept_in

    threads = torch.get_num_threads()
    if threads != 1:
        torch.set_num_threads(1)  # sums over pixels must not depend on who does them
    try:
        with torch.no_grad(), kept_in(plan.superpixels):
            return _result(given, plan)
    finally:
        if threads != 1:
            torch.set_num_threads(threads)


def _result(given: ImageMaps, plan: PostprocessingPlan) -> ImageResult:
    import numpy as np
    import torch

    from pseudolabel.records import Scores
    from pseudolabel.runs.maps import encode_maps

    height, width = given.image.shape[:2]
    maps: list[Scores] = []
    flat: set[int] = set()
    for values in given.maps:
        scores, flat_ids, fault = _at_image_size(values, given)
        if fault is not None:
            return ImageResult(None, fault=fault)
        maps.append(scores)
        flat |= flat_ids
    refined = None
    if given.labels:
        refined = combine(maps, given.image, plan.branches, plan.fuse, given.id)
        mask = resolve(refined, given.image, plan.background, plan.postprocess, given.id)
    else:
        maps = [Scores((), torch.zeros(0, height, width)) for _ in plan.branches]
        mask = np.full((height, width), given.fill, np.uint8)
    overlay = None
    if plan.overlays:
        from pseudolabel.figures import overlays

        overlay = overlays.overlay(given.image, mask)
    stored = encode_maps(given.labels, maps) if plan.maps else None
    result = ImageResult(mask, stored, overlay, tuple(sorted(flat)))
    return replace(result, raw=tuple(maps), refined=refined) if plan.keep_scores else result


def _at_image_size(values: NDArray[np.float32], given: ImageMaps) -> tuple[Scores, set[int], str | None]:
    """One branch's maps on the image, the classes whose map is constant, and what is wrong with the maps."""
    import torch

    from pseudolabel.explain.method import on_image
    from pseudolabel.records import Scores

    height, width = given.image.shape[:2]
    full = on_image(torch.from_numpy(values), (height, width))
    low, high = full.amin(dim=(1, 2)), full.amax(dim=(1, 2))
    finite = (low.isfinite() & high.isfinite()).tolist()  # NaN is in both
    broken = [str(label) for label, fine in zip(given.labels, finite, strict=True) if not fine]
    fault = f"the map of class {', '.join(broken)} holds NaN or infinity" if broken else None
    # a constant map says nothing about where: it becomes zero, however high it is
    level = low == high
    flat = {label for label, same in zip(given.labels, level.tolist(), strict=True) if same}
    return Scores(given.labels, full.masked_fill(level[:, None, None], 0.0)), flat, fault
