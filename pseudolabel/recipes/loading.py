"""Recipes: YAML + `--set` to a frozen typed recipe. The only place that reads configuration.

Types are checked and never coerced. Every fault of a recipe is told at once, each with file, line and dotted
key. The schemas stand in `pseudolabel.recipes.schema` and `segtrain.recipe`.
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError, create_model

from pseudolabel import registry
from pseudolabel.errors import UsageError
from pseudolabel.recipes.faults import RecipeFault, explain_all
from pseudolabel.recipes.overrides import Overrides, as_texts, override
from pseudolabel.recipes.section import Key, Section
from pseudolabel.recipes.steps import REFUSED, Step
from pseudolabel.recipes.yaml import Source, read

M = TypeVar("M", bound=Section)
S = TypeVar("S", bound=Step)


def load_recipe(source: Path | str | Mapping[str, Any] | M, model: type[M], overrides: Overrides = ()) -> M:
    """Read a recipe.

    Args:
        source: a YAML file, plain data, or a recipe already read.
        model: the schema.
        overrides: `maps.0.aggregate.0.count=50` and the like, or `{"maps.0.aggregate.0.count": 50}`.

    Returns:
        The recipe with every default filled in; `load_recipe(dump_recipe(r)) == r`.

    Raises:
        UsageError: a line for each fault: place, dotted key, what is wrong, what to do.
    """
    if isinstance(source, Section):
        data, origin = plain_data(source), Source("recipe", {})
    elif isinstance(source, Mapping):
        data, origin = json.loads(json.dumps(source)), Source("recipe", {})
    else:
        data, origin = read(Path(source))
    for text in as_texts(overrides):
        override(data, origin, text)
    faults: list[RecipeFault] = []
    filled = _fill_steps(data, model, (), faults)
    try:
        recipe = model.model_validate_json(json.dumps(filled), context=REFUSED if faults else None)
    except ValidationError as error:
        faults += explain_all(error.errors(), model, data)
    else:
        if not faults:
            faults += [RecipeFault(key, message) for key, message in recipe.check()]
    if faults:
        lines = [
            f"{origin.place(f.key)}: {'.'.join(map(str, f.key)) or 'recipe'}: {f.message}" for f in faults
        ]
        raise UsageError("\n".join(dict.fromkeys(lines)))
    return recipe


def load_step(step: type[S], name: str, overrides: Overrides = ()) -> S:
    """One component with its parameters, which no recipe names.

    Args:
        step: the kind of the component.
        name: of the component.
        overrides: its parameters, `quality=80` and the like.

    Raises:
        UsageError: an unknown component, or a line for each fault of the parameters.
    """
    registry.get(step.kind, name)  # refuses an unknown name without a place
    model = create_model("Chosen", __base__=Section, **{name: (step, ...)})  # type: ignore[call-overload]
    recipe = load_recipe({name: {step.key: name}}, model, [f"{name}.{text}" for text in as_texts(overrides)])
    chosen: S = getattr(recipe, name)
    return chosen


def plain_data(recipe: BaseModel) -> dict[str, Any]:
    """A recipe as JSON-able data, every default filled in."""
    return recipe.model_dump(mode="json")


def _fill_steps(data: Any, annotation: Any, key: Key, faults: list[RecipeFault]) -> Any:
    """Validate the parameters of every step below and fill in their defaults."""
    step, section, item = _kind(annotation)
    if step is not None and isinstance(data, dict):
        return _fill_step(data, step, key, faults)
    if section is not None and isinstance(data, dict):
        fields = section.model_fields
        return {
            name: _fill_steps(value, fields[name].annotation, (*key, name), faults)
            if name in fields
            else value
            for name, value in data.items()
        }
    if item is not None and isinstance(data, list):
        return [_fill_steps(value, item, (*key, index), faults) for index, value in enumerate(data)]
    return data


def _kind(annotation: Any) -> tuple[type[Step] | None, type[Section] | None, Any]:
    """What an annotation holds: a step, a section, or the items of a tuple."""
    options = [annotation]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        options = [option for option in typing.get_args(annotation) if option is not type(None)]
    for option in options:
        if isinstance(option, type) and issubclass(option, Step):
            return option, None, None
        if isinstance(option, type) and issubclass(option, Section):
            return None, option, None
        arguments = typing.get_args(option)
        if typing.get_origin(option) is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
            return None, None, arguments[0]
    return None, None, None


def _fill_step(data: dict[str, Any], step: type[Step], key: Key, faults: list[RecipeFault]) -> dict[str, Any]:
    name = data.get(step.key)
    if not isinstance(name, str):
        return data  # the schema's own check names the missing or mistyped key
    try:
        component = registry.get(step.kind, name)
    except UsageError as error:
        faults.append(RecipeFault((*key, step.key), str(error)))
        return data
    rest = {k: v for k, v in data.items() if k != step.key}
    try:
        params = component.params.model_validate_json(json.dumps(rest))
    except ValidationError as error:
        faults_of_step = explain_all(error.errors(), component.params, rest)
        faults += [RecipeFault((*key, *fault.key), fault.message) for fault in faults_of_step]
        return data
    return {step.key: name, **params.model_dump(mode="json")}
