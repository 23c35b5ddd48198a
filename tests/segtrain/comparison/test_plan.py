"""What a comparison reads before it runs anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pseudolabel.errors import UsageError
from segtrain.comparison import plan


def plain(**changed: Any) -> dict[str, Any]:
    return {
        "candidates": [{"name": "CAM", "recipe": "cam.yaml"}, {"name": "truth", "masks": "truth"}],
        "segmentation": "segmentation.yaml",
        "report_on": {"split": "val"},
        **changed,
    }


@pytest.fixture(autouse=True)
def _there(recipes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(recipes)


def test_data_reaches_every_recipe_and_a_candidate_may_differ(recipes: Path, tmp_path: Path) -> None:
    file = recipes / "other" / "compare.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(
        "classifier: {recipe: ../classifier.yaml}\nsegmentation: ../segmentation.yaml\n"
        "candidates: [{name: a, recipe: ../cam.yaml}, {name: b, recipe: ../cam.yaml, "
        "set: [data.seed=5, background.threshold=0.5]}]\nreport_on: {split: val}\ndata: {train: 9}\n"
    )
    parsed = plan.read(file, ["data.root=/there", "data.seed=3"])
    assert parsed.classifier is not None
    steps = [parsed.classifier.data, parsed.segmentation.data, parsed.candidates[0].generate["train"].data]
    for step in steps:
        assert (
            step.parameters() | {"root": "/there", "seed": 3, "train": 9, "split": "train"}
            == step.parameters()
        )
    first, second = parsed.candidates
    assert second.generate["train"].data.parameters()["seed"] == 5
    assert first.generate["train"].background.parameters()["threshold"] == 0.31
    assert second.generate["train"].background.parameters()["threshold"] == 0.5
    for candidate in parsed.candidates:
        assert candidate.generate["report"].data.parameters()["split"] == "val"
        assert candidate.generate["train"].output.maps
        assert candidate.swept == "threshold"
    assert parsed.report_data.parameters()["split"] == "val"
    assert parsed.segmentation.validation == {"split": "val"}


def test_a_run_that_is_there_takes_the_place_of_training() -> None:
    given = plain(classifier={"recipe": "missing.yaml", "run": "runs/there"})
    parsed = plan.read(given)
    assert parsed.classifier is None
    assert parsed.candidates[0].generate["train"].classifier.checkpoint == "runs/there"
    assert plan.read(plain()).candidates[0].generate["report"].classifier.checkpoint == "nowhere"


def test_text_of_any_letters_survives_as_a_path() -> None:
    root = 'a: "b" \\ {c} #d é 😀'
    parsed = plan.read(plain(data={"root": root}))
    assert parsed.candidates[0].generate["train"].data.parameters()["root"] == root


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"candidates": [{"name": "a"}]}, "candidates.0: says both recipe and masks, or neither"),
        (
            {"candidates": [{"name": "a", "recipe": "cam.yaml", "masks": "m"}]},
            "candidates.0: says both recipe and masks, or neither",
        ),
        (
            {"candidates": [{"name": "a", "masks": "truth", "set": ["x=1"]}]},
            "candidates.0.set: overrides a recipe",
        ),
        ({"candidates": [{"name": "a", "masks": "m"}] * 2}, "candidates.1.name: 'a' stands twice"),
        (
            {"candidates": [{"name": "a", "masks": "truth"}, {"name": "b", "masks": "truth"}]},
            "more than one has the truth",
        ),
        ({"report_on": {}}, "report_on: is empty"),
        ({"report_on": {"splt": "val"}}, r"data\.splt|'splt' is not a key"),
        ({"threshold": "best"}, "threshold: 'best' is not known here"),
        ({"data": {"rot": "x"}}, r"--set: data\.rot: 'rot' is not a key"),
        ({"segmentation": "gone.yaml"}, "segmentation: gone.yaml: cannot read the recipe"),
        (
            {"candidates": [{"name": "a", "recipe": "cam.yaml", "set": ["background.treshold=0.1"]}]},
            r"candidates\.0\.recipe: .*'treshold' is not a key here; did you mean 'threshold'",
        ),
    ],
)
def test_wrong_use_is_told_before_anything_runs(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan.read(plain(**changed))


def test_folders_of_candidates_are_plain_and_unique() -> None:
    names = ["Crop saliency (50)", "crop-saliency 50", "../../etc", "猫", "犬", "truth", "<script>"]
    given = plain(candidates=[{"name": name, "masks": "m"} for name in names])
    folders = [candidate.folder for candidate in plan.read(given).candidates]
    assert folders == [
        "crop-saliency-50",
        "crop-saliency-50-2",
        "etc",
        "candidate",
        "candidate-5",
        "truth",
        "script",
    ]
    assert len(set(folders)) == len(folders)
