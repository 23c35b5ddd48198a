"""Recipes: strict types, file:line:key in every fault, all faults at once."""

from __future__ import annotations

import json
import pickle
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pseudolabel.errors import UsageError
from pseudolabel.recipes import schema
from pseudolabel.recipes.loading import load_recipe, plain_data
from pseudolabel.recipes.steps import RefinerStep
from pseudolabel.recipes.yaml import dump_recipe

GOOD: dict[str, Any] = {
    "data": {"reader": "voc", "root": "x", "split": "train"},
    "network": {"backbone": "resnet18"},
    "optimizer": {"lr": 0.1},
    "schedule": {"epochs": 2},
    "augmentation": {"resize": [200, 300], "crop": 128},
}


def write(folder: Path, text: str) -> Path:
    path = folder / "r.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(source: Any, *overrides: str, model: Any = schema.TrainRecipe) -> str:
    with pytest.raises(UsageError) as caught:
        load_recipe(source, model, overrides)
    return str(caught.value)


def leaves(data: Any, key: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(data, dict):
        return [leaf for name, value in data.items() for leaf in leaves(value, (*key, name))]
    return [key]


def replaced(data: Any, key: tuple[Any, ...], value: Any) -> Any:
    copy = json.loads(json.dumps(data))
    place = copy
    for part in key[:-1]:
        place = place[part]
    place[key[-1]] = value
    return copy


def test_defaults_are_filled_in_and_read_back() -> None:
    read = load_recipe(GOOD, schema.TrainRecipe)
    assert read.optimizer.momentum == 0.9
    assert read.data.parameters()["split"] == "train"
    assert load_recipe(read, schema.TrainRecipe) == read


def test_dump_reads_back_equal(tmp_path: Path) -> None:
    read = load_recipe(GOOD, schema.TrainRecipe)
    assert load_recipe(write(tmp_path, dump_recipe(read)), schema.TrainRecipe) == read


@given(
    lr=st.floats(1e-9, 1e9),
    name=st.text(min_size=1, max_size=20),
    epochs=st.integers(1, 10**6),
    flip=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_any_recipe_survives_the_round_trip(lr: float, name: str, epochs: int, flip: bool) -> None:
    data = {
        **GOOD,
        "network": {"backbone": name},
        "optimizer": {"lr": lr},
        "schedule": {"epochs": epochs},
        "augmentation": {"resize": [1, 2], "flip": flip},
    }
    read = load_recipe(data, schema.TrainRecipe)
    from ruamel.yaml import YAML

    assert YAML(typ="safe", pure=True).load(dump_recipe(read)) == plain_data(read)


def test_every_fault_at_once_with_line_and_key(tmp_path: Path) -> None:
    text = (
        "data: {reader: voc, root: x, splitt: train}\n"
        "network: {backbone: 3}\n"
        "optimizer:\n  lr: -1\n"
        "schedule: {epochs: 1.5, batch: no}\n"
        "augmentatio: {}\n"
    )
    lines = refusal(write(tmp_path, text)).splitlines()
    path = tmp_path / "r.yaml"
    assert f"{path}:1: data.splitt: 'splitt' is not a key here; did you mean 'split'?" in lines
    assert f"{path}:2: network.backbone: the number 3, wanted a text" in lines
    assert f"{path}:4: optimizer.lr: -1 is not above 0.0" in lines
    assert f"{path}:5: schedule.epochs: the number 1.5, wanted a whole number" in lines
    assert f"{path}:5: schedule.batch: the text 'no', wanted a whole number; the default is 16" in lines
    assert f"{path}:6: augmentatio: 'augmentatio' is not a key here; did you mean 'augmentation'?" in lines


@pytest.mark.parametrize("key", leaves(plain_data(load_recipe(GOOD, schema.TrainRecipe))))
def test_every_key_misspelt_is_refused_by_name(key: tuple[Any, ...]) -> None:
    full = plain_data(load_recipe(GOOD, schema.TrainRecipe))
    wrong = (*key[:-1], f"{key[-1]}x")
    message = refusal(replaced(full, wrong, 1))
    assert f"'{key[-1]}x' is not a key here" in message
    if key != ("data", "reader"):  # the name of a step is not one of its parameters
        assert f"did you mean {key[-1]!r}" in message


@pytest.mark.parametrize("wrong", [{"a": 1}, [1, [2]]])
@pytest.mark.parametrize("key", leaves(plain_data(load_recipe(GOOD, schema.TrainRecipe))))
def test_wrong_types_are_refused_at_their_key(key: tuple[Any, ...], wrong: Any) -> None:
    if key == ("validation",) and isinstance(wrong, dict):
        wrong = {"splt": 1}
    full = plain_data(load_recipe(GOOD, schema.TrainRecipe))
    assert ".".join(key) in refusal(replaced(full, key, wrong))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: !!python/object:os.system {}\n", r"r.yaml:1: tag .* is refused"),
        ("seed: 1\nseed: 2\n", r"r.yaml:2: .*seed"),
        ("seed: .inf\n", r"r.yaml:1: .inf is refused; write a finite number"),
        ("seed: .nan\n", r"r.yaml:1: .nan is refused"),
        ("seed: [1\n", r"r.yaml:\d: not readable as YAML"),
        ("", "the recipe is empty"),
        ("3\n", "recipe: the number 3, wanted keys with values"),
        ("1: 2\n", "key 1 is not a word"),
    ],
)
def test_yaml_that_is_not_plain_data_is_refused(tmp_path: Path, text: str, message: str) -> None:
    import re

    assert re.search(message, refusal(write(tmp_path, text)))


def test_an_alias_bomb_ends_at_once(tmp_path: Path) -> None:
    rows = ["a0: &a0 [1,1,1,1,1,1,1,1,1]"]
    rows += [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    start = time.perf_counter()
    assert "nodes after following aliases" in refusal(write(tmp_path, "\n".join(rows)))
    assert time.perf_counter() - start < 1


def test_numbers_and_words_are_read_as_yaml_1_2_says(tmp_path: Path) -> None:
    text = dump_recipe(load_recipe(GOOD, schema.TrainRecipe)).replace("lr: 0.1", "lr: 1e-4")
    read = load_recipe(
        write(tmp_path, text.replace("backbone: resnet18", "backbone: no")), schema.TrainRecipe
    )
    assert read.optimizer.lr == 1e-4
    assert read.network.backbone == "no"


def test_overrides_apply_in_order_and_name_their_faults() -> None:
    read = load_recipe(GOOD, schema.TrainRecipe, ["schedule.epochs=7", "schedule.epochs=8", "data.split=val"])
    assert read.schedule.epochs == 8
    assert read.data.parameters()["split"] == "val"
    assert refusal(GOOD, "schedule.epoch=1").startswith("--set: schedule.epoch: 'epoch' is not a key here")
    assert "expected key=value" in refusal(GOOD, "nonsense")
    assert "is not one of the" in refusal(GOOD, "augmentation.resize.5=3")


def test_unknown_component_names_the_nearest() -> None:
    data = {
        "data": GOOD["data"],
        "classifier": {"checkpoint": "x"},
        "maps": [{"method": {"name": "saliensy"}}],
        "background": {"name": "constnt"},
    }
    message = refusal(data, model=schema.GenerateRecipe)
    assert "maps.0.method.name: 'saliensy' is not known; did you mean 'saliency'?" in message
    assert "background.name: 'constnt' is not known; did you mean 'constant'?" in message


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (
            [{"method": "saliency"}],
            "maps.0.method: the text 'saliency', wanted keys with values; write {name: saliency}",
        ),
        (
            [{"method": {"name": "cam"}, "refine": ["my smooth"]}],
            "maps.0.refine.0: the text 'my smooth', wanted keys with values; write {name: \"my smooth\"}",
        ),
        (
            [{"method": {"name": "cam"}, "refine": "smooth"}],
            "maps.0.refine: the text 'smooth', wanted a list; write [{name: smooth}]",
        ),
        ([], "maps: has 0 entries, short for 1"),
    ],
)
def test_a_word_for_a_step_is_one_line_that_writes_the_step(maps: Any, message: str) -> None:
    data = {
        "data": GOOD["data"],
        "classifier": {"checkpoint": "x"},
        "maps": maps,
        "background": {"name": "constant"},
    }
    assert refusal(data, model=schema.GenerateRecipe) == f"recipe: {message}"
    assert refusal({**GOOD, "data": "voc"}) == (
        "recipe: data: the text 'voc', wanted keys with values; write {reader: voc}"
    )


def test_a_list_of_refused_items_is_not_called_short() -> None:
    refiners = [{"name": "affinity", "dilations": ["a"]}]
    data = {
        "data": GOOD["data"],
        "classifier": {"checkpoint": "x"},
        "maps": [{"method": {"name": "cam"}, "refine": refiners}],
        "background": {"name": "constant"},
    }
    (line,) = refusal(data, model=schema.GenerateRecipe).splitlines()
    assert "maps.0.refine.0.dilations.0: the text 'a', wanted a whole number" in line


def test_missing_file_is_named(tmp_path: Path) -> None:
    assert "cannot read the recipe" in refusal(tmp_path / "absent.yaml")


def test_validation_overrides_are_checked_when_read() -> None:
    assert "validation: " in refusal({**GOOD, "validation": {"splt": "val"}})


def test_a_step_is_resolved_once_and_a_copy_anew() -> None:
    step = RefinerStep(name="smooth", size=5)
    assert (step.component.name, step.params.as_dict()["size"]) == ("smooth", 5)
    assert step.params is step.params
    assert step.parameters()["kernel"] == "box", "defaults are filled in"
    larger = step.model_copy(update={"size": 7})
    assert larger.params.as_dict()["size"] == larger.parameters()["size"] == 7
    assert step.params.as_dict()["size"] == 5
    assert pickle.loads(pickle.dumps(larger)) == larger
    with pytest.raises(ValidationError, match="even"):
        step.model_copy(update={"size": 4})
    with pytest.raises(UsageError, match="'smoth' is not known; did you mean 'smooth'"):
        RefinerStep(name="smoth")


def test_overrides_may_be_a_mapping() -> None:
    given = {"schedule.epochs": 7, "data.root": Path("a b/ü: x"), "augmentation.resize": [100, 200]}
    recipe = load_recipe(GOOD, schema.TrainRecipe, given)
    assert recipe.schedule.epochs == 7
    assert recipe.data.parameters()["root"] == "a b/ü: x"
    assert recipe.augmentation.resize == (100, 200)
    texts = ["schedule.epochs=7", 'data.root="a b/ü: x"', "augmentation.resize=[100, 200]"]
    assert recipe == load_recipe(GOOD, schema.TrainRecipe, texts)
