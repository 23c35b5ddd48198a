"""Steps of a recipe: a component with its parameters, resolved once, when the recipe is read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, PrivateAttr

from pseudolabel import registry
from pseudolabel.errors import UsageError

REFUSED = "refused"  # validation context: some step has a fault, the rest is looked at for more of them

# a component as a caller in Python names it: name, (name, {parameters}) or {"name": ..., parameters}
StepLike = str | tuple[str, Mapping[str, Any]] | Mapping[str, Any]


class Step(BaseModel):
    """One component with its parameters, as a recipe names it: `{name: smooth, size: 13}`.

    Subclasses fix `kind`. Every parameter is filled in, defaults included.

    Raises:
        UsageError: there is no component of that name.
        pydantic.ValidationError: a parameter is refused.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="allow", allow_inf_nan=False)
    kind: ClassVar[str]
    key: ClassVar[str] = "name"
    _component: registry.Component = PrivateAttr()
    _params: registry.Parameters = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Find the component and validate its parameters, unless the recipe is refused in any case."""
        if context == REFUSED:
            return
        self._component = registry.get(self.kind, self.component_name)
        given = json.dumps(self.model_extra or {})
        self._params = self._component.params.model_validate_json(given)
        extra = self.__pydantic_extra__
        assert extra is not None
        extra.update(self._params.model_dump(mode="json"))

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A step with some parameters changed, resolved anew."""
        copy = super().model_copy(update=update, deep=deep)
        copy.model_post_init(None)
        return copy

    @property
    def component_name(self) -> str:
        """The component's name within its kind."""
        return str(getattr(self, self.key))

    @property
    def component(self) -> registry.Component:
        """The component."""
        return self._component

    @property
    def params(self) -> registry.Parameters:
        """Its validated parameters."""
        return self._params

    def parameters(self) -> dict[str, Any]:
        """The parameters as plain data."""
        return self._params.model_dump(mode="json")


class ReaderStep(Step):
    """A reader of a data set: `{reader: voc, root: ..., split: train}`."""

    kind = "readers"
    key = "reader"
    reader: str


class MethodStep(Step):
    """A map method."""

    kind = "methods"
    name: str


class AggregatorStep(Step):
    """An aggregator around the method and the aggregators before it."""

    kind = "aggregators"
    name: str


class RefinerStep(Step):
    """A refiner."""

    kind = "refiners"
    name: str


class BackgroundStep(Step):
    """A background rule."""

    kind = "backgrounds"
    name: str


class PostprocessorStep(Step):
    """A postprocessor."""

    kind = "postprocessors"
    name: str


class ObjectiveStep(Step):
    """An objective of `pl train`."""

    kind = "objectives"
    name: str


class ExporterStep(Step):
    """An exporter; its parameters come from `--set`."""

    kind = "exporters"
    name: str


class ImporterStep(Step):
    """An importer; its parameters come from `--set`."""

    kind = "importers"
    name: str


def step_data(key: str, step: StepLike) -> dict[str, Any]:
    """A step of a call in Python as a recipe holds it.

    Args:
        key: the argument, for messages.
        step: name, (name, {parameters}) or {"name": ..., parameters}.

    Raises:
        UsageError: it is none of these.
    """
    if isinstance(step, str):
        return {"name": step}
    if isinstance(step, Mapping):
        return dict(step)
    if isinstance(step, (tuple, list)) and len(step) == 2:
        name, parameters = step
        if isinstance(name, str) and isinstance(parameters, Mapping):
            return {"name": name, **parameters}
    raise UsageError(f'{key}: {step!r} is no step; write "name", ("name", {{parameters}}) or {{"name": ...}}')


def steps_data(key: str, steps: Sequence[StepLike]) -> list[dict[str, Any]]:
    """A list of steps of a call in Python as a recipe holds it.

    Raises:
        UsageError: it is no list, or one of them is no step.
    """
    if isinstance(steps, (str, Mapping)) or not isinstance(steps, Sequence):
        raise UsageError(f"{key}: {steps!r} is no list of steps; write [{steps!r}]")
    return [step_data(f"{key}.{place}", step) for place, step in enumerate(steps)]
