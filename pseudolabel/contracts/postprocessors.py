"""What every postprocessor keeps: `pytest --pyargs pseudolabel.contracts.postprocessors`.

A component from another package is tested as soon as its entry point is installed; one whose own package is
missing is skipped with that package's name (trait `packages`). Other traits looked at: `strength` (parameters
at which nothing changes), `flips` (True: a mirrored input gives the mirrored output; must be said where it is
so), `tile` (see `pseudolabel.contracts.tiles`), `agreement` (share of labels that an approximation shares
with its oracle; all of them without it), `oracles` (see `pseudolabel.contracts.oracles`).
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
    scene,
    variants,
)
from pseudolabel.contracts.oracles import oracle_of, with_needs
from pseudolabel.contracts.tiles import at_every_tile, tile_of
from pseudolabel.pipeline import postprocessing
from pseudolabel.records import LabelScores, Scores
from pseudolabel.registry import RAW, SAME, UNIT, Component, Parameters

NAMES = registry.names("postprocessors")
ODD = odd_inputs()


@pytest.fixture(params=NAMES)
def postprocessor(request: pytest.FixtureRequest) -> Component:
    component = with_needs(registry.get("postprocessors", request.param))
    for package in component.traits.get("packages", ()):
        pytest.importorskip(package, reason=f"{component.name} needs {package}")
    return component


def label_scores_of(scores: Scores) -> LabelScores:
    """Label scores with a constant background, two specks of the first class in it and a corner not kept."""
    label_scores = LabelScores.join(torch.full(scores.values.shape[1:], 0.3), scores)
    label_scores.values[1, 20:22, -4:-2] = 0.9
    label_scores.values[1, 10:11, -2:-1] = 0.9
    if label_scores.keep.numel() > 1:
        label_scores.keep[:4, :5] = False
    return label_scores


@pytest.mark.parametrize("case", ["scene", "nothing kept", *ODD])
def test_shape_rows_and_range(postprocessor: Component, case: str) -> None:
    scores, image = ODD.get(case, scene())
    label_scores = label_scores_of(scores)
    if case == "nothing kept":
        label_scores.keep[:] = False
    for params in variants(postprocessor):
        out = postprocessor.run(label_scores, image, params)
        assert out.ids == label_scores.ids
        assert out.values.shape == label_scores.values.shape
        assert out.values.dtype == torch.float32
        assert out.values.isfinite().all(), params
        assert out.values.min() >= 0, params
        if postprocessor.gives == UNIT:
            assert out.values.max() <= 1 + 1e-6, params
        assert out.keep.shape == label_scores.keep.shape
        assert out.keep.dtype == torch.bool
        assert not out.keep[~label_scores.keep].any(), "what was given up stays so"


def test_image_without_a_class_is_background(postprocessor: Component) -> None:
    scores, image = no_class()
    background = registry.get("backgrounds", registry.names("backgrounds")[0])
    steps = [Chosen(postprocessor, postprocessor.params())]
    mask = postprocessing.resolve(scores, image, Chosen(background, background.params()), steps)
    assert mask.shape == tuple(image.shape[:2])
    assert mask.dtype == np.uint8
    assert not mask.any()


def test_inputs_are_left_as_they_were(postprocessor: Component) -> None:
    scores, image = scene()
    label_scores = label_scores_of(scores)
    values, keep, image_before = label_scores.values.clone(), label_scores.keep.clone(), image.clone()
    for params in variants(postprocessor):
        postprocessor.run(label_scores, image, params).values.zero_()
        assert torch.equal(label_scores.values, values)
        assert torch.equal(label_scores.keep, keep)
        assert torch.equal(image, image_before)


def test_it_does_something(postprocessor: Component) -> None:
    scores, image = scene()
    label_scores = label_scores_of(scores)
    changed = postprocessor.run(label_scores, image, postprocessor.params()).mask() != label_scores.mask()
    assert 0 < changed.float().mean() < 1


def test_equals_its_oracle(postprocessor: Component) -> None:
    oracle = oracle_of(postprocessor)
    scores, image = scene()
    label_scores = label_scores_of(scores)
    agreement = postprocessor.traits.get("agreement", 1.0)
    for params in variants(postprocessor):
        values, keep = oracle(
            label_scores.values.double().numpy(), label_scores.keep.numpy(), image.numpy(), **params.as_dict()
        )
        out = postprocessor.run(label_scores, image, params)
        np.testing.assert_array_equal(out.keep.numpy(), keep)
        assert (out.rows().numpy() == values.argmax(0))[keep].mean() >= agreement, params
        if agreement == 1:
            # ten updates amplify a float32 rounding at single pixels; the mean shows a wrong formula
            assert np.abs(out.values.numpy() - values).mean() <= 1e-5, params


@pytest.mark.parametrize("case", ["scene", *ODD])
def test_zero_strength_changes_nothing(postprocessor: Component, case: str) -> None:
    if "strength" not in postprocessor.traits:
        pytest.skip(f"{postprocessor.name} declares no strength")
    scores, image = ODD.get(case, scene())
    label_scores = label_scores_of(scores)
    for params in at_strength(postprocessor):
        out = postprocessor.run(label_scores, image, params)
        assert torch.equal(out.values, label_scores.values), params
        assert torch.equal(out.keep, label_scores.keep), params


def test_same_result_whatever_the_tile(postprocessor: Component) -> None:
    tile_of(postprocessor)
    scores, image = scene()
    label_scores = label_scores_of(scores)
    for params in variants(postprocessor):
        first, *others = at_every_tile(postprocessor, params, label_scores, image)
        assert others, f"{postprocessor.name}: its tiles have one size"
        for out in others:
            assert torch.equal(out.mask(), first.mask()), params
            assert (out.values - first.values).abs().mean() <= 1e-5, params  # as for the oracle


def both_ways(postprocessor: Component, params: Parameters, axis: int) -> tuple[LabelScores, LabelScores]:
    """What the postprocessor gives, and what it gives of the mirrored image, mirrored back."""
    scores, image = scene(3, 23, 34)
    label_scores = label_scores_of(scores)
    turned = LabelScores(label_scores.ids, label_scores.values.flip(axis + 1), label_scores.keep.flip(axis))
    there = postprocessor.run(turned, image.flip(axis), params)
    back = LabelScores(there.ids, there.values.flip(axis + 1), there.keep.flip(axis))
    return postprocessor.run(label_scores, image, params), back


@pytest.mark.parametrize("axis", [0, 1])
def test_mirrored_input_gives_mirrored_output(postprocessor: Component, axis: int) -> None:
    if not postprocessor.traits.get("flips"):
        pytest.skip(f"{postprocessor.name} does not promise it")
    before = label_scores_of(scene(3, 23, 34)[0]).mask()
    changed = False
    for params in variants(postprocessor):
        straight, mirrored = both_ways(postprocessor, params, axis)
        changed |= not torch.equal(straight.mask(), before)
        assert torch.equal(mirrored.mask(), straight.mask()), params
        assert (mirrored.values - straight.values).abs().mean() <= 1e-5, params  # as for the oracle
    assert changed, "the scene must show what the postprocessor does"


def test_flips_are_declared_where_it_keeps_them(postprocessor: Component) -> None:
    if "flips" in postprocessor.traits:
        pytest.skip(f"{postprocessor.name} says so")
    pairs = [both_ways(postprocessor, postprocessor.params(), axis) for axis in (0, 1)]
    kept = all(
        torch.equal(straight.mask(), flipped.mask())
        and torch.allclose(straight.values, flipped.values, atol=1e-5)
        for straight, flipped in pairs
    )
    assert not kept, f"{postprocessor.name}: declare flips=True, or flips=False where it holds by chance"


def test_bounds_refuse_the_value_beyond(postprocessor: Component) -> None:
    for key, value in beyond_bounds(postprocessor):
        with pytest.raises(ValidationError, match=key):
            postprocessor.params.model_validate({key: value})


def test_declares_ranges_and_says_its_source(postprocessor: Component) -> None:
    assert postprocessor.takes in (RAW, UNIT, SAME)
    assert postprocessor.gives in (RAW, UNIT, SAME)
    assert postprocessor.device in ("any", "cpu")
    assert all(field.description for field in postprocessor.params.model_fields.values())
    assert "Source:" in registry.documentation("postprocessors", postprocessor.name)


def test_gpu_gives_what_the_cpu_gives(postprocessor: Component) -> None:
    if postprocessor.device == "cpu" or not torch.cuda.is_available():
        pytest.skip("no GPU here, or a component for the CPU only")
    scores, image = scene()
    label_scores = label_scores_of(scores)
    for params in variants(postprocessor):
        moved = LabelScores(label_scores.ids, label_scores.values.cuda(), label_scores.keep.cuda())
        there = postprocessor.run(moved, image.cuda(), params)
        assert there.values.is_cuda
        here = postprocessor.run(label_scores, image, params)
        assert torch.equal(there.mask().cpu(), here.mask())
        assert (there.values.cpu() - here.values).abs().mean() <= 1e-5
