"""The line from maps to a mask: refiners, a background rule, postprocessors.

Shared by the commands that walk it: generate, refine, sweep.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import ValidationError

from pseudolabel.errors import UsageError
from pseudolabel.recipes.composition import Fuse, Step, swept_key
from pseudolabel.registry import Component, Parameters

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from pseudolabel.records import LabelScores, Scores


def refine(scores: Scores, image: NDArray[np.uint8] | Tensor, steps: Sequence[Step]) -> Scores:
    """Run refiners in the order given.

    Args:
        scores: raw maps of one image, (K, H, W) float32, any device; left as they are.
        image: (H, W, 3) uint8 RGB as shown.
        steps: refiners.

    Returns:
        Scores (K, H, W) float32 on the same device; those of an image without a class as they came.
    """
    if not scores.ids:
        return scores
    image_tensor = _tensor(image, scores)
    for step in steps:
        component, params = step.component, step.params
        scores = component.run(scores, image_tensor, params)
    return scores


def combine(
    maps: Sequence[Scores],
    image: NDArray[np.uint8] | Tensor,
    refiners: Sequence[Sequence[Step]],
    fuse: Fuse | None,
) -> Scores:
    """Refine each kind of map, then make one of them.

    Args:
        maps: raw maps of one image, one a line: (K, H, W) float32 of the same classes.
        image: (H, W, 3) uint8 RGB as shown.
        refiners: of each line.
        fuse: how several become one; None where there is one line.

    Returns:
        Scores (K, H, W) float32.
    """
    refined = [refine(one, image, steps) for one, steps in zip(maps, refiners, strict=True)]
    if fuse is None or not maps[0].ids:
        return refined[0]
    from pseudolabel.pipeline.fusion import fused

    return refine(fused(refined, fuse.by, fuse.weights), image, fuse.refine)


def resolve(
    scores: Scores, image: NDArray[np.uint8] | Tensor, step: Step, postprocess: Sequence[Step] = ()
) -> NDArray[np.uint8]:
    """Turn refined scores into a mask.

    Args:
        scores: refined maps of one image, (K, H, W) float32, in the range that the background rule takes.
        image: (H, W, 3) uint8 RGB as shown.
        step: the background rule.
        postprocess: postprocessors in the order given.

    Returns:
        (H, W) uint8: 0, ids of the scores, 255 where a postprocessor or the background rule keeps nothing.
        An image
        without a class is all background; a recipe that wants something else (`no_label`) does not ask.
    """
    import numpy as np

    if not scores.ids:
        return np.zeros(tuple(scores.values.shape[1:]), np.uint8)
    component, params = step.component, step.params
    return _mask(component.run(scores, _tensor(image, scores), params), image, postprocess)


def sweep(
    scores: Scores,
    image: NDArray[np.uint8] | Tensor,
    step: Step,
    values: Sequence[float],
    postprocess: Sequence[Step] = (),
) -> NDArray[np.uint8]:
    """Masks at many values of the key that the background rule declares as swept; shared work is done once.

    Args:
        scores, image, step, postprocess: as for `resolve`; the step's own value of that key does not count.
        values: of `swept_key(step)`.

    Returns:
        (len(values), H, W) uint8, each plane equal to `resolve` at that value.

    Raises:
        UsageError: the background rule has no such key, or it refuses a value.
    """
    import numpy as np

    component, params = step.component, step.params
    key = swept_key(step)
    each = [_with(component, params, key, value) for value in values]
    if not scores.ids or not each:
        return np.zeros((len(each), *scores.values.shape[1:]), np.uint8)
    image_tensor = _tensor(image, scores)
    at_once = component.traits.get("sweep")
    if at_once is not None and not postprocess:
        masks: NDArray[np.uint8] = at_once(scores, image_tensor, params, list(values)).cpu().numpy()
        return masks
    return np.stack([_mask(component.run(scores, image_tensor, one), image, postprocess) for one in each])


def _with(component: Component, params: Parameters, key: str, value: float) -> Parameters:
    try:
        return component.params.model_validate({**params.as_dict(), key: value})
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise UsageError(f"background.{key}: {value} is refused by {component.name!r} ({reason})") from error


def _mask(
    label_scores: LabelScores, image: NDArray[np.uint8] | Tensor, postprocess: Sequence[Step]
) -> NDArray[np.uint8]:
    for step in postprocess:
        component, params = step.component, step.params
        label_scores = component.run(label_scores, _tensor(image, label_scores), params)
    mask: NDArray[np.uint8] = label_scores.mask().cpu().numpy()
    return mask


def _tensor(image: NDArray[np.uint8] | Tensor, beside: Scores | LabelScores) -> Tensor:
    """The image as a tensor on the device of the scores."""
    import torch

    if not isinstance(image, torch.Tensor):
        # a decoder's array may be read-only, which torch does not know
        image = torch.from_numpy(image if image.flags.writeable else image.copy())
    return image.to(beside.values.device)
