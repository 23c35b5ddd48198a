"""Where the oracle of a component stands: the same thing computed over again, independently, in NumPy."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from pydantic import Field, create_model

from pseudolabel.registry import Component, Parameters


def oracle_of(component: Component) -> Callable[..., Any]:
    """The oracle of a component, a function of its name.

    A component from another package names the module with the trait `oracles="package.module"`; those of this
    package have theirs in `tests/oracles/<kind>.py`, which an installed copy does not carry (skipped then).
    """
    oracle: Callable[..., Any] | None = getattr(_module(component), component.name, None)
    assert oracle is not None, f"no oracle: write {_place(component)}::{component.name}"
    return oracle


def with_needs(component: Component) -> Component:
    """The component as it runs where its caller has loaded what it needs; unchanged where it needs nothing.

    Beside the oracle stands `NAME_needs(height, width)`: what the caller hands over for an image of that
    size, by keyword. The oracle calls it too. Parameters that hold a path get the text "sample".
    """
    if not component.needs:
        return component
    name = f"{component.name}_needs"
    sample: Callable[[int, int], dict[str, Any]] | None = getattr(_module(component), name, None)
    assert sample is not None, f"it needs something: write {_place(component)}::{name}(height, width)"
    fields = component.params.model_fields
    paths: dict[str, Any] = {
        need.parameter: (str, Field("sample", description=fields[need.parameter].description))
        for need in component.needs.values()
    }
    with_paths: type[Parameters] = create_model(component.params.__name__, __base__=component.params, **paths)

    def run(values: Any, image: Any, given: Parameters) -> Any:
        return component.run(values, image, given, **sample(*image.shape[:2]))

    return dataclasses.replace(component, run=run, params=with_paths, needs={})  # type: ignore[arg-type]


def _place(component: Component) -> str:
    return str(component.traits.get("oracles", f"tests.oracles.{component.kind}"))


def _module(component: Component) -> ModuleType:
    try:
        return importlib.import_module(_place(component))
    except ModuleNotFoundError as error:
        if "oracles" not in component.traits and error.name in ("tests", "tests.oracles"):
            pytest.skip("the oracles of this package's components stand in its repository")
        raise
