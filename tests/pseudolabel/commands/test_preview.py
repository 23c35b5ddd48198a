"""`pl preview`: the same masks as the run, on a sheet, with what they cost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pseudolabel import masks
from pseudolabel.commands._selection import named, spread
from pseudolabel.commands.generate import generate
from pseudolabel.commands.preview import preview
from pseudolabel.errors import UsageError
from pseudolabel.figures import text
from pseudolabel.records import ImageRecord
from tests.pseudolabel.commands.untrained import (
    CROPS,
    SIZES,
    TAGS,
    broken_copy,
    image,
    place_fixture,  # noqa: F401
    recipe,
)


def records(labels: list[tuple[int, ...]]) -> list[ImageRecord]:
    return [ImageRecord(f"i{place}", Path("x"), row) for place, row in enumerate(labels)]


def shown(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image)


def with_truth(place: Path, root: Path, **changed: Any) -> dict[str, Any]:
    """A copy of the place whose images have a truth: above the first class, a line unknown."""
    shutil.copytree(place, root)
    for index, size in enumerate(SIZES):
        truth = np.zeros(size, np.uint8)
        truth[: size[0] // 2] = ["", "cat", "dog", "sheep"].index(TAGS[index].split(";")[0])
        truth[size[0] // 2] = 255
        masks.write_mask(root / "truth" / f"p{index}.png", truth)
    chosen = recipe(root, **changed)
    chosen["data"]["masks"] = "truth"
    return chosen


@pytest.mark.parametrize("changed", [{}, CROPS], ids=["cam", "crops"])
def test_shows_the_masks_of_the_run(place: Path, tmp_path: Path, changed: dict[str, Any]) -> None:
    chosen = with_truth(place, tmp_path / "data", output={"overlays": True}, **changed)
    result = preview(chosen, tmp_path / "out", ids=["p2", "p0", "p7"], quiet=True)
    assert [entry["id"] for entry in result.shown] == ["p2", "p0", "p7"]
    generate(chosen, tmp_path / "run", workers=0, quiet=True)
    for name in ("p0", "p2", "p7"):
        here, there = (shown(tmp_path / folder / "overlays" / f"{name}.png") for folder in ("out", "run"))
        # the run makes three images at once, the preview one: the last bits of a map may differ
        assert (here != there).any(axis=2).mean() <= 0.001
        assert (here != shown(place / "images" / f"{name}.png")).any()


def test_writes_figures_that_can_be_checked(place: Path, tmp_path: Path) -> None:
    chosen = with_truth(place, tmp_path / "data", output={"overlays": True})
    result = preview(chosen, tmp_path / "out", count=5, quiet=True)
    run = generate(chosen, tmp_path / "run", workers=0, quiet=True)
    assert json.loads((tmp_path / "out" / "preview.json").read_text()) == {
        key: value for key, value in result.as_dict().items() if key != "run"
    }
    assert (result.images, result.failed, result.listed, result.picked) == (5, 0, 8, "spread")
    assert result.classifier == run.classifier
    timed = [entry["seconds"] for entry in result.shown][1:]
    assert result.seconds_per_image == pytest.approx(sum(timed) / 4, abs=0.002)
    assert result.estimate_seconds == pytest.approx(8 * result.seconds_per_image, abs=0.06)
    assert len(list((tmp_path / "out" / "overlays").iterdir())) == 5
    for entry in result.shown:
        assert entry["labels"] == TAGS[int(entry["id"][1:])].split(";")
        assert sorted(entry["maps_shown"]) == entry["labels"]
        mask = masks.read_mask(tmp_path / "run" / "masks" / f"{entry['id']}.png")
        truth = masks.read_mask(tmp_path / "data" / "truth" / f"{entry['id']}.png")
        known = truth != 255
        unions = [
            ((mask == c) & (truth == c) & known).sum() / (((mask == c) | (truth == c)) & known).sum()
            for c in range(4)
            if (((mask == c) | (truth == c)) & known).any()
        ]
        assert entry["miou"] == pytest.approx(np.mean(unions), abs=0.002)
        missed = (known & (truth > 0) & (mask == 0)).mean()
        assert entry["shares"]["missed"] == pytest.approx(missed, abs=0.002)
    assert shown(tmp_path / "out" / "preview.png").shape[2] == 3
    text_shown = text.FORMS["preview"](result.as_dict())
    assert "8 images, one after the other: " in text_shown
    assert all(entry["id"] in text_shown for entry in result.shown)


def test_without_a_truth_nothing_is_scored_and_a_second_preview_replaces_the_first(
    place: Path, tmp_path: Path
) -> None:
    preview(recipe(place), tmp_path / "out", ids=["p0", "p1"], quiet=True)
    result = preview(recipe(place), tmp_path / "out", ids=["p3"], overrides=["seed=4"], quiet=True)
    assert [entry["miou"] for entry in result.shown] == [None]
    assert [path.name for path in (tmp_path / "out" / "overlays").iterdir()] == ["p3.png"]
    wide = shown(tmp_path / "out" / "preview.png").shape[1]
    preview(with_truth(place, tmp_path / "data"), tmp_path / "out", ids=["p3"], quiet=True)
    assert shown(tmp_path / "out" / "preview.png").shape[1] > wide


def test_a_run_is_never_taken_for_a_preview(place: Path, tmp_path: Path) -> None:
    generate(recipe(place), tmp_path / "run", limit=1, workers=0, quiet=True)
    with pytest.raises(UsageError, match="is a run's folder; give previews a folder of their own"):
        preview(recipe(place), tmp_path / "run", count=1, quiet=True)


def test_a_broken_image_is_named_and_the_others_are_shown(place: Path, tmp_path: Path) -> None:
    root = broken_copy(place, tmp_path / "data", p3=b"", p5=b"<html></html>")
    result = preview(recipe(root), tmp_path / "out", ids=["p2", "p3", "p5"], quiet=True)
    assert (result.images, result.failed) == (1, 2)
    assert [bool(entry["fault"]) for entry in result.shown] == [False, True, True]
    rows = [json.loads(line) for line in (tmp_path / "out" / "problems.jsonl").read_text().splitlines()]
    assert [row["file"] for row in rows] == ["p3", "p5"]
    assert (tmp_path / "out" / "preview.png").is_file()
    preview(recipe(root), tmp_path / "out", ids=["p2"], quiet=True)
    left = tmp_path / "out" / "problems.jsonl"
    assert not left.exists() or not left.read_text(), "problems of the older preview are gone with it"


def test_predicted_labels_are_those_of_the_run(place: Path, tmp_path: Path) -> None:
    chosen = recipe(place, labels={"source": "predicted", "threshold": 0.5}, no_label="background")
    generate(chosen, tmp_path / "run", workers=0, quiet=True)
    lines = [json.loads(line) for line in (tmp_path / "run" / "manifest.jsonl").read_text().splitlines()]
    result = preview(chosen, tmp_path / "out", count=8, quiet=True)
    names = ["background", "cat", "dog", "sheep"]
    actual = {entry["id"]: entry["labels"] for entry in result.shown}
    assert actual == {line["id"]: [names[label] for label in line["labels"]] for line in lines}
    assert len({len(row) for row in actual.values()}) > 1, "the scene must have images of several sorts"


def test_hostile_names_are_plain_text(place: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(place, root, ignore=shutil.ignore_patterns("p?.png"))
    image(1, (20, 30)).save(root / "images" / "\x1b[31m=1<b>.png")
    (root / "tags.csv").write_text("id,labels\n\x1b[31m=1<b>,cat\n")
    result = preview(recipe(root), tmp_path / "out", count=1, quiet=True)
    text_shown = text.FORMS["preview"](result.as_dict())
    assert r"\x1b[31m=1<b>" in text_shown
    assert min(text_shown.replace("\n", " ")) >= " "


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "--count 0: is not above 0 images"),
        ({"ids": []}, "--ids names no image"),
        ({"ids": ["p2", "P3"]}, r"--ids: 'P3' is not in the list of 8; did you mean 'p3'\?"),
    ],
)
def test_what_names_no_image_is_refused(
    place: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        preview(recipe(place), tmp_path / "out", quiet=True, **options)
    assert not (tmp_path / "out").exists()


def test_images_are_spread_over_list_and_classes() -> None:
    common = [(1,)] * 40
    rare = {25: (2,), 33: (1, 3)}
    listed = records([rare.get(place, label) for place, label in enumerate(common)])
    picked = [int(record.id[1:]) for record in spread(listed, 4, 0)]
    assert [place // 10 for place in picked] == [0, 1, 2, 3], "one of each stretch"
    assert picked[2:] == [25, 33], "a class that was not shown comes first"
    assert [record.id for record in spread(listed, 4, 0)] == [f"i{place}" for place in picked]
    assert any(spread(listed, 4, 0) != spread(listed, 4, seed) for seed in range(1, 5))
    assert len(spread(listed, 100, 0)) == 40
    unlabelled = records([(), (1,), (), ()])
    assert [record.id for record in spread(unlabelled, 1, 3)] == ["i1"]
    assert [record.id for record in named(listed, ["i7", "i2", "i7"])] == ["i7", "i2"]
