"""What every background keeps: `pytest --pyargs pseudolabel.contracts.backgrounds`.

A component from another package is tested as soon as its entry point is installed. Traits looked at:
`swept` (the key that a sweep varies), `sweep` (many values of it in one pass), `flips` (True: a mirrored
input gives the mirrored output; must be said where it is so), `tile` (see `pseudolabel.contracts.tiles`),
`packages_for` (options that need a further package), `oracles` (see `pseudolabel.contracts.oracles`).
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from pseudolabel import registry
from pseudolabel.contracts.inputs import Chosen, beyond_bounds, no_class, odd_inputs, scene, variants
from pseudolabel.contracts.oracles import oracle_of, with_needs
from pseudolabel.contracts.tiles import at_every_tile, tile_of
from pseudolabel.pipeline import postprocessing
from pseudolabel.records import BACKGROUND, IGNORE, LabelScores
from pseudolabel.registry import RAW, SAME, UNIT, Component, Parameters

NAMES = registry.names("backgrounds")
ODD = odd_inputs()


@pytest.fixture(params=NAMES)
def background(request: pytest.FixtureRequest) -> Component:
    return with_needs(registry.get("backgrounds", request.param))


@pytest.mark.parametrize("case", ODD)
def test_shape_ids_and_range_on_odd_inputs(background: Component, case: str) -> None:
    scores, image = ODD[case]
    for params in variants(background):
        label_scores = background.run(scores, image, params)
        classes, height, width = scores.values.shape
        assert label_scores.ids == (BACKGROUND, *scores.ids)
        assert label_scores.values.shape == (classes + 1, height, width)
        assert label_scores.values.dtype == torch.float32
        assert label_scores.values.isfinite().all(), params
        assert label_scores.values.min() >= 0, params
        if background.gives == UNIT:
            assert label_scores.values.max() <= 1, params
        assert label_scores.keep.shape == (height, width)
        assert label_scores.keep.dtype == torch.bool
        mask = label_scores.mask()
        assert mask.shape == (height, width)
        assert mask.dtype == torch.uint8
        assert set(mask.unique().tolist()) <= {BACKGROUND, IGNORE, *scores.ids}, params


def test_no_attribution_is_background(background: Component) -> None:
    scores, image = ODD["empty"]
    for params in variants(background):
        mask = background.run(scores, image, params).mask()
        assert set(mask.unique().tolist()) <= {BACKGROUND, IGNORE}, params


def test_image_without_a_class_is_background(background: Component) -> None:
    scores, image = no_class()
    mask = postprocessing.resolve(scores, image, Chosen(background, background.params()))
    assert mask.shape == tuple(image.shape[:2])
    assert mask.dtype == np.uint8
    assert not mask.any()


def test_inputs_are_left_as_they_were(background: Component) -> None:
    scores, image = scene()
    values, image_before = scores.values.clone(), image.clone()
    for params in variants(background):
        label_scores = background.run(scores, image, params)
        label_scores.values.zero_()
        assert torch.equal(scores.values, values)
        assert torch.equal(image, image_before)


def test_equals_its_oracle(background: Component) -> None:
    oracle = oracle_of(background)
    scores, image = scene()
    for params in variants(background):
        answer = oracle(scores.ids, scores.values.double().numpy(), image.numpy(), **params.as_dict())
        expected, keep = answer if isinstance(answer, tuple) else (answer, np.ones(image.shape[:2], bool))
        rows = expected.argmax(0)
        assert len(np.unique(rows)) == len(scores.ids) + 1, f"the scene must show every outcome: {params}"
        label_scores = background.run(scores, image, params)
        # float32 powers
        np.testing.assert_allclose(label_scores.values.numpy(), expected, rtol=2e-5, atol=1e-7)
        ids = np.array(label_scores.ids)
        np.testing.assert_array_equal(label_scores.mask().numpy(), np.where(keep, ids[rows], IGNORE))


def swept_values(background: Component) -> list[float]:
    """Values of the swept key from end to end, one of them an exact score of the scene (a tie)."""
    scores, _ = scene()
    tie = scores.values[0].flatten()[30].item()
    wanted = [0.0, 1e-8, 0.04, 0.1, 0.15, 0.1500001, tie, 0.5, 0.99, 1.0, 4.0, 32.0]
    key = background.traits["swept"]
    return [value for value in sorted(wanted) if accepts(background.params, key, value)]


def accepts(params: type[Parameters], key: str, value: float) -> bool:
    try:
        params.model_validate({key: value})
    except ValidationError:
        return False
    return True


def test_swept_key_moves_the_mask(background: Component) -> None:
    key = background.traits.get("swept")
    if key is None:
        pytest.skip(f"{background.name} has nothing to sweep")
    scores, image = scene()
    shares = []
    for value in swept_values(background):
        params = background.params.model_validate({key: value})
        mask = background.run(scores, image, params).mask()
        shares.append(((mask == BACKGROUND) | (mask == IGNORE)).float().mean().item())
    assert len(set(shares)) >= 5
    assert shares in (sorted(shares), sorted(shares, reverse=True)), "a sweep must be monotone"


@pytest.mark.parametrize("case", ["scene", *ODD])
def test_sweep_equals_resolving_one_by_one(background: Component, case: str) -> None:
    if "sweep" not in background.traits:
        pytest.skip(f"{background.name} has no sweep of its own")
    scores, image = scene() if case == "scene" else ODD[case]
    key, values = background.traits["swept"], swept_values(background)
    options = [p for p in variants(background) if p.as_dict()[key] == background.params().as_dict()[key]]
    for params in options:
        masks = background.traits["sweep"](scores, image, params, values)
        assert masks.dtype == torch.uint8
        assert masks.shape == (len(values), *scores.values.shape[1:])
        for value, mask in zip(values, masks, strict=True):
            swept = background.params.model_validate({**params.as_dict(), key: value})
            assert torch.equal(mask, background.run(scores, image, swept).mask()), (params, value)


def test_same_result_whatever_the_tile(background: Component) -> None:
    tile_of(background)
    scores, image = scene()
    for params in variants(background):
        first, *others = at_every_tile(background, params, scores, image)
        assert others, f"{background.name}: its tiles have one size"
        for label_scores in others:
            torch.testing.assert_close(label_scores.values, first.values, rtol=1e-6, atol=1e-8)
            assert torch.equal(label_scores.mask(), first.mask()), params


def both_ways(background: Component, params: Parameters, axis: int) -> tuple[LabelScores, LabelScores]:
    """LabelScores of the scene, and that of the mirrored scene mirrored back."""
    scores, image = scene(3, 23, 34)
    there = background.run(scores.replace(scores.values.flip(axis + 1)), image.flip(axis), params)
    back = LabelScores(there.ids, there.values.flip(axis + 1), there.keep.flip(axis))
    return background.run(scores, image, params), back


@pytest.mark.parametrize("axis", [0, 1])
def test_mirrored_input_gives_mirrored_output(background: Component, axis: int) -> None:
    if not background.traits.get("flips"):
        pytest.skip(f"{background.name} does not promise it")
    for params in variants(background):
        straight, mirrored = both_ways(background, params, axis)
        # the last rounding of a power differs between the vectorised middle and the ends of a row
        torch.testing.assert_close(mirrored.values, straight.values, rtol=1e-6, atol=1e-8)
        assert torch.equal(mirrored.mask(), straight.mask()), params


def test_flips_are_declared_where_it_keeps_them(background: Component) -> None:
    if "flips" in background.traits:
        pytest.skip(f"{background.name} says so")
    pairs = [both_ways(background, background.params(), axis) for axis in (0, 1)]
    kept = all(torch.equal(straight.mask(), mirrored.mask()) for straight, mirrored in pairs)
    assert not kept, f"{background.name}: declare flips=True, or flips=False where it holds by chance"


def test_scores_of_another_size_are_refused(background: Component) -> None:
    scores, image = scene()
    with pytest.raises(ValueError, match=rf"{background.name}: scores are \(41, 59\), the image \(40, 59\)"):
        background.run(scores, image[1:], background.params())


def test_bounds_refuse_the_value_beyond(background: Component) -> None:
    for key, value in beyond_bounds(background):
        with pytest.raises(ValidationError, match=key):
            background.params.model_validate({key: value})


def test_declares_ranges_and_says_its_source(background: Component) -> None:
    assert background.takes in (RAW, UNIT, SAME)
    assert background.gives in (RAW, UNIT, SAME)
    assert background.device in ("any", "cpu")
    assert all(field.description for field in background.params.model_fields.values())
    swept = background.traits.get("swept")
    assert swept is None or swept in background.params.model_fields
    assert "Source:" in registry.documentation("backgrounds", background.name)


def test_gpu_gives_what_the_cpu_gives(background: Component) -> None:
    if background.device == "cpu" or not torch.cuda.is_available():
        pytest.skip("no GPU here, or a component for the CPU only")
    scores, image = scene()
    for params in variants(background):
        there = background.run(scores.replace(scores.values.cuda()), image.cuda(), params)
        here = background.run(scores, image, params)
        torch.testing.assert_close(there.values.cpu(), here.values, rtol=1e-5, atol=1e-7)
