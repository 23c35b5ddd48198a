"""The line from maps to a mask: order of refiners, sweeps, and what is refused when a recipe is read."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pseudolabel import registry
from pseudolabel.contracts.inputs import scene
from pseudolabel.errors import UsageError
from pseudolabel.pipeline import postprocessing
from pseudolabel.recipes import composition
from pseudolabel.recipes.loading import load_recipe
from pseudolabel.recipes.schema import Fuse, GenerateRecipe
from pseudolabel.recipes.steps import BackgroundStep, MethodStep, PostprocessorStep, RefinerStep
from pseudolabel.records import LabelScores, Scores
from pseudolabel.registry import RAW, SAME, UNIT, Component, Parameters, parameter

NORMALISE = RefinerStep(name="normalise", method="minmax")
COMPETITION = RefinerStep(name="competition")


class Strict(Parameters):
    """Parameters of the components planted here."""

    level: float = parameter(0.5, ge=0, le=1, help="above it the label scores is kept")


class Planted:
    """A step whose component stands in no kind."""

    def __init__(self, name, run, takes=UNIT, gives=UNIT, **traits):
        self.component_name = name
        self.component = Component("backgrounds", name, run, Strict, takes, gives, traits=traits)
        self.params = Strict()


def sure(label_scores: LabelScores, image: torch.Tensor, params: Strict) -> LabelScores:
    """A postprocessor that keeps what some row is sure of."""
    return LabelScores(
        label_scores.ids,
        label_scores.values,
        label_scores.keep & (label_scores.values.amax(0) > params.level),
    )


def above(scores: Scores, image: torch.Tensor, params: Strict) -> LabelScores:
    """A background rule that can be swept only one value at a time."""
    return LabelScores.join(torch.full(scores.values.shape[1:], params.level), scores)


def test_refiners_run_in_the_order_of_the_list() -> None:
    values = torch.tensor([[[4.0, 2.0, 0.0]], [[1.0, 1.0, 0.0]]])
    image = np.zeros((1, 3, 3), np.uint8)
    scores = Scores((1, 2), values)
    first = postprocessing.refine(scores, image, [COMPETITION, NORMALISE]).values[:, 0]
    second = postprocessing.refine(scores, image, [NORMALISE, COMPETITION]).values[:, 0]
    np.testing.assert_allclose(first, [[1, 3 / 7, 0], [0, 0, 0]], rtol=1e-6)
    np.testing.assert_allclose(second, [[0.5, 0, 0], [0.5, 0.75, 0]], rtol=1e-6)
    assert torch.equal(scores.values, values)
    assert postprocessing.refine(scores, image, []) is scores


def test_the_paper_line_by_hand() -> None:
    """compete(raw), normalise, constant: two classes of four pixels."""
    values = torch.tensor([[[8.0, 5.0, 2.0, 0.0]], [[4.0, 6.0, 0.0, 0.0]]])
    # competition: (6, 2, 2, 0), (0, 3.5, 0, 0); min-max: (1, 1/3, 1/3, 0), (0, 1, 0, 0)
    refined = postprocessing.refine(
        Scores((3, 7), values), np.zeros((1, 4, 3), np.uint8), [COMPETITION, NORMALISE]
    )
    for threshold, expected in ((0.2, [3, 7, 3, 0]), (0.4, [3, 7, 0, 0]), (1.0, [0, 0, 0, 0])):
        step = BackgroundStep(name="constant", threshold=threshold)
        mask = postprocessing.resolve(refined, np.zeros((1, 4, 3), np.uint8), step)
        assert mask.dtype == np.uint8
        assert mask.tolist() == [expected]


def test_an_image_without_a_class_is_background() -> None:
    nothing = Scores((), torch.zeros(0, 5, 4))
    image = np.zeros((5, 4, 3), np.uint8)
    assert postprocessing.refine(nothing, image, [NORMALISE]) is nothing
    for name in registry.names("backgrounds"):
        step = BackgroundStep(name=name)
        assert postprocessing.resolve(nothing, image, step).tolist() == [[0] * 4] * 5
        assert postprocessing.sweep(nothing, image, step, [0.1, 0.2]).shape == (2, 5, 4)


def test_a_read_only_image_is_taken_as_it_is() -> None:
    scores, input_image = scene()
    image = input_image.numpy().copy()
    image.setflags(write=False)
    step = BackgroundStep(name="superpixel")
    np.testing.assert_array_equal(
        postprocessing.resolve(scores, image, step), postprocessing.resolve(scores, input_image, step)
    )


def test_postprocessors_run_after_the_background_and_keep_becomes_255() -> None:
    scores, image = scene()
    step, postprocess = BackgroundStep(name="constant", threshold=0.3), Planted("sure", sure)
    plain, finished = (
        postprocessing.resolve(scores, image, step),
        postprocessing.resolve(scores, image, step, [postprocess]),
    )
    unsure = scores.values.amax(0).clamp(min=0.3).numpy() <= 0.5
    assert 0 < unsure.mean() < 1
    np.testing.assert_array_equal(finished, np.where(unsure, 255, plain))


@pytest.mark.parametrize("postprocess", [(), (Planted("sure", sure),)])
@pytest.mark.parametrize("name", registry.names("backgrounds"))
def test_sweep_equals_resolving_at_every_value(name: str, postprocess: tuple[Planted, ...]) -> None:
    scores, image = scene()
    step = BackgroundStep(name=name)
    if "swept" not in step.component.traits:
        pytest.skip(f"{name} has nothing to sweep")
    key, values = composition.swept_key(step), [0.05, 0.3, 0.6]
    masks = postprocessing.sweep(scores, image, step, values, postprocess)
    assert masks.shape == (3, 41, 59)
    assert masks.dtype == np.uint8
    assert len({mask.tobytes() for mask in masks}) >= 2
    for value, mask in zip(values, masks, strict=True):
        label_scores = postprocessing.resolve(
            scores, image, BackgroundStep(name=name, **{key: value}), postprocess
        )
        np.testing.assert_array_equal(mask, label_scores)


def test_a_background_without_a_sweep_of_its_own_is_swept_one_by_one() -> None:
    scores, image = scene()
    planted = Planted("above", above, swept="level")
    masks = postprocessing.sweep(scores, image, planted, [0.2, 0.9])
    expected = postprocessing.sweep(scores, image, BackgroundStep(name="constant"), [0.2, 0.9])
    np.testing.assert_array_equal(masks, expected)
    assert postprocessing.sweep(scores, image, planted, []).shape == (0, 41, 59)


def test_what_cannot_be_swept_is_refused() -> None:
    scores, image = scene()
    with pytest.raises(UsageError, match="'above' has no threshold to sweep; take another background rule"):
        composition.swept_key(Planted("above", above))
    with pytest.raises(UsageError, match=r"background\.threshold: 1\.5 is refused by 'constant'"):
        postprocessing.sweep(scores, image, BackgroundStep(name="constant"), [0.5, 1.5])


class Line:
    """A branch with planted or real steps."""

    def __init__(self, *refiners: composition.StepShape, method: composition.StepShape | None = None) -> None:
        self.method = method or MethodStep(name="cam")
        self.refine = refiners


def test_unit_scores_are_wanted() -> None:
    smooth, power = RefinerStep(name="smooth"), BackgroundStep(name="power")
    said = "'power' takes scores in 0..1, 'smooth' gives raw ones; put {name: normalise} between"
    assert list(composition.misfits([Line(smooth)], (), power)) == [(("background",), said)]
    ((_, text),) = composition.misfits([Line()], (), power)
    assert text.startswith("'power' takes scores in 0..1, 'cam' gives raw ones")
    assert list(composition.misfits([Line(NORMALISE)], (), power)) == []
    assert list(composition.misfits([Line(NORMALISE, smooth, COMPETITION)], (), power)) == []


def test_every_gap_of_a_line_is_told_once() -> None:
    raw = Planted("raw", above, takes=RAW, gives=RAW)
    strict = Planted("strict", sure, takes=UNIT, gives=SAME)
    gaps = list(composition.misfits([Line(strict, strict, raw)], (), BackgroundStep(name="constant")))
    assert [key for key, _ in gaps] == [("maps", 0, "refine", 0), ("background",)]
    assert "'constant' takes scores in 0..1, 'raw' gives raw ones" in gaps[1][1]
    gaps = list(composition.misfits([Line()], (), raw, [strict, PostprocessorLike()]))
    assert [key for key, _ in gaps] == [("postprocess", 0)]


def test_lines_that_are_fused_end_in_the_unit_range() -> None:
    raw = Planted("raw", above, takes=RAW, gives=RAW)
    constant = BackgroundStep(name="constant")
    assert list(composition.misfits([Line(NORMALISE), Line(NORMALISE)], (), constant)) == []
    gaps = list(composition.misfits([Line(NORMALISE), Line(COMPETITION)], (), constant))
    assert gaps == [
        (
            ("maps", 1, "refine"),
            "fuse takes scores in 0..1, 'competition' gives raw ones; end with {name: normalise}",
        )
    ]
    gaps = list(composition.misfits([Line(NORMALISE), Line(NORMALISE)], (raw,), constant))
    assert [key for key, _ in gaps] == [("background",)]


def test_lines_are_refined_apart_and_then_fused() -> None:
    scores, image = scene()
    other = scores.replace(scores.values.flip(2) * 0.5)
    fuse = Fuse(by="mean", weights=(1.0, 3.0), refine=(COMPETITION,))
    actual = postprocessing.combine([scores, other], image, [(), (NORMALISE,)], fuse)
    normal = postprocessing.refine(other, image, (NORMALISE,)).values
    expected = postprocessing.refine(
        scores.replace(0.25 * scores.values + 0.75 * normal), image, (COMPETITION,)
    )
    torch.testing.assert_close(actual.values, expected.values)
    (alone,) = [postprocessing.combine([scores], image, [(NORMALISE,)], None)]
    assert torch.equal(alone.values, postprocessing.refine(scores, image, (NORMALISE,)).values)


class PostprocessorLike(Planted):
    """A postprocessor that takes anything."""

    def __init__(self) -> None:
        super().__init__("anything", sure, takes=SAME, gives=SAME)


def test_steps_of_recipes_are_steps_of_the_line() -> None:
    step: composition.StepShape = PostprocessorStep(name="crf")
    assert step.component_name == "crf"


def test_a_recipe_that_does_not_compose_is_refused_with_line_and_key(tmp_path) -> None:
    file = tmp_path / "voc.yaml"
    file.write_text(
        "data: {reader: voc, root: x, split: train}\n"
        "classifier: {checkpoint: runs/x}\n"
        "maps:\n"
        "  - method: {name: cam}\n"
        "    refine: [{name: smooth}]\n"
        "\n"
        "background: {name: power}\n"
    )
    with pytest.raises(UsageError) as refusal:
        load_recipe(file, GenerateRecipe)
    assert str(refusal.value) == (
        f"{file}:7: background: 'power' takes scores in 0..1, 'smooth' gives raw ones; "
        "put {name: normalise} between"
    )
    load_recipe(file, GenerateRecipe, ["maps.0.refine=[{name: normalise}]"])
