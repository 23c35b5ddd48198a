"""The line from maps to a mask: refiners, a resolver, finishers; and whether they fit together.

Shared by the verbs that walk it: generate, refine, sweep.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from pydantic import ValidationError

from pseudolabel.errors import UsageFault
from pseudolabel.registry import RAW, SAME, UNIT, Brick, Parameters

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from pseudolabel.fusion import By
    from pseudolabel.records import Belief, Scores

Key = tuple[str | int, ...]
_WORDS = {RAW: "raw ones", UNIT: "ones in 0..1"}


class MapLine(Protocol):
    """A kind of map as a recipe names it; `pseudolabel.schema.MapLine` is one."""

    @property
    def method(self) -> Step:
        """The map method."""

    @property
    def refiners(self) -> Sequence[Step]:
        """Its refiners."""


class Fuse(Protocol):
    """How several lines of maps become one; `pseudolabel.schema.Fuse` is one."""

    @property
    def by(self) -> By:
        """Mean, max or geometric."""

    @property
    def weights(self) -> Sequence[float] | None:
        """One a line."""

    @property
    def refiners(self) -> Sequence[Step]:
        """Of the combined map."""


class Step(Protocol):
    """A brick as a recipe names it; `pseudolabel.recipe.Step` is one."""

    @property
    def brick_name(self) -> str:
        """The brick's name in its room."""

    def load(self) -> tuple[Brick, Parameters]:
        """The brick and its validated parameters."""


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
    picture = _tensor(image, scores)
    for step in steps:
        brick, params = step.load()
        scores = brick.run(scores, picture, params)
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
    from pseudolabel.fusion import fused

    return refine(fused(refined, fuse.by, fuse.weights), image, fuse.refiners)


def resolve(
    scores: Scores, image: NDArray[np.uint8] | Tensor, step: Step, finish: Sequence[Step] = ()
) -> NDArray[np.uint8]:
    """Turn refined scores into a mask.

    Args:
        scores: refined maps of one image, (K, H, W) float32, in the range that the resolver takes.
        image: (H, W, 3) uint8 RGB as shown.
        step: the resolver.
        finish: finishers in the order given.

    Returns:
        (H, W) uint8: 0, ids of the scores, 255 where a finisher or the resolver keeps nothing. An image
        without a class is all background; a recipe that wants something else (`no_label`) does not ask.
    """
    import numpy as np

    if not scores.ids:
        return np.zeros(tuple(scores.values.shape[1:]), np.uint8)
    brick, params = step.load()
    return _mask(brick.run(scores, _tensor(image, scores), params), image, finish)


def sweep(
    scores: Scores,
    image: NDArray[np.uint8] | Tensor,
    step: Step,
    values: Sequence[float],
    finish: Sequence[Step] = (),
) -> NDArray[np.uint8]:
    """Masks at many values of the key that the resolver declares as swept, what can be shared made once.

    Args:
        scores, image, step, finish: as for `resolve`; the step's own value of that key does not count.
        values: of `swept_key(step)`.

    Returns:
        (len(values), H, W) uint8, each plane equal to `resolve` at that value.

    Raises:
        UsageFault: the resolver has no such key, or it refuses a value.
    """
    import numpy as np

    brick, params = step.load()
    key = swept_key(step)
    each = [_with(brick, params, key, value) for value in values]
    if not scores.ids or not each:
        return np.zeros((len(each), *scores.values.shape[1:]), np.uint8)
    picture = _tensor(image, scores)
    at_once = brick.traits.get("sweep")
    if at_once is not None and not finish:
        masks: NDArray[np.uint8] = at_once(scores, picture, params, list(values)).cpu().numpy()
        return masks
    return np.stack([_mask(brick.run(scores, picture, one), image, finish) for one in each])


def swept_key(step: Step) -> str:
    """The key of a resolver that `pl sweep` varies.

    Raises:
        UsageFault: it declares none.
    """
    brick, _ = step.load()
    key = brick.traits.get("swept")
    if key is None:
        raise UsageFault(f"resolver: {brick.name!r} has no threshold to sweep; take another resolver")
    return str(key)


def swept_unit(step: Step) -> str:
    """The unit that a resolver declares for its swept key.

    Raises:
        UsageFault: it declares no such key.
    """
    key = swept_key(step)
    extra = step.load()[0].params.model_fields[key].json_schema_extra
    return str(extra.get("unit", "")) if isinstance(extra, dict) else ""


def misfits(
    lines: Sequence[MapLine],
    fused: Sequence[Step],
    resolver: Step,
    finish: Sequence[Step] = (),
) -> Iterator[tuple[Key, str]]:
    """Where a recipe does not compose: a brick takes scores in 0..1 and gets raw ones.

    Args:
        lines: of maps with their refiners; maps are raw unless the method says otherwise.
        fused: refiners of the combined map, where there are several lines.
        resolver, finish: the rest of the line.

    Yields:
        Key from the top of the recipe, and the message.
    """
    given, giver = RAW, "the map"
    for index, one in enumerate(lines):
        given, giver = one.method.load()[0].gives or RAW, repr(one.method.brick_name)
        steps: list[tuple[Key, Step]] = [
            (("maps", index, "refiners", place), step) for place, step in enumerate(one.refiners)
        ]
        given, giver = yield from _chain(steps, given, giver)
        if len(lines) > 1 and given != UNIT:
            yield (
                ("maps", index, "refiners"),
                f"fuse takes scores in 0..1, {giver} gives {_WORDS[given]}; end with {{name: normalise}}",
            )
            given = UNIT  # one message for one gap
    if len(lines) > 1:
        giver = "fuse"
    steps = [
        *((("fuse", "refiners", place), step) for place, step in enumerate(fused)),
        (("resolver",), resolver),
        *((("finish", place), step) for place, step in enumerate(finish)),
    ]
    yield from _chain(steps, given, giver)


def _chain(
    steps: Sequence[tuple[Key, Step]], given: str, giver: str
) -> Generator[tuple[Key, str], None, tuple[str, str]]:
    """Misfits of bricks one after the other; returns what the last one gives and its name."""
    for key, step in steps:
        brick, _ = step.load()
        if brick.takes == UNIT and given != UNIT:
            yield (
                key,
                f"{brick.name!r} takes scores in 0..1, {giver} gives {_WORDS[given]}; "
                "put {name: normalise} between",
            )
            given = UNIT  # one message for one gap
        if brick.gives not in (SAME, None):
            given = brick.gives
        giver = repr(brick.name)
    return given, giver


def _with(brick: Brick, params: Parameters, key: str, value: float) -> Parameters:
    try:
        return brick.params.model_validate({**params.as_dict(), key: value})
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise UsageFault(f"resolver.{key}: {value} is refused by {brick.name!r} ({reason})") from error


def _mask(belief: Belief, image: NDArray[np.uint8] | Tensor, finish: Sequence[Step]) -> NDArray[np.uint8]:
    for step in finish:
        brick, params = step.load()
        belief = brick.run(belief, _tensor(image, belief), params)
    mask: NDArray[np.uint8] = belief.mask().cpu().numpy()
    return mask


def _tensor(image: NDArray[np.uint8] | Tensor, beside: Scores | Belief) -> Tensor:
    """The image as a tensor on the device of the scores."""
    import torch

    if not isinstance(image, torch.Tensor):
        # a decoder's array may be read-only, which torch does not know
        image = torch.from_numpy(image if image.flags.writeable else image.copy())
    return image.to(beside.values.device)
