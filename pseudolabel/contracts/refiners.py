"""What every refiner keeps: `pytest --pyargs pseudolabel.contracts.refiners`.

A component from another package is tested as soon as its entry point is installed. Traits looked at:
`strength` (parameters at which nothing changes), `flips` (True: a mirrored input gives the mirrored output;
must be said where it is so), `tile` (see `pseudolabel.contracts.tiles`), `packages_for` (options that need a
further package), `by_class` (True: classes are not treated alike), `oracles` (see
`pseudolabel.contracts.oracles`).
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from pseudolabel import registry
from pseudolabel.contracts.inputs import (
    Chosen,
    at_strength,
    beyond_bounds,
    no_class,
    odd_inputs,
    raw,
    raw_scene,
    scene,
    variants,
)
from pseudolabel.contracts.oracles import oracle_of, with_needs
from pseudolabel.contracts.tiles import at_every_tile, tile_of
from pseudolabel.pipeline import postprocessing
from pseudolabel.registry import RAW, SAME, UNIT, Component, Parameters

NAMES = registry.names("refiners")
ODD = odd_inputs()


@pytest.fixture(params=NAMES)
def refiner(request: pytest.FixtureRequest) -> Component:
    return with_needs(registry.get("refiners", request.param))


@pytest.mark.parametrize("case", ODD)
def test_shape_ids_and_range_on_odd_inputs(refiner: Component, case: str) -> None:
    scores, image = ODD[case]
    for params in variants(refiner):
        out = refiner.run(scores, image, params)
        assert out.ids == scores.ids
        assert out.values.shape == scores.values.shape
        assert out.values.dtype == torch.float32
        assert out.values.isfinite().all(), params
        assert out.values.min() >= 0, params
        if refiner.gives in (UNIT, SAME):  # the inputs are in 0..1
            assert out.values.max() <= 1 + 1e-6, params  # 13 weights of 1/13 sum to 1 up to a rounding


@pytest.mark.parametrize("case", ["scene", *ODD])
def test_range_on_raw_scores(refiner: Component, case: str) -> None:
    if refiner.takes == UNIT:
        pytest.skip(f"{refiner.name} takes scores in 0..1 only")
    scores, image = scene() if case == "scene" else ODD[case]
    scores = raw(scores)
    for params in variants(refiner):
        out = refiner.run(scores, image, params)
        assert out.ids == scores.ids
        assert out.values.shape == scores.values.shape
        assert out.values.isfinite().all(), params
        if refiner.gives == UNIT:
            assert out.values.min() >= 0, params
            assert out.values.max() <= 1, params
            # a map of fewer pixels than a quantile cuts off says nothing
            assert case != "scene" or out.values.max() > 0.4, params


def test_image_without_a_class_stays_as_it_is(refiner: Component) -> None:
    scores, image = no_class()
    out = postprocessing.refine(scores, image, [Chosen(refiner, refiner.params())])
    assert out.ids == ()
    assert out.values.shape == scores.values.shape
    assert out.values.dtype == torch.float32


def test_inputs_are_left_as_they_were(refiner: Component) -> None:
    scores, image = scene()
    values, image_before = scores.values.clone(), image.clone()
    for params in variants(refiner):
        out = refiner.run(scores, image, params)
        out.values.zero_()
        assert torch.equal(scores.values, values)
        assert torch.equal(image, image_before)


@pytest.mark.parametrize("given", [scene, raw_scene])
def test_equals_its_oracle(refiner: Component, given: type) -> None:
    oracle = oracle_of(refiner)
    if given is raw_scene and refiner.takes == UNIT:
        pytest.skip(f"{refiner.name} takes scores in 0..1 only")
    scores, image = given()
    values = scores.values.double().numpy()
    changed = False
    for params in variants(refiner):
        expected = oracle(scores.ids, values, image.numpy(), **params.as_dict())
        out = refiner.run(scores, image, params).values.numpy()
        # float32 sums over a kernel of some hundred pixels
        np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())
        changed |= not np.allclose(expected, values, rtol=1e-2)
    assert changed, "the scene must show what the refiner does"


@pytest.mark.parametrize("case", ["scene", *ODD])
def test_zero_strength_changes_nothing(refiner: Component, case: str) -> None:
    if "strength" not in refiner.traits:
        pytest.skip(f"{refiner.name} declares no strength")
    scores, image = scene() if case == "scene" else ODD[case]
    for params in at_strength(refiner):
        assert torch.equal(refiner.run(scores, image, params).values, scores.values), params


def test_same_result_whatever_the_tile(refiner: Component) -> None:
    tile_of(refiner)
    scores, image = scene()
    for params in variants(refiner):
        first, *others = [out.values for out in at_every_tile(refiner, params, scores, image)]
        assert others, f"{refiner.name}: its tiles have one size"
        for out in others:
            torch.testing.assert_close(out, first, rtol=1e-5, atol=1e-6)  # sums in another order


def both_ways(refiner: Component, params: Parameters, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Values of the scene, and those of the mirrored scene mirrored back."""
    scores, image = scene(3, 23, 34)
    mirrored = refiner.run(scores.replace(scores.values.flip(axis + 1)), image.flip(axis), params)
    return refiner.run(scores, image, params).values, mirrored.values.flip(axis + 1)


@pytest.mark.parametrize("axis", [0, 1])
def test_mirrored_input_gives_mirrored_output(refiner: Component, axis: int) -> None:
    if not refiner.traits.get("flips"):
        pytest.skip(f"{refiner.name} does not promise it")
    for params in variants(refiner):
        straight, mirrored = both_ways(refiner, params, axis)
        torch.testing.assert_close(mirrored, straight, rtol=1e-5, atol=1e-6)


def test_flips_are_declared_where_it_keeps_them(refiner: Component) -> None:
    if "flips" in refiner.traits:
        pytest.skip(f"{refiner.name} says so")
    pairs = [both_ways(refiner, refiner.params(), axis) for axis in (0, 1)]
    kept = all(torch.allclose(*pair, rtol=1e-5, atol=1e-6) for pair in pairs)
    assert not kept, f"{refiner.name}: declare flips=True, or flips=False where it holds by chance"


def test_classes_in_another_order_give_the_same(refiner: Component) -> None:
    if refiner.traits.get("by_class"):
        pytest.skip(f"{refiner.name} treats classes differently")
    scores, image = scene(4)
    straight = refiner.run(scores, image, refiner.params()).values
    turned = refiner.run(scores.replace(scores.values.flip(0)), image, refiner.params()).values
    torch.testing.assert_close(turned.flip(0), straight, rtol=1e-5, atol=1e-6)


def test_bounds_refuse_the_value_beyond(refiner: Component) -> None:
    for key, value in beyond_bounds(refiner):
        with pytest.raises(ValidationError, match=key):
            refiner.params.model_validate({key: value})


def test_declares_ranges_and_says_its_source(refiner: Component) -> None:
    assert refiner.takes in (RAW, UNIT, SAME)
    assert refiner.gives in (RAW, UNIT, SAME)
    assert refiner.device in ("any", "cpu")
    assert all(field.description for field in refiner.params.model_fields.values())
    assert "Source:" in registry.documentation("refiners", refiner.name)


def test_gpu_gives_what_the_cpu_gives(refiner: Component) -> None:
    if refiner.device == "cpu" or not torch.cuda.is_available():
        pytest.skip("no GPU here, or a component for the CPU only")
    scores, image = scene()
    for params in variants(refiner):
        there = refiner.run(scores.replace(scores.values.cuda()), image.cuda(), params).values
        assert there.is_cuda
        here = refiner.run(scores, image, params).values
        torch.testing.assert_close(there.cpu(), here, rtol=1e-5, atol=1e-6)
