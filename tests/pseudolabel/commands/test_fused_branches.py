"""Recipes with several branches: generate and refine agree on what becomes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import pseudolabel
from pseudolabel.errors import UsageError
from pseudolabel.masks import read_mask
from pseudolabel.recipes.loading import load_recipe
from pseudolabel.recipes.schema import GenerateRecipe
from pseudolabel.runs.maps import read_maps
from tests.pseudolabel.commands.test_refine import EMPTY, IDS, recipe_of, root  # noqa: F401

CAM = {"method": {"name": "cam"}, "refine": [{"name": "normalise", "method": "max"}]}
SALIENCY = {"method": {"name": "saliency"}, "refine": [{"name": "smooth"}, {"name": "normalise"}]}


def fused_recipe(root: Path, **changes: object) -> dict[str, Any]:  # noqa: F811
    return recipe_of(root, maps=[CAM, SALIENCY], fuse={"by": "mean", "weights": [0.25, 0.75]}, **changes)


@pytest.fixture(scope="module")
def run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    out = tmp_path_factory.mktemp("fused") / "run"
    pseudolabel.generate(fused_recipe(root), out, device="cpu", quiet=True, workers=0)
    return out


def test_each_line_is_stored_and_equals_its_run_alone(run: Path, root: Path, tmp_path: Path) -> None:  # noqa: F811
    assert set(load_file(run / "maps" / f"{IDS[0]}.safetensors")) == {"scores", "scores_1", "ids"}
    for index, alone in enumerate((CAM, SALIENCY)):
        out = tmp_path / str(index)
        pseudolabel.generate(recipe_of(root, maps=[alone]), out, device="cpu", quiet=True, workers=0)
        for name in IDS:
            (expected,) = read_maps(out / "maps" / f"{name}.safetensors")
            actual = read_maps(run / "maps" / f"{name}.safetensors")[index]
            assert actual.ids == expected.ids
            assert torch.equal(actual.values, expected.values)
    assert (read_mask(run / "masks" / f"{EMPTY}.png") == 255).all()


def test_masks_are_those_of_the_weighted_mean(run: Path) -> None:
    from pseudolabel import images
    from pseudolabel.pipeline import postprocessing

    chosen = load_recipe(run / "recipe.yaml", GenerateRecipe)
    reader, params = chosen.data.component, chosen.data.params
    labels = set()
    for record in reader.run(params).records:
        maps = read_maps(run / "maps" / f"{record.id}.safetensors")
        if not maps[0].ids:
            continue
        image = images.read_image(record.image)
        cam, saliency = (
            postprocessing.refine(branch_scores, image, steps.refine)
            for branch_scores, steps in zip(maps, chosen.maps, strict=True)
        )
        values = 0.25 * cam.values + 0.75 * saliency.values
        mask = postprocessing.resolve(cam.replace(values), image, chosen.background)
        stored = read_mask(run / "masks" / f"{record.id}.png")
        assert (stored != mask).mean() < 1e-4
        labels |= set(np.unique(stored).tolist())
    assert len(labels) > 2


def test_refine_reads_every_line(run: Path, tmp_path: Path) -> None:
    pseudolabel.refine(run, tmp_path / "same", quiet=True)
    for name in IDS:
        path = Path("masks") / f"{name}.png"
        assert (tmp_path / "same" / path).read_bytes() == (run / path).read_bytes()
    pseudolabel.refine(run, tmp_path / "max", overrides=["fuse={by: max}"], quiet=True)
    different = [
        (tmp_path / "max" / "masks" / f"{name}.png").read_bytes()
        != (run / "masks" / f"{name}.png").read_bytes()
        for name in IDS
    ]
    assert any(different)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"maps": [CAM], "fuse": {}}, r"fuse: there is one branch; fuse takes several"),
        ({"maps": [CAM, SALIENCY], "fuse": None}, r"fuse: 2 branches; say how they become one"),
        ({"fuse": {"weights": [1]}}, r"fuse\.weights: 1 for 2 branches"),
        ({"fuse": {"weights": [0, 0]}}, r"fuse\.weights: all are 0; give one above 0"),
        ({"fuse": {"by": "max", "weights": [1, 1]}}, r"fuse\.weights: max takes no weights; leave them out"),
        (
            {"maps": [CAM, {"method": {"name": "saliency"}}]},
            r"maps\.1\.refine: fuse takes scores in 0\.\.1, 'saliency' gives raw ones; end with",
        ),
    ],
)
def test_what_does_not_compose_is_refused(changes: dict[str, Any], said: str) -> None:
    base = {
        "data": {"reader": "voc", "root": "nowhere"},
        "classifier": {"checkpoint": "nowhere"},
        "maps": [CAM, SALIENCY],
        "fuse": {"by": "mean"},
        "background": {"name": "constant", "threshold": 0.3},
    }
    assert load_recipe(base, GenerateRecipe).fuse is not None
    with pytest.raises(UsageError, match=said):
        load_recipe({**base, **changes}, GenerateRecipe)


def test_batch_is_a_number_or_auto(tmp_path: Path, root: Path) -> None:  # noqa: F811
    summary = pseudolabel.generate(
        recipe_of(root, batch="auto"), tmp_path / "auto", device="cpu", quiet=True, workers=0
    )
    assert summary.batch == summary.batch_asked == 4
    for wrong in (0, "large"):
        with pytest.raises(UsageError, match="batch"):
            load_recipe(recipe_of(root, batch=wrong), GenerateRecipe)
