"""The suite over every exporter."""

from __future__ import annotations

from pseudolabel import registry
from pseudolabel.contracts.exporters import *  # noqa: F403


def test_every_component_of_the_kind_is_here() -> None:
    assert "grey" in registry.names("exporters")
