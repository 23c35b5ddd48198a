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
