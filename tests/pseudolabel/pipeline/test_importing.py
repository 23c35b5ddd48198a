"""`import_run` on a planted importer: maps and masks of elsewhere become a run that every command accepts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pseudolabel
from pseudolabel import registry
from pseudolabel.errors import DataError, UsageError
from pseudolabel.masks import read_mask
from pseudolabel.pipeline.importing import import_run
from pseudolabel.records import Imported, ImportItem, LabelSpace, Scores
from pseudolabel.registry import Component, Parameters, parameter
from pseudolabel.runs import layout
from pseudolabel.runs.maps import read_maps
from pseudolabel.runs.run import Run
from segtrain.pairs import pair_up
from tests.pseudolabel.commands.test_sweep import IDS, NAMES, masks_at, recipe_of, root  # noqa: F401


class Planted(Parameters):
    """What the source gives."""

    masks: bool = parameter(False, help="masks of zeros as well")


@pytest.fixture
def changes() -> dict[str, Any]:
    """Fields of items by id, in place of what the source gives; `names` for the classes."""
    return {}


@pytest.fixture(autouse=True)
def _planted(monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]) -> None:
    def planted(source: Path, params: Planted) -> Imported:
        return Imported(LabelSpace(changes.get("names", NAMES)), items(source, params), ["a thing is lost"])

    def items(source: Path, params: Planted) -> Iterator[ImportItem]:
        for path in sorted(source.iterdir()):
            maps = tuple(read_maps(path))
            shape = tuple(maps[0].values.shape[1:])
            mask = np.zeros(shape, np.uint8) if params.masks else None
            yield replace(ImportItem(path.stem, mask, None, maps), **changes.get(path.stem, {}))

    component = Component("importers", "planted", planted, Planted)
    get = registry.get
    monkeypatch.setattr(registry, "get", lambda *key: component if key[1] == "planted" else get(*key))


def imported(place: Path, out: Path, *overrides: str, recipe: object = None) -> Run:
    import_run("planted", place / "run" / "maps", out, overrides=overrides, recipe=recipe)  # type: ignore[arg-type]
    return Run.open(out)


def test_maps_become_a_run_that_every_command_accepts(root: Path, tmp_path: Path) -> None:  # noqa: F811
    recipe = recipe_of(root)
    run = imported(root, tmp_path / "run", recipe=recipe)
    assert (run.ids, run.classes.names, run.fingerprint["kind"]) == (IDS, NAMES, "import")
    assert run.summary["lost"] == ["a thing is lost"]
    threshold = run.recipe.background.parameters()["threshold"]
    masks_at(root, recipe, threshold, tmp_path / "wanted")
    for item in IDS:
        np.testing.assert_array_equal(run.mask(item, verify=True), read_mask(tmp_path / f"wanted/{item}.png"))
        (scores,), (source,) = run.maps(item, verify=True), read_maps(root / f"run/maps/{item}.safetensors")
        assert scores.ids == source.ids
        assert torch.equal(scores.values, source.values)
    evaluation = pseudolabel.evaluate(run.path, quiet=True)
    swept = pseudolabel.sweep(run.path, thresholds=(threshold,), workers=0, quiet=True)
    assert swept.rows[0]["miou"] == evaluation.miou
    assert pseudolabel.export(run.path, tmp_path / "grey", quiet=True).images == len(IDS)
    pseudolabel.refine(run.path, tmp_path / "refined", workers=0, quiet=True)
    assert Run.open(tmp_path / "refined").digest() == run.digest()
    again = pseudolabel.refine(
        run.path, tmp_path / "other", overrides=["background.threshold=0.9"], workers=0, quiet=True
    )
    assert Run.open(again.run).digest() != run.digest()
    data = run.recipe.data
    pairs = pair_up(data.component.run(data.params), str(run.path))
    assert pairs.digest(IDS[0]) == run.manifest[IDS[0]]["sha256"]


def test_masks_of_the_source_are_kept(root: Path, tmp_path: Path) -> None:  # noqa: F811
    with_recipe = imported(root, tmp_path / "a", "masks=true", recipe=recipe_of(root))
    alone = imported(root, tmp_path / "b", "masks=true")
    for run in (with_recipe, alone):
        assert not any(run.mask(item).any() for item in IDS)
        assert len(run.maps(IDS[0], verify=True)) == 1
    truth, classes = root / "voc" / "SegmentationClass", alone.path / layout.CLASSES
    scored = pseudolabel.evaluate(alone.path, truth=truth, classes=classes, quiet=True)
    assert scored.images == len(IDS)
    with pytest.raises(UsageError, match=r"no recipe\.yaml"):
        pseudolabel.sweep(alone.path, quiet=True)


def test_the_same_import_is_done_again_and_another_is_refused(root: Path, tmp_path: Path) -> None:  # noqa: F811
    first = imported(root, tmp_path / "run", "masks=true").digest()
    assert imported(root, tmp_path / "run", "masks=true").digest() == first
    with pytest.raises(UsageError, match=r"parameters\.masks: True -> False"):
        imported(root, tmp_path / "run", recipe=recipe_of(root))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": np.zeros((3, 3), np.uint8)}, "003: mask is 3 x 3, its image"),
        ({"mask": np.full((16, 20), 7, np.uint8)}, "003: mask holds 7"),
        ({"labels": (2,)}, r"003: maps of classes \(1,\), \(2,\) wanted"),
        (
            {"labels": (3,), "maps": (Scores((3,), torch.ones(1, 16, 20)),)},
            r"003: labels \(3,\) are not within",
        ),
        ({"maps": (Scores((1,), torch.full((1, 16, 20), torch.nan)),)}, "holds NaN or infinity"),
        (
            {"maps": (Scores((1,), torch.ones(1, 16, 20)),) * 2},
            "003: has maps of 2 branches, the recipe has 1",
        ),
        ({"maps": None, "mask": None}, "003: has neither mask nor maps"),
        ({"maps": (Scores((), torch.zeros(0, 16, 20)),)}, "003: has no label; set no_label"),
        ({"id": "stranger"}, "stranger: is no image of the recipe's data"),
    ],
)
def test_an_item_that_does_not_fit_is_listed_and_the_others_are_taken(
    root: Path,  # noqa: F811
    tmp_path: Path,
    changes: dict[str, Any],
    change: dict[str, Any],
    message: str,
) -> None:
    changes["003"] = change
    run = imported(root, tmp_path / "run", recipe=recipe_of(root))
    assert set(IDS) - set(run.ids) == {"003"}
    assert run.summary["failed"] == 1
    (problem,) = run.problems
    assert (problem["code"], problem["file"]) == ("not_imported", change.get("id", "003"))
    assert re.search(message, problem["what"])


def test_a_source_that_does_not_fit_is_refused(
    root: Path,  # noqa: F811
    tmp_path: Path,
    changes: dict[str, Any],
) -> None:
    with pytest.raises(UsageError, match="000: has maps alone; give a recipe"):
        imported(root, tmp_path / "run")
    changes["003"] = {"id": "002"}
    with pytest.raises(DataError, match="002: stands twice in the source"):
        imported(root, tmp_path / "twice", "masks=true")
    changes["names"] = ("background", "dog", "cat")
    with pytest.raises(DataError, match="the classes of the source are not those of the recipe's data"):
        imported(root, tmp_path / "classes", recipe=recipe_of(root))
    with pytest.raises(
        UsageError, match=r"--set: planted\.mask: 'mask' is not a key here; did you mean 'masks'"
    ):
        imported(root, tmp_path / "other", "mask=true")
    with pytest.raises(DataError, match="nowhere: there is no such file or folder"):
        import_run("planted", tmp_path / "nowhere", tmp_path / "none")
