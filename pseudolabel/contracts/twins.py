"""Where the twin of a brick stands: the same thing computed over again, independently, in NumPy."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest

from pseudolabel.registry import Brick


def twin_of(brick: Brick) -> Callable[..., Any]:
    """The twin of a brick, a function of its name.

    A brick from another package names the module with the trait `twins="package.module"`; those of this
    package have theirs in `tests/twins/<room>.py`, which an installed copy does not carry (skipped then).
    """
    module = brick.traits.get("twins", f"tests.twins.{brick.room}")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if "twins" not in brick.traits and error.name in ("tests", "tests.twins"):
            pytest.skip("the twins of this package's bricks stand in its repository")
        raise
    twin: Callable[..., Any] | None = getattr(found, brick.name, None)
    assert twin is not None, f"no twin: write {module}::{brick.name}"
    return twin
