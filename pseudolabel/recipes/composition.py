"""Whether the steps of a recipe fit together, and which key of its background rule is swept."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Literal, Protocol

from pseudolabel.errors import UsageError
from pseudolabel.registry import RAW, SAME, UNIT, Component, Parameters

if TYPE_CHECKING:
    By = Literal["mean", "max", "geometric"]

Key = tuple[str | int, ...]
_WORDS = {RAW: "raw ones", UNIT: "ones in 0..1"}


class BranchShape(Protocol):
    """A kind of map as a recipe names it; `pseudolabel.recipes.schema.Branch` is one."""

    @property
    def method(self) -> StepShape:
        """The map method."""

    @property
    def refine(self) -> Sequence[StepShape]:
        """Its refiners."""


class FuseShape(Protocol):
    """How several branches become one; `pseudolabel.recipes.schema.Fuse` is one."""

    @property
    def by(self) -> By:
        """Mean, max or geometric."""

    @property
    def weights(self) -> Sequence[float] | None:
        """One a line."""

    @property
    def refine(self) -> Sequence[StepShape]:
        """Of the combined map."""


class StepShape(Protocol):
    """A component as a recipe names it; `pseudolabel.recipes.steps.Step` is one."""

    @property
    def component_name(self) -> str:
        """The component's name in its kind."""

    @property
    def component(self) -> Component:
        """The component."""

    @property
    def params(self) -> Parameters:
        """Its validated parameters."""


def swept_key(step: StepShape) -> str:
    """The key of a background rule that `pl sweep` varies.

    Raises:
        UsageError: it declares none.
    """
    component = step.component
    key = component.traits.get("swept")
    if key is None:
        raise UsageError(
            f"background: {component.name!r} has no threshold to sweep; take another background rule"
        )
    return str(key)


def swept_unit(step: StepShape) -> str:
    """The unit that a background rule declares for its swept key.

    Raises:
        UsageError: it declares no such key.
    """
    key = swept_key(step)
    extra = step.component.params.model_fields[key].json_schema_extra
    return str(extra.get("unit", "")) if isinstance(extra, dict) else ""


def misfits(
    branches: Sequence[BranchShape],
    fused: Sequence[StepShape],
    background: StepShape,
    postprocess: Sequence[StepShape] = (),
) -> Iterator[tuple[Key, str]]:
    """Where a recipe does not compose: a component takes scores in 0..1 and gets raw ones.

    Args:
        branches: of the recipe with their refiners; maps are raw unless the method says otherwise.
        fused: refiners of the combined map, where there are several branches.
        background, postprocess: the steps after them.

    Yields:
        Key from the top of the recipe, and the message.
    """
    given, giver = RAW, "the map"
    for index, branch in enumerate(branches):
        given, giver = branch.method.component.gives or RAW, repr(branch.method.component_name)
        steps: list[tuple[Key, StepShape]] = [
            (("maps", index, "refine", place), step) for place, step in enumerate(branch.refine)
        ]
        given, giver = yield from chain(steps, given, giver)
        if len(branches) > 1 and given != UNIT:
            yield (
                ("maps", index, "refine"),
                f"fuse takes scores in 0..1, {giver} gives {_WORDS[given]}; end with {{name: normalise}}",
            )
            given = UNIT  # one message for one gap
    if len(branches) > 1:
        giver = "fuse"
    steps = [
        *((("fuse", "refine", place), step) for place, step in enumerate(fused)),
        (("background",), background),
        *((("postprocess", place), step) for place, step in enumerate(postprocess)),
    ]
    yield from chain(steps, given, giver)


def chain(
    steps: Sequence[tuple[Key, StepShape]], given: str, giver: str
) -> Generator[tuple[Key, str], None, tuple[str, str]]:
    """Misfits of components one after the other; returns what the last one gives and its name."""
    for key, step in steps:
        component = step.component
        if component.takes == UNIT and given != UNIT:
            yield (
                key,
                f"{component.name!r} takes scores in 0..1, {giver} gives {_WORDS[given]}; "
                "put {name: normalise} between",
            )
            given = UNIT  # one message for one gap
        if component.gives not in (SAME, None):
            given = component.gives
        giver = repr(component.name)
    return given, giver
