"""Steps of a recipe: a component with its parameters, resolved once, when the recipe is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, PrivateAttr

from pseudolabel import registry

REFUSED = "refused"  # validation context: some step has a fault, the rest is looked at for more of them


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
