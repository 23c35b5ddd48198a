"""Where the oracle of a component stands: the same thing computed over again, independently, in NumPy."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest

from pseudolabel.registry import Component


def oracle_of(component: Component) -> Callable[..., Any]:
    """The oracle of a component, a function of its name.

    A component from another package names the module with the trait `oracles="package.module"`; those of this
    package have theirs in `tests/oracles/<kind>.py`, which an installed copy does not carry (skipped then).
    """
    module = component.traits.get("oracles", f"tests.oracles.{component.kind}")
    try:
        oracles = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if "oracles" not in component.traits and error.name in ("tests", "tests.oracles"):
            pytest.skip("the oracles of this package's components stand in its repository")
        raise
    oracle: Callable[..., Any] | None = getattr(oracles, component.name, None)
    assert oracle is not None, f"no oracle: write {module}::{component.name}"
    return oracle
