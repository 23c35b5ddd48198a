"""Bricks that work in tiles, blocks or bands: the result must not tell how large these are.

The trait `tile` names the size: a parameter of the brick, or a constant of its module.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from pseudolabel.registry import Brick, Parameters

SIZES = (1, 7, 64, 200)  # pixels or items; the last is larger than the scene's sides
WORDS = {"band", "block", "chunk", "strip", "stripe", "tile"}


def tile_of(brick: Brick) -> str:
    """The name that the brick declares; skips the test where it has no tiles.

    Fails where its module or its parameters tell of tiles and the brick declares none.
    """
    declared = brick.traits.get("tile")
    if declared is None:
        module = vars(sys.modules[brick.run.__module__])
        numbers = [name for name, value in module.items() if name.isupper() and isinstance(value, int)]
        told = [name for name in (*numbers, *brick.params.model_fields) if WORDS & _words(name)]
        assert not told, f"{brick.name}: declare tile={told[0]!r}, so that the suite can change it"
        pytest.skip(f"{brick.name} declares no tiles")
    return str(declared)


def at_every_tile(brick: Brick, params: Parameters, *inputs: Any) -> Iterator[Any]:
    """What the brick gives at one size of its tiles after the other, those left out that it refuses."""
    name = tile_of(brick)
    for size in SIZES:
        with pytest.MonkeyPatch.context() as patch:
            if name in brick.params.model_fields:
                try:
                    params = brick.params.model_validate({**params.as_dict(), name: size})
                except ValidationError:
                    continue
            else:
                patch.setattr(sys.modules[brick.run.__module__], name, size)
            out = brick.run(*inputs, params)
        yield out


def _words(name: str) -> set[str]:
    """`ROWS_OF_BLOCKS` -> rows, of, block."""
    return {word.removesuffix("s") for word in re.split(r"[_\d]+", name.lower())}
