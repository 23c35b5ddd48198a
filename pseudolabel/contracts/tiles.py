"""Components that work in tiles, blocks or bands: the result must not tell how large these are.

The trait `tile` names the size: a parameter of the component, or a constant of its module.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from pseudolabel.registry import Component, Parameters

SIZES = (1, 7, 64, 200)  # pixels or items; the last is larger than the scene's sides
WORDS = {"band", "block", "chunk", "strip", "stripe", "tile"}


def tile_of(component: Component) -> str:
    """The name that the component declares; skips the test where it has no tiles.

    Fails where its module or its parameters tell of tiles and the component declares none.
    """
    declared = component.traits.get("tile")
    if declared is None:
        module = vars(sys.modules[component.run.__module__])
        numbers = [name for name, value in module.items() if name.isupper() and isinstance(value, int)]
        undeclared = [name for name in (*numbers, *component.params.model_fields) if WORDS & _words(name)]
        assert not undeclared, (
            f"{component.name}: declare tile={undeclared[0]!r}, so that the suite can change it"
        )
        pytest.skip(f"{component.name} declares no tiles")
    return str(declared)


def at_every_tile(component: Component, params: Parameters, *inputs: Any) -> Iterator[Any]:
    """What the component gives at one size of its tiles after the other, those left out that it refuses."""
    name = tile_of(component)
    for size in SIZES:
        with pytest.MonkeyPatch.context() as patch:
            if name in component.params.model_fields:
                try:
                    params = component.params.model_validate({**params.as_dict(), name: size})
                except ValidationError:
                    continue
            else:
                patch.setattr(sys.modules[component.run.__module__], name, size)
            out = component.run(*inputs, params)
        yield out


def _words(name: str) -> set[str]:
    """`ROWS_OF_BLOCKS` -> rows, of, block."""
    return {word.removesuffix("s") for word in re.split(r"[_\d]+", name.lower())}
