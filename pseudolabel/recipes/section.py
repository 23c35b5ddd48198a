"""A part of a recipe as a typed, frozen model."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict

Key = tuple[str | int, ...]


class Section(BaseModel):
    """A part of a recipe: frozen, strict, unknown keys refused."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    def check(self) -> Iterator[tuple[Key, str]]:
        """What single keys cannot tell: (key, message) for each contradiction; none by default."""
        yield from ()
