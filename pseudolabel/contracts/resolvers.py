"""What every resolver keeps: `pytest --pyargs pseudolabel.contracts.resolvers`.

A brick from another package is tested as soon as its entry point is installed. Traits looked at:
`swept` (the key that a sweep varies), `sweep` (many values of it in one pass), `flips` (True: a mirrored
input gives the mirrored output; must be said where it is so), `tile` (see `pseudolabel.contracts.tiles`),
`needs_for` (options that need a further package), `twins` (see `pseudolabel.contracts.twins`).
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from pseudolabel import line, registry
from pseudolabel.contracts.inputs import Chosen, beyond_bounds, no_class, odd_inputs, scene, variants
from pseudolabel.contracts.tiles import at_every_tile, tile_of
from pseudolabel.contracts.twins import twin_of
from pseudolabel.records import BACKGROUND, IGNORE, Belief
from pseudolabel.registry import RAW, SAME, UNIT, Brick, Parameters

NAMES = registry.names("resolvers")
ODD = odd_inputs()


@pytest.fixture(params=NAMES)
def resolver(request: pytest.FixtureRequest) -> Brick:
    return registry.get("resolvers", request.param)


@pytest.mark.parametrize("case", ODD)
def test_shape_ids_and_range_on_odd_inputs(resolver: Brick, case: str) -> None:
    scores, image = ODD[case]
    for params in variants(resolver):
        belief = resolver.run(scores, image, params)
        classes, height, width = scores.values.shape
        assert belief.ids == (BACKGROUND, *scores.ids)
        assert belief.values.shape == (classes + 1, height, width)
        assert belief.values.dtype == torch.float32
        assert belief.values.isfinite().all(), params
        assert belief.values.min() >= 0, params
        if resolver.gives == UNIT:
            assert belief.values.max() <= 1, params
        assert belief.keep.shape == (height, width)
        assert belief.keep.dtype == torch.bool
        mask = belief.mask()
        assert mask.shape == (height, width)
        assert mask.dtype == torch.uint8
        assert set(mask.unique().tolist()) <= {BACKGROUND, IGNORE, *scores.ids}, params


def test_no_evidence_is_background(resolver: Brick) -> None:
    scores, image = ODD["empty"]
    for params in variants(resolver):
        mask = resolver.run(scores, image, params).mask()
        assert set(mask.unique().tolist()) <= {BACKGROUND, IGNORE}, params


def test_image_without_a_class_is_background(resolver: Brick) -> None:
    scores, image = no_class()
    mask = line.resolve(scores, image, Chosen(resolver, resolver.params()))
    assert mask.shape == tuple(image.shape[:2])
    assert mask.dtype == np.uint8
    assert not mask.any()


def test_inputs_are_left_as_they_were(resolver: Brick) -> None:
    scores, image = scene()
    values, picture = scores.values.clone(), image.clone()
    for params in variants(resolver):
        belief = resolver.run(scores, image, params)
        belief.values.zero_()
        assert torch.equal(scores.values, values)
        assert torch.equal(image, picture)


def test_equals_its_twin(resolver: Brick) -> None:
    twin = twin_of(resolver)
    scores, image = scene()
    for params in variants(resolver):
        found = twin(scores.ids, scores.values.double().numpy(), image.numpy(), **params.as_dict())
        expected, keep = found if isinstance(found, tuple) else (found, np.ones(image.shape[:2], bool))
        rows = expected.argmax(0)
        assert len(np.unique(rows)) == len(scores.ids) + 1, f"the scene must show every outcome: {params}"
        belief = resolver.run(scores, image, params)
        # float32 powers
        np.testing.assert_allclose(belief.values.numpy(), expected, rtol=2e-5, atol=1e-7)
        ids = np.array(belief.ids)
        np.testing.assert_array_equal(belief.mask().numpy(), np.where(keep, ids[rows], IGNORE))


def swept_values(resolver: Brick) -> list[float]:
    """Values of the swept key from end to end, one of them an exact score of the scene (a tie)."""
    scores, _ = scene()
    tie = scores.values[0].flatten()[30].item()
    wanted = [0.0, 1e-8, 0.04, 0.1, 0.15, 0.1500001, tie, 0.5, 0.99, 1.0, 4.0, 32.0]
    key = resolver.traits["swept"]
    return [value for value in sorted(wanted) if accepts(resolver.params, key, value)]


def accepts(params: type[Parameters], key: str, value: float) -> bool:
    try:
        params.model_validate({key: value})
    except ValidationError:
        return False
    return True


def test_swept_key_moves_the_mask(resolver: Brick) -> None:
    key = resolver.traits.get("swept")
    if key is None:
        pytest.skip(f"{resolver.name} has nothing to sweep")
    scores, image = scene()
    shares = []
    for value in swept_values(resolver):
        params = resolver.params.model_validate({key: value})
        mask = resolver.run(scores, image, params).mask()
        shares.append(((mask == BACKGROUND) | (mask == IGNORE)).float().mean().item())
    assert len(set(shares)) >= 5
    assert shares in (sorted(shares), sorted(shares, reverse=True)), "a sweep must be monotone"


@pytest.mark.parametrize("case", ["scene", *ODD])
def test_sweep_equals_resolving_one_by_one(resolver: Brick, case: str) -> None:
    if "sweep" not in resolver.traits:
        pytest.skip(f"{resolver.name} has no sweep of its own")
    scores, image = scene() if case == "scene" else ODD[case]
    key, values = resolver.traits["swept"], swept_values(resolver)
    options = [p for p in variants(resolver) if p.as_dict()[key] == resolver.params().as_dict()[key]]
    for params in options:
        masks = resolver.traits["sweep"](scores, image, params, values)
        assert masks.dtype == torch.uint8
        assert masks.shape == (len(values), *scores.values.shape[1:])
        for value, mask in zip(values, masks, strict=True):
            one = resolver.params.model_validate({**params.as_dict(), key: value})
            assert torch.equal(mask, resolver.run(scores, image, one).mask()), (params, value)


def test_same_result_whatever_the_tile(resolver: Brick) -> None:
    tile_of(resolver)
    scores, image = scene()
    for params in variants(resolver):
        first, *others = at_every_tile(resolver, params, scores, image)
        assert others, f"{resolver.name}: its tiles have one size"
        for belief in others:
            torch.testing.assert_close(belief.values, first.values, rtol=1e-6, atol=1e-8)
            assert torch.equal(belief.mask(), first.mask()), params


def both_ways(resolver: Brick, params: Parameters, axis: int) -> tuple[Belief, Belief]:
    """Belief of the scene, and that of the mirrored scene mirrored back."""
    scores, image = scene(3, 23, 34)
    there = resolver.run(scores.replace(scores.values.flip(axis + 1)), image.flip(axis), params)
    back = Belief(there.ids, there.values.flip(axis + 1), there.keep.flip(axis))
    return resolver.run(scores, image, params), back


@pytest.mark.parametrize("axis", [0, 1])
def test_mirrored_input_gives_mirrored_output(resolver: Brick, axis: int) -> None:
    if not resolver.traits.get("flips"):
        pytest.skip(f"{resolver.name} does not promise it")
    for params in variants(resolver):
        straight, mirrored = both_ways(resolver, params, axis)
        # the last rounding of a power differs between the vectorised middle and the ends of a row
        torch.testing.assert_close(mirrored.values, straight.values, rtol=1e-6, atol=1e-8)
        assert torch.equal(mirrored.mask(), straight.mask()), params


def test_flips_are_declared_where_it_keeps_them(resolver: Brick) -> None:
    if "flips" in resolver.traits:
        pytest.skip(f"{resolver.name} says so")
    pairs = [both_ways(resolver, resolver.params(), axis) for axis in (0, 1)]
    kept = all(torch.equal(straight.mask(), mirrored.mask()) for straight, mirrored in pairs)
    assert not kept, f"{resolver.name}: declare flips=True, or flips=False where it holds by chance"


def test_scores_of_another_size_are_refused(resolver: Brick) -> None:
    scores, image = scene()
    with pytest.raises(ValueError, match=rf"{resolver.name}: scores are \(41, 59\), the image \(40, 59\)"):
        resolver.run(scores, image[1:], resolver.params())


def test_bounds_refuse_the_value_beyond(resolver: Brick) -> None:
    for key, value in beyond_bounds(resolver):
        with pytest.raises(ValidationError, match=key):
            resolver.params.model_validate({key: value})


def test_declares_ranges_and_says_its_source(resolver: Brick) -> None:
    assert resolver.takes in (RAW, UNIT, SAME)
    assert resolver.gives in (RAW, UNIT, SAME)
    assert resolver.device in ("any", "cpu")
    assert all(field.description for field in resolver.params.model_fields.values())
    swept = resolver.traits.get("swept")
    assert swept is None or swept in resolver.params.model_fields
    assert "Source:" in registry.documentation("resolvers", resolver.name)


def test_gpu_gives_what_the_cpu_gives(resolver: Brick) -> None:
    if resolver.device == "cpu" or not torch.cuda.is_available():
        pytest.skip("no GPU here, or a brick for the CPU only")
    scores, image = scene()
    for params in variants(resolver):
        there = resolver.run(scores.replace(scores.values.cuda()), image.cuda(), params)
        here = resolver.run(scores, image, params)
        torch.testing.assert_close(there.values.cpu(), here.values, rtol=1e-5, atol=1e-7)
