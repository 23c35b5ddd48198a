"""The loss as a step of the recipe: every component trains, and a wrong step is answered with the place."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import segtrain
from pseudolabel import registry
from pseudolabel.errors import UsageError
from pseudolabel.recipes.loading import load_recipe
from segtrain.recipe import SegRecipe, decisive

Recipe = Callable[..., dict[str, Any]]
Make = Callable[..., Path]


@pytest.mark.parametrize("name", registry.names("losses"))
def test_every_loss_trains(name: str, make_voc: Make, recipe_of: Recipe, tmp_path: Path) -> None:
    schedule = {"epochs": 8, "batch": 3, "accumulate": 2}
    recipe = recipe_of(make_voc(count=6), schedule=schedule, optimizer={"lr": 0.02}, loss={"name": name})
    segtrain.train(recipe, tmp_path / "run", device="cpu", workers=0, quiet=True)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(math.isfinite(row["loss"]) for row in rows)
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]


@pytest.mark.parametrize(
    ("name", "accumulate", "announced"),
    [("lovasz", 2, True), ("lovasz", 1, False), ("cross_entropy", 2, False)],
)
def test_an_averaged_loss_is_announced(
    name: str,
    accumulate: int,
    announced: bool,
    make_voc: Make,
    recipe_of: Recipe,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    schedule = {"epochs": 1, "batch": 2, "accumulate": accumulate}
    recipe = recipe_of(make_voc(count=2), schedule=schedule, loss={"name": name})
    segtrain.train(recipe, tmp_path / "run", device="cpu", workers=0)
    line = (
        "loss: lovasz does not add up over pixels; the 2 forwards of a batch are averaged, weighted by their "
        "labelled pixels"
    )
    assert (line in " ".join(capsys.readouterr().err.split())) == announced


def test_the_default_is_cross_entropy(tmp_path: Path, recipe_of: Recipe) -> None:
    plain = recipe_of(tmp_path)
    recipe = load_recipe(plain, SegRecipe)
    assert decisive(recipe)["loss"] == {"name": "cross_entropy", "label_smoothing": 0.0}
    assert load_recipe({**plain, "loss": {"name": "cross_entropy"}}, SegRecipe) == recipe


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ({"name": "dise"}, "loss.name: 'dise' is not known; did you mean 'dice'?"),
        ("dice", "loss: the text 'dice', wanted keys with values; write {name: dice}"),
        ({"label_smoothing": 0.1}, "loss.name: is missing"),
        (
            {"name": "dice", "label_smoothing": 0.1},
            "loss.label_smoothing: 'label_smoothing' is not a key here",
        ),
        ({"name": "cross_entropy", "label_smoothing": 1.0}, "loss.label_smoothing: 1.0 is not below 1"),
        ({"name": "generalized_cross_entropy", "q": 0}, "loss.q: 0 is not above 0"),
        (
            {"name": "symmetric_cross_entropy", "alpha": 0.0, "beta": 0.0},
            "loss: alpha and beta are both 0; one of them must be above 0",
        ),
    ],
)
def test_a_wrong_step_is_answered_with_its_place(
    loss: Any, message: str, tmp_path: Path, recipe_of: Recipe
) -> None:
    with pytest.raises(UsageError) as caught:
        load_recipe({**recipe_of(tmp_path), "loss": loss}, SegRecipe)
    assert message in str(caught.value)
