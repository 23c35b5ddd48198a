"""The suite over every map method, alone and in every aggregator."""

from __future__ import annotations

from pseudolabel import registry
from pseudolabel.contracts.methods import *  # noqa: F403


def test_every_component_of_the_kinds_is_here() -> None:
    assert {"cam", "saliency"} <= set(registry.names("methods"))
    assert {"random_crop"} <= set(registry.names("aggregators"))
