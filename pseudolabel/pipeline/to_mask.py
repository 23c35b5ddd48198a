"""`pseudolabel.to_mask`: the maps of one image to its mask."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pseudolabel.errors import UsageError
from pseudolabel.pipeline import postprocessing
from pseudolabel.recipes.composition import chain
from pseudolabel.recipes.loading import load_recipe
from pseudolabel.recipes.section import Key, Section
from pseudolabel.recipes.steps import (
    BackgroundStep,
    PostprocessorStep,
    RefinerStep,
    StepLike,
    step_data,
    steps_data,
)
from pseudolabel.records import MOST_NAMES
from pseudolabel.registry import RAW

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    from pseudolabel.records import Scores


class _Line(Section):
    """What is done to raw maps."""

    refine: tuple[RefinerStep, ...]
    background: BackgroundStep
    postprocess: tuple[PostprocessorStep, ...]

    def check(self) -> Iterator[tuple[Key, str]]:
        yield from chain(
            [
                *((("refine", place), step) for place, step in enumerate(self.refine)),
                (("background",), self.background),
                *((("postprocess", place), step) for place, step in enumerate(self.postprocess)),
            ],
            RAW,
            "the map",
        )


def to_mask(
    scores: Scores,
    image: Image | NDArray[np.uint8],
    *,
    refine: Sequence[StepLike] = (),
    background: StepLike,
    postprocess: Sequence[StepLike] = (),
) -> NDArray[np.uint8]:
    """The mask of one image from its raw maps: refiners, then the background, then postprocessors.

    Args:
        scores: raw maps (K, H, W) float32 of K classes with ids in 1..254, on any device, as
            `pseudolabel.explain` gives them; left as they are.
        image: the image that they are of, a PIL image or uint8 RGB (H, W, 3).
        refine: refiners in the order they run, each as a recipe names it: "normalise", or
            ("smooth", {"size": 13}), or {"name": "smooth", "size": 13}. `pl methods` lists them, background
            rules, postprocessors and their parameters.
        background: how background is decided, ("constant", {"threshold": 0.3}) for instance. Most rules take
            maps in 0..1, for which the refiner "normalise" goes before.
        postprocess: postprocessors in the order they run.

    Returns:
        (H, W) uint8: 0 background, the ids of the scores, 255 where a step keeps nothing. All background
        where there is no class.

    Raises:
        UsageError: no such component or parameter, a value out of its bounds, steps that do not fit together,
            or scores and image of two sizes; in a line each, as a recipe's.
        MachineError: a step needs a package that is not installed.

    Example:
        >>> import torch, pseudolabel as pl
        >>> from pseudolabel.records import Scores
        >>> image = torch.zeros(2, 3, 3, dtype=torch.uint8).numpy()
        >>> scores = Scores((1,), torch.tensor([[[0.0, 2.0, 8.0], [0.0, 4.0, 4.0]]]))
        >>> pl.to_mask(scores, image, refine=["normalise"], background=("constant", {"threshold": 0.3}))
        array([[0, 0, 1],
               [0, 1, 1]], dtype=uint8)
    """
    from pseudolabel.explain.public import rgb_array

    line = load_recipe(
        {
            "refine": steps_data("refine", refine),
            "background": step_data("background", background),
            "postprocess": steps_data("postprocess", postprocess),
        },
        _Line,
    )
    pixels = rgb_array(image)
    height, width = (int(side) for side in scores.values.shape[1:])
    if pixels.shape[:2] != (height, width):
        raise UsageError(
            f"image: is {pixels.shape[0]} x {pixels.shape[1]}, its scores {height} x {width}; give the image "
            "that was explained"
        )
    if scores.ids and not 1 <= min(scores.ids) <= max(scores.ids) < MOST_NAMES:
        raise UsageError(f"scores: ids {min(scores.ids)}..{max(scores.ids)} are not in 1..{MOST_NAMES - 1}")
    refined = postprocessing.refine(scores, pixels, line.refine)
    return postprocessing.resolve(refined, pixels, line.background, line.postprocess)
