"""The suite over every reader."""

from __future__ import annotations

from pseudolabel import registry
from pseudolabel.contracts.readers import *  # noqa: F403


def test_every_component_of_the_kind_is_here() -> None:
    assert {"folder", "scenes", "table", "voc"} <= set(registry.names("readers"))
