"""A comparison from end to end, what it does not do again, and how it fails."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pseudolabel.errors import DataError, UsageError
from pseudolabel.runs import disk
from segtrain.comparison import kept, stages

Compare = Callable[..., dict[str, Any]]
COMMANDS = ("train_classifier", "generate", "reference", "sweep", "refine", "evaluate_masks")


@pytest.fixture(scope="module")
def finished(compare: Compare, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A finished comparison and what it returned."""
    out = tmp_path_factory.mktemp("compare") / "out"
    return out, compare(out)


@pytest.fixture
def again(finished: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    """A copy of it, to work on."""
    return Path(shutil.copytree(finished[0], tmp_path / "again"))


def bytes_of(folder: Path) -> dict[str, str]:
    """Every file that holds a result, not when or how fast it was made."""
    left_out = {"summary.json", "comparison.json", "sweep.json", ".lock"}
    return {
        str(path.relative_to(folder)): disk.sha256_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in left_out
    }


def test_every_stage_leaves_its_own_run(finished: tuple[Path, dict[str, Any]]) -> None:
    out, comparison = finished
    cam, crops, truth = comparison["candidates"]
    for folder in ("cam", "crop-saliency"):
        place = out / "candidates" / folder
        assert len(list((place / "train" / "maps").iterdir())) == 8
        assert len(list((place / "report" / "masks").iterdir())) == 4
        swept = disk.read_json(place / "train" / "sweep.json")
        row = cam if folder == "cam" else crops
        assert row["threshold"] == swept["best"]["threshold"]
        assert swept["split"] == "train"
        for split in ("train", "report"):
            masks = place / f"{split}-masks"
            score = disk.read_json(place / f"{split}-evaluation.json")
            assert row[split]["miou"] == score["miou"]
            assert row[split]["ndr_recall"] == score["ndr_recall"]
            assert set(row[split]["parts"]) >= {"part_recall", "body_recall"}
            assert score["split"] == ("train" if split == "train" else "val")
            assert f"threshold: {row['threshold']}" in (masks / "recipe.yaml").read_text()
        # the figure that picked the threshold is the figure of the masks that were trained on
        assert row["train"]["miou"] == pytest.approx(swept["best"]["miou"], abs=1e-12)
    for row in comparison["candidates"]:
        assert row["network"]["images"] == 4
        assert row["share"] == pytest.approx(row["network"]["miou"] / truth["network"]["miou"])
    assert truth["report"] is None
    assert truth["share"] == 1
    assert {split: description["sha256"] for split, description in comparison["references"].items()} == {
        split: disk.sha256_file(out / "reference" / f"{split}.safetensors") for split in stages.SPLITS
    }
    assert cam["report"]["reference"]["sha256"] == comparison["references"]["report"]["sha256"]
    assert crops["report"]["reference"] == cam["report"]["reference"]


def test_networks_were_trained_on_the_masks_of_their_candidate(finished: tuple[Path, dict[str, Any]]) -> None:
    out, _ = finished
    for folder, masks in (("cam", "candidates/cam/train-masks"), ("ground-truth", "null")):
        text = (out / "candidates" / folder / "network" / "recipe.yaml").read_text()
        line = next(line for line in text.splitlines() if line.startswith("masks:"))
        assert line.rstrip("'\"").endswith(masks)


def test_written_up_without_a_place(
    finished: tuple[Path, dict[str, Any]], recipes: Path, scenes: Path
) -> None:
    out, comparison = finished
    assert disk.read_json(out / "comparison.json") == {k: v for k, v in comparison.items() if k != "run"}
    for name in ("comparison.json", "comparison.md", "report.html"):
        text = (out / name).read_text()
        assert all(str(place) not in text for place in (out, recipes, scenes, Path.home())), name
        assert "/tmp" not in text
    assert (out / "images.png").is_file()


def test_what_is_finished_is_not_made_again(
    again: Path, compare: Compare, finished: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # the copy lies elsewhere, and no byte depends on where
    before = bytes_of(again)
    called: list[str] = []
    for name in ("sweep", "reference", "evaluate_masks"):
        monkeypatch.setattr(stages, name, lambda *a, name=name, **k: called.append(name))
    comparison = compare(again)
    assert called == []
    after = bytes_of(again)
    changed = {name for name in before | after if before.get(name) != after.get(name)}
    assert {Path(name).name for name in changed} <= {"recipe.yaml"}  # holds where its data lie
    assert {**comparison, "run": ""} == {**finished[1], "run": ""}


def test_a_candidate_added_costs_only_itself(
    again: Path, compare: Compare, recipes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (recipes / "compare.yaml").read_text()
    added = (
        "  - {name: masks, masks: " + str(again / "candidates/cam/train-masks/masks") + "}\n  - {name: ground"
    )
    (recipes / "wider.yaml").write_text(text.replace("  - {name: ground", added))
    trained: list[str] = []
    real = stages.evaluate_masks
    monkeypatch.setattr(
        stages, "evaluate_masks", lambda **k: trained.append(str(k.get("masks"))) or real(**k)
    )
    before = disk.sha256_file(again / "candidates/cam/network/checkpoints/last.safetensors")
    comparison = compare(again, file="wider.yaml")
    assert len(trained) == 1
    assert [row["name"] for row in comparison["candidates"]] == [
        "CAM",
        "crop saliency",
        "masks",
        "ground truth",
    ]
    same, cam = comparison["candidates"][2], comparison["candidates"][0]
    assert (same["kind"], same["threshold"], same["report"]) == ("masks", None, None)
    assert same["train"]["miou"] == cam["train"]["miou"]
    assert same["network"]["miou"] == cam["network"]["miou"]  # the same masks give the same network
    assert disk.sha256_file(again / "candidates/cam/network/checkpoints/last.safetensors") == before


def test_another_configuration_is_refused_by_the_stage_that_differs(again: Path, compare: Compare) -> None:
    with pytest.raises(UsageError, match=r"stage CAM: maps on train: .*batch: 'auto' -> 5.*--overwrite"):
        compare(again, "candidates.0.set=[batch=5]")
    crops = disk.sha256_file(again / "candidates/crop-saliency/train/manifest.jsonl")
    comparison = compare(again, "candidates.0.set=[batch=5]", overwrite=True)
    assert (again / "candidates/cam/train.old-1").is_dir()
    assert not (again / "candidates/crop-saliency/train.old-1").exists()
    assert disk.sha256_file(again / "candidates/crop-saliency/train/manifest.jsonl") == crops
    assert comparison["recipes"]["CAM"]["batch"] == 5


def test_thresholds_of_the_recipes(again: Path, compare: Compare) -> None:
    comparison = compare(again, "threshold=recipe", overwrite=True)  # other masks, so another network
    cam = comparison["candidates"][0]
    assert (cam["threshold"], cam["threshold_picked"]) == (0.31, "the recipe's own")
    evaluation = disk.read_json(again / "candidates/cam/report-evaluation.json")
    assert cam["report"]["miou"] == evaluation["miou"]
    assert not any("picked" in sentence for sentence in comparison["verdict"])


def test_a_stage_that_fails_is_named(compare: Compare, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"stage CAM: maps on train: .*nowhere"):
        compare(tmp_path / "out", "classifier={run: nowhere}")
    with pytest.raises(DataError, match=r"stage data: .*holds other scenes"):
        compare(tmp_path / "out2", "data.seed=7")


def test_a_strange_folder_is_left_alone(compare: Compare, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds files that no run has made"):
        compare(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_images_are_spread_over_the_list(compare: Compare, scenes: Path) -> None:
    from pseudolabel.records import Dataset, ImageRecord, LabelSpace

    space = LabelSpace(("background", "cat"))
    there = Path("mask.png")
    records = tuple(ImageRecord(str(i), Path(f"{i}.jpg"), (1,), there) for i in range(10))
    assert stages._shown(Dataset(records, space), 2) == ("2", "7")
    assert stages._shown(Dataset(records, space), 0) == ()
    assert len(stages._shown(Dataset(records[:3], space), 8)) == 3
    oracles = (
        ImageRecord("a/1", Path("a/1.jpg"), (1,), there),
        ImageRecord("b/1", Path("b/1.jpg"), (1,), there),
    )
    assert len(stages._shown(Dataset(oracles, space), 8)) == 1


def test_kept_until_what_it_was_made_from_changes(tmp_path: Path) -> None:
    calls: list[int] = []

    def make() -> dict[str, Any]:
        calls.append(1)
        (tmp_path / "file").write_text("x" * len(calls))
        return {"count": len(calls), "sha256": disk.sha256_file(tmp_path / "file")}

    file = {tmp_path / "file": "sha256"}
    assert kept.kept(tmp_path / "note.json", {"a": 1}, make, file)["count"] == 1
    assert kept.kept(tmp_path / "note.json", {"a": 1}, make, file)["count"] == 1
    assert kept.kept(tmp_path / "note.json", {"a": 2}, make, file)["count"] == 2
    (tmp_path / "file").write_text("damaged")
    assert kept.kept(tmp_path / "note.json", {"a": 2}, make, file)["count"] == 3
    (tmp_path / "file").unlink()
    assert kept.kept(tmp_path / "note.json", {"a": 2}, make, file)["count"] == 4
    assert json.loads((tmp_path / "note.json").read_text())["result"]["count"] == 4
