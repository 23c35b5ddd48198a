"""`sweep --pick-on`: a threshold from elsewhere, scored on images that had no say in it."""

import shutil

import numpy as np
import pytest

from pseudolabel.draws import seed_of
from pseudolabel.errors import DataError, UsageError
from pseudolabel.figures.text import FORMS
from pseudolabel.masks import read_mask, write_mask
from pseudolabel.scoring import threshold_picks
from tests.pseudolabel.commands.test_sweep import (
    IDS,
    NAMES,
    recipe_of,
    root,  # noqa: F401
    run,  # noqa: F401
    sweep,
    write_recipe,
)
from tests.pseudolabel.finished_run import seal

VALUES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)


@pytest.fixture
def lists(root):  # noqa: F811
    """The lists `first` (6 images) and `rest` (12 others) beside `val` (all 18)."""
    folder = root / "voc" / "ImageSets" / "Segmentation"
    (folder / "first.txt").write_text("\n".join(IDS[:6]) + "\n")
    (folder / "rest.txt").write_text("\n".join(IDS[6:]) + "\n")
    return folder


def swept(folder, split, **options):
    return sweep(
        folder, thresholds=VALUES, overrides=[f"data.split={split}"], workers=0, quiet=True, **options
    )


def test_without_it_nothing_is_picked(run):  # noqa: F811
    assert sweep(run, thresholds=VALUES, workers=0, quiet=True)["picks"] == []


def test_a_split_is_picked_on_and_the_others_are_reported(run, lists):  # noqa: F811
    first, rest = swept(run, "first"), swept(run, "rest")
    at = {row["threshold"]: row["miou"] for row in rest["rows"]}
    for reported in ("rest", "val"):  # of `val` the six of `first` are left out
        (row,) = swept(run, reported, pick_on=["first"])["picks"]
        assert row["threshold"] == first["best"]["threshold"]
        assert row["miou_picked"] == first["best"]["miou"]
        assert row["miou"] == at[row["threshold"]]
        assert row["oracle"] == {"threshold": rest["best"]["threshold"], "miou": rest["best"]["miou"]}
        assert row["gap"] == rest["best"]["miou"] - row["miou"] >= 0
        assert (row["images_picked"], row["images"]) == (6, 12)
        low, high = row["interval"]
        assert low <= row["miou"] <= high
        assert high - low > 0.001


@pytest.mark.parametrize("listed", ["first", "val"])  # the maps of a part of its list are enough
def test_another_run_is_picked_on(run, lists, tmp_path, listed):  # noqa: F811
    other = tmp_path / "other"
    shutil.copytree(run, other)
    text = (run / "recipe.yaml").read_text()
    (other / "recipe.yaml").write_text(text.replace("split: val", f"split: {listed}"))
    for file in (other / "maps").iterdir():
        if file.stem not in IDS[:6]:
            file.unlink()
    seal(other, IDS[:6], NAMES)
    text = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(text.replace("split: val", "split: rest"))
    (row,) = sweep(run, thresholds=VALUES, pick_on=[str(other)], workers=0, quiet=True)["picks"]
    (same,) = swept(run, "rest", pick_on=["first"])["picks"]
    assert {**row, "on": ""} == {**same, "on": ""}
    with pytest.raises(UsageError, match="--pick-on val: all 6 images of the run are among those picked on"):
        swept(other, "first", pick_on=["val"])
    seal(other, IDS, NAMES)
    with pytest.raises(DataError, match=r"12 of 18 images have no stored maps"):
        swept(other, "first", pick_on=["val"])


def test_few_images_drawn_again_and_again(run):  # noqa: F811
    result = sweep(run, thresholds=VALUES, pick_on=["3", "17", "1"], workers=0, quiet=True)
    three, most, single = result["picks"]
    assert (three["images_picked"], three["images"]) == (3, 15)
    assert three["interval_over"] == "200 draws of 3 images"
    assert three["thresholds"][0] <= three["threshold"] <= three["thresholds"][1]
    assert three["interval"][0] <= three["miou"] <= three["interval"][1]
    assert set(three["thresholds"]) <= set(VALUES)
    assert three["gap"] >= 0
    assert (
        single["thresholds"][1] - single["thresholds"][0] >= three["thresholds"][1] - three["thresholds"][0]
    )
    assert most["thresholds"][1] - most["thresholds"][0] <= three["thresholds"][1] - three["thresholds"][0]


def test_few_images_are_what_scoring_them_one_by_one_gives(run, monkeypatch, lists):  # noqa: F811
    """One draw, made over again with the lists of `data.split`."""
    monkeypatch.setattr(threshold_picks, "REPEATS", 1)
    (row,) = sweep(run, thresholds=VALUES, pick_on=["5"], workers=0, quiet=True)["picks"]
    drawn = np.random.default_rng(seed_of("pick", 0, 5)).choice(18, 5, replace=False)
    few = [IDS[place] for place in drawn]
    (lists / "few.txt").write_text("\n".join(few) + "\n")
    (lists / "others.txt").write_text("\n".join(sorted(set(IDS) - set(few))) + "\n")
    best, others = swept(run, "few")["best"], swept(run, "others")
    assert row["threshold"] == best["threshold"]
    assert row["miou"] == {r["threshold"]: r["miou"] for r in others["rows"]}[best["threshold"]]
    assert row["gap"] == pytest.approx(others["best"]["miou"] - row["miou"])


def test_rules_without_truth_look_at_none(run, root):  # noqa: F811
    result = sweep(run, thresholds=VALUES, pick_on=["free"], workers=0, quiet=True)
    rows = {row["rule"]: row for row in result["picks"]}
    assert set(rows) == {"mean", "cross_entropy", "otsu", "stability", "edges"}
    at = {row["threshold"]: row["miou"] for row in result["rows"]}
    for row in rows.values():
        assert (row["sees_truth"], row["images_picked"], row["images"]) == (False, 0, 18)
        assert row["miou"] == at[row["threshold"]]
        assert row["oracle"]["miou"] == result["best"]["miou"]
        assert row["gap"] == row["oracle"]["miou"] - row["miou"] >= 0
    for name in ("mean", "cross_entropy", "otsu"):
        assert abs(rows[name]["threshold"] - rows[name]["exact"]) <= 0.05 + 1e-9
    # the square of a class has scores above 2 of 4, its surroundings below
    assert 0.3 <= rows["cross_entropy"]["threshold"] <= 0.6
    truth = root / "voc" / "SegmentationClass"
    shutil.copytree(truth, root / "kept")
    try:
        for file in truth.iterdir():
            write_mask(file, np.ones_like(read_mask(file)))
        blind = sweep(run, thresholds=VALUES, pick_on=["free"], workers=0, quiet=True)
    finally:
        shutil.rmtree(truth)
        (root / "kept").rename(truth)
    assert [row["threshold"] for row in blind["picks"]] == [row["threshold"] for row in result["picks"]]
    assert [row["miou"] for row in blind["picks"]] != [row["miou"] for row in result["picks"]]


def test_rules_over_scores_are_left_out_where_the_key_is_no_score(run, root):  # noqa: F811
    write_recipe(root, recipe_of(root, "power"))
    result = sweep(run, thresholds=(1, 2, 4, 8), pick_on=["free"], workers=0, quiet=True)
    assert {row["rule"] for row in result["picks"]} == {"stability", "edges"}


def test_the_number_of_workers_changes_nothing(run, lists):  # noqa: F811
    options = {"thresholds": VALUES, "pick_on": ["free", "4", "first"], "quiet": True}
    here = sweep(run, workers=0, **options)
    assert len(here["picks"]) == 7
    assert sweep(run, workers=2, **options) == here


def test_a_person_reads_where_each_threshold_comes_from(run, lists):  # noqa: F811
    result = sweep(run, thresholds=VALUES, pick_on=["first", "4", "free"], workers=0, quiet=True)
    text = FORMS["sweep"](result)
    assert "gap to the best" in text
    for row in result["picks"]:
        (line,) = [
            text_line
            for text_line in text.splitlines()
            if text_line.startswith(f"{row['rule']}, {row['on']} ")
        ]
        assert f"{100 * row['gap']:.1f}" in line.split()[-1]


@pytest.mark.parametrize(
    ("on", "message"),
    [
        ("0", r"--pick-on 0: the run has 18 images; take 1 to 17"),
        ("18", r"--pick-on 18: .*take 1 to 17"),
        ("-3", r"--pick-on -3: .*take 1 to 17"),
        ("val", r"--pick-on val: all 18 images of the run are among those picked on"),
        ("no/where", r"--pick-on no/where: no run of `pl generate`"),
    ],
)
def test_refusals_name_what_to_take(run, on, message):  # noqa: F811
    with pytest.raises(UsageError, match=message):
        sweep(run, thresholds=VALUES, pick_on=[on], workers=0, quiet=True)


def test_an_unknown_split_is_refused_before_anything_is_counted(run, lists, monkeypatch):  # noqa: F811
    monkeypatch.setattr("pseudolabel.commands.sweep.count", None)
    with pytest.raises(DataError, match="firts"):
        sweep(run, thresholds=VALUES, pick_on=["firts"], workers=0, quiet=True)
