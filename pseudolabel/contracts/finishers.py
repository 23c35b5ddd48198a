"""What every finisher keeps: `pytest --pyargs pseudolabel.contracts.finishers`.

A brick from another package is tested as soon as its entry point is installed; one whose own package is
missing is skipped with that package's name (trait `needs`). Other traits looked at: `strength` (parameters at
which nothing changes), `flips` (True: a mirrored input gives the mirrored output; must be said where it is
so), `tile` (see `pseudolabel.contracts.tiles`), `agreement` (share of labels that an approximation shares
with its twin; all of them without it), `twins` (see `pseudolabel.contracts.twins`).
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from pseudolabel import line, registry
from pseudolabel.contracts.inputs import (
    Chosen,
    at_strength,
    beyond_bounds,
    no_class,
    odd_inputs,
    scene,
    variants,
)
from pseudolabel.contracts.tiles import at_every_tile, tile_of
from pseudolabel.contracts.twins import twin_of
from pseudolabel.records import Belief, Scores
from pseudolabel.registry import RAW, SAME, UNIT, Brick, Parameters

NAMES = registry.names("finishers")
ODD = odd_inputs()


@pytest.fixture(params=NAMES)
def finisher(request: pytest.FixtureRequest) -> Brick:
    brick = registry.get("finishers", request.param)
    for package in brick.traits.get("needs", ()):
        pytest.importorskip(package, reason=f"{brick.name} needs {package}")
    return brick


def belief_of(scores: Scores) -> Belief:
    """A belief with a constant background, two specks of the first class in it and a corner not kept."""
    belief = Belief.join(torch.full(scores.values.shape[1:], 0.3), scores)
    belief.values[1, 20:22, -4:-2] = 0.9
    belief.values[1, 10:11, -2:-1] = 0.9
    if belief.keep.numel() > 1:
        belief.keep[:4, :5] = False
    return belief


@pytest.mark.parametrize("case", ["scene", "nothing kept", *ODD])
def test_shape_rows_and_range(finisher: Brick, case: str) -> None:
    scores, image = ODD.get(case, scene())
    belief = belief_of(scores)
    if case == "nothing kept":
        belief.keep[:] = False
    for params in variants(finisher):
        out = finisher.run(belief, image, params)
        assert out.ids == belief.ids
        assert out.values.shape == belief.values.shape
        assert out.values.dtype == torch.float32
        assert out.values.isfinite().all(), params
        assert out.values.min() >= 0, params
        if finisher.gives == UNIT:
            assert out.values.max() <= 1 + 1e-6, params
        assert out.keep.shape == belief.keep.shape
        assert out.keep.dtype == torch.bool
        assert not out.keep[~belief.keep].any(), "what was given up stays so"


def test_image_without_a_class_is_background(finisher: Brick) -> None:
    scores, image = no_class()
    resolver = registry.get("resolvers", registry.names("resolvers")[0])
    steps = [Chosen(finisher, finisher.params())]
    mask = line.resolve(scores, image, Chosen(resolver, resolver.params()), steps)
    assert mask.shape == tuple(image.shape[:2])
    assert mask.dtype == np.uint8
    assert not mask.any()


def test_inputs_are_left_as_they_were(finisher: Brick) -> None:
    scores, image = scene()
    belief = belief_of(scores)
    values, keep, picture = belief.values.clone(), belief.keep.clone(), image.clone()
    for params in variants(finisher):
        finisher.run(belief, image, params).values.zero_()
        assert torch.equal(belief.values, values)
        assert torch.equal(belief.keep, keep)
        assert torch.equal(image, picture)


def test_it_does_something(finisher: Brick) -> None:
    scores, image = scene()
    belief = belief_of(scores)
    changed = finisher.run(belief, image, finisher.params()).mask() != belief.mask()
    assert 0 < changed.float().mean() < 1


def test_equals_its_twin(finisher: Brick) -> None:
    twin = twin_of(finisher)
    scores, image = scene()
    belief = belief_of(scores)
    agreement = finisher.traits.get("agreement", 1.0)
    for params in variants(finisher):
        values, keep = twin(
            belief.values.double().numpy(), belief.keep.numpy(), image.numpy(), **params.as_dict()
        )
        out = finisher.run(belief, image, params)
        np.testing.assert_array_equal(out.keep.numpy(), keep)
        assert (out.rows().numpy() == values.argmax(0))[keep].mean() >= agreement, params
        if agreement == 1:
            # ten updates amplify a float32 rounding at single pixels; the mean shows a wrong formula
            assert np.abs(out.values.numpy() - values).mean() <= 1e-5, params


@pytest.mark.parametrize("case", ["scene", *ODD])
def test_zero_strength_changes_nothing(finisher: Brick, case: str) -> None:
    if "strength" not in finisher.traits:
        pytest.skip(f"{finisher.name} declares no strength")
    scores, image = ODD.get(case, scene())
    belief = belief_of(scores)
    for params in at_strength(finisher):
        out = finisher.run(belief, image, params)
        assert torch.equal(out.values, belief.values), params
        assert torch.equal(out.keep, belief.keep), params


def test_same_result_whatever_the_tile(finisher: Brick) -> None:
    tile_of(finisher)
    scores, image = scene()
    belief = belief_of(scores)
    for params in variants(finisher):
        first, *others = at_every_tile(finisher, params, belief, image)
        assert others, f"{finisher.name}: its tiles have one size"
        for out in others:
            assert torch.equal(out.mask(), first.mask()), params
            assert (out.values - first.values).abs().mean() <= 1e-5, params  # as for the twin


def both_ways(finisher: Brick, params: Parameters, axis: int) -> tuple[Belief, Belief]:
    """What the finisher gives, and what it gives of the mirrored picture, mirrored back."""
    scores, image = scene(3, 23, 34)
    belief = belief_of(scores)
    turned = Belief(belief.ids, belief.values.flip(axis + 1), belief.keep.flip(axis))
    there = finisher.run(turned, image.flip(axis), params)
    back = Belief(there.ids, there.values.flip(axis + 1), there.keep.flip(axis))
    return finisher.run(belief, image, params), back


@pytest.mark.parametrize("axis", [0, 1])
def test_mirrored_input_gives_mirrored_output(finisher: Brick, axis: int) -> None:
    if not finisher.traits.get("flips"):
        pytest.skip(f"{finisher.name} does not promise it")
    before = belief_of(scene(3, 23, 34)[0]).mask()
    changed = False
    for params in variants(finisher):
        straight, mirrored = both_ways(finisher, params, axis)
        changed |= not torch.equal(straight.mask(), before)
        assert torch.equal(mirrored.mask(), straight.mask()), params
        assert (mirrored.values - straight.values).abs().mean() <= 1e-5, params  # as for the twin
    assert changed, "the scene must show what the finisher does"


def test_flips_are_declared_where_it_keeps_them(finisher: Brick) -> None:
    if "flips" in finisher.traits:
        pytest.skip(f"{finisher.name} says so")
    pairs = [both_ways(finisher, finisher.params(), axis) for axis in (0, 1)]
    kept = all(
        torch.equal(one.mask(), two.mask()) and torch.allclose(one.values, two.values, atol=1e-5)
        for one, two in pairs
    )
    assert not kept, f"{finisher.name}: declare flips=True, or flips=False where it holds by chance"


def test_bounds_refuse_the_value_beyond(finisher: Brick) -> None:
    for key, value in beyond_bounds(finisher):
        with pytest.raises(ValidationError, match=key):
            finisher.params.model_validate({key: value})


def test_declares_ranges_and_says_its_source(finisher: Brick) -> None:
    assert finisher.takes in (RAW, UNIT, SAME)
    assert finisher.gives in (RAW, UNIT, SAME)
    assert finisher.device in ("any", "cpu")
    assert all(field.description for field in finisher.params.model_fields.values())
    assert "Source:" in registry.documentation("finishers", finisher.name)


def test_gpu_gives_what_the_cpu_gives(finisher: Brick) -> None:
    if finisher.device == "cpu" or not torch.cuda.is_available():
        pytest.skip("no GPU here, or a brick for the CPU only")
    scores, image = scene()
    belief = belief_of(scores)
    for params in variants(finisher):
        moved = Belief(belief.ids, belief.values.cuda(), belief.keep.cuda())
        there = finisher.run(moved, image.cuda(), params)
        assert there.values.is_cuda
        here = finisher.run(belief, image, params)
        assert torch.equal(there.mask().cpu(), here.mask())
        assert (there.values.cpu() - here.values).abs().mean() <= 1e-5
