"""The suite over every aggregator and every two of them nested."""

from __future__ import annotations

from pseudolabel import registry
from pseudolabel.contracts.aggregators import *  # noqa: F403


def test_every_component_of_the_kind_is_here() -> None:
    known = {"binary_mask", "multiscale", "random_crop", "smoothgrad"}
    assert known <= set(registry.names("aggregators"))
