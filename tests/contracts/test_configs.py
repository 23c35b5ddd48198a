"""Every recipe in configs/ is read by its schema and opens with what it does and its command."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pseudolabel.classifier.class_map import read_class_map
from pseudolabel.recipes.loading import load_recipe
from pseudolabel.recipes.schema import GenerateRecipe, TrainRecipe
from pseudolabel.recipes.section import Section
from segtrain.comparison.plan import read
from segtrain.comparison.recipe import CompareRecipe
from segtrain.recipe import SegRecipe

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = sorted(CONFIGS.rglob("*.yaml"))


def is_class_map(text: str) -> bool:
    return re.search(r"^data:", text, re.MULTILINE) is None and "candidates:" not in text


def schema_of(text: str) -> type[Section]:
    keys = set(re.findall(r"^([a-z_]+):", text, re.MULTILINE))
    if "candidates" in keys:
        return CompareRecipe
    if "maps" in keys:
        return GenerateRecipe
    return TrainRecipe if "backbone" in text else SegRecipe


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(CONFIGS).as_posix())
def test_is_read_and_says_its_command(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if is_class_map(text):
        assert read_class_map(path).ids
    else:
        load_recipe(path, schema_of(text))
    head = text.split("\n\n")[0]
    assert head.startswith("# ")
    command = re.search(r"#   (?:pl|seg) [a-z]+ (configs/\S+)", text) or re.search(r"scripts/demo", text)
    assert command, "the head names the command"
    if command.groups() and not is_class_map(text):
        assert command.group(1) == f"configs/{path.relative_to(CONFIGS).as_posix()}"


@pytest.mark.parametrize("path", [p for p in FILES if p.name == "compare.yaml"], ids=lambda p: p.parent.name)
def test_a_comparison_composes(path: Path) -> None:
    assert read(path).candidates


def test_there_are_recipes() -> None:
    assert {p.parent.name for p in FILES} >= {"demo", "voc", "table", "folder"}


# paper.md 5.1, column of IRN: what the recipe that claims the authors' numbers must say
IRN = {
    "network": {
        "output_stride": 16,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    },
    "optimizer": {
        "lr": 0.1,
        "head_factor": 10.0,
        "momentum": 1e-4,
        "weight_decay": 1e-4,
        "clip": None,
        "frozen_norm": True,
        "frozen_stem": True,
        "frozen_stages": 2,
    },
    "schedule": {"epochs": 5, "batch": 16, "power": 0.9, "last_batch": "drop"},
    "augmentation": {"resize": [320, 640], "crop": 512, "flip": True},
}


def test_the_recipe_with_the_authors_numbers_carries_all_of_them() -> None:
    path = next(path for path in FILES if path.name == "classifier_resnet50.yaml")
    plain = load_recipe(path, TrainRecipe).model_dump(mode="json")
    for section, values in IRN.items():
        assert {key: plain[section][key] for key in values} == values, section
    assert set(plain["schedule"]) == set(IRN["schedule"]), "a new key needs the authors' value here"
    assert set(plain["optimizer"]) == set(IRN["optimizer"]), "a new key needs the authors' value here"
    assert plain["network"]["backbone"] == "resnet50.tv_in1k", "timm's own default weights are others"
    assert [step["name"] for step in plain["objective"]] == ["soft_margin"]
    assert plain["data"]["split"] == "train_aug"
    assert plain["noise"] is None
