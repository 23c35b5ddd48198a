"""The experiment scripts on a few tiny images and untrained networks: they run, resume and write."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import pseudolabel
from pseudolabel.classifier.checkpoint import save_classifier
from pseudolabel.classifier.network import Classifier
from pseudolabel.records import LabelSpace
from scripts.experiments import intervals, stored_maps, voc_maps
from scripts.experiments.postprocessing import kinds
from scripts.experiments.results import command

NAMES = ("background", "cat", "dog")
ROOT = Path(__file__).parents[2]
EXPERIMENTS = sorted(path.parent.name for path in (ROOT / "scripts/experiments").glob("*/measure.py"))


def run(name: str, folder: Path, *words: object, figure: bool = True) -> dict[str, Any]:
    """The result that an experiment writes; its page and its figure are checked."""
    measure, report = (
        importlib.import_module(f"scripts.experiments.{name}.{part}") for part in ("measure", "report")
    )
    measure.main([*map(str, words), "--out", str(folder)])
    report.main(["--results", str(folder)])
    page = (folder / f"{name}.md").read_text()
    assert page.startswith("# ")
    assert "nan" not in page
    assert f"\npython -m scripts.experiments.{name}.report\n" in page
    assert all(line.endswith(".") for line in page.splitlines() if line.startswith("- "))
    if figure:
        with Image.open(folder / f"{name}.png") as image:
            assert min(image.size) > 600
    result: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return result


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_committed_page_is_that_of_the_committed_result(name: str, tmp_path: Path) -> None:
    """Pages are made from the JSON beside them and name no folder of this machine."""
    report = importlib.import_module(f"scripts.experiments.{name}.report")
    result = json.loads((ROOT / f"docs/results/{name}.json").read_text())
    page = (ROOT / f"docs/results/{name}.md").read_text()
    assert report.page(result) == page
    assert f"python -m scripts.experiments.{name}.measure " in page
    assert not re.search(r"\.\./|(?<!\w)/(work|home|tmp)/", page)


def test_a_module_runs_as_a_command() -> None:
    line = [sys.executable, "-m", "scripts.experiments.thresholds.measure", "--help"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--average-over" in done.stdout


def test_a_command_shows_data_sets_by_name() -> None:
    words = ["runs/a b", "--root", "/data/voc", "--set", "data.root=../voc", "--root=x", "--set", "seed=1"]
    assert command("experiments.some.measure", words) == (
        "python -m scripts.experiments.some.measure 'runs/a b' --root VOC2012 --set data.root=VOC2012 "
        "--root=VOC2012 --set seed=1"
    )


@pytest.fixture(scope="module", name="voc")
def _voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four images in VOC layout, a bright block of each class, and a classifier that was never trained."""
    root = tmp_path_factory.mktemp("voc")
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / name).mkdir(parents=True)
    rows = ["id,labels"]
    for index in range(4):
        source = np.random.default_rng(index)
        pixels = source.integers(0, 90, (40, 56, 3), dtype=np.uint8)
        truth = np.zeros((40, 56), np.uint8)
        labels = [1, 2] if index == 3 else [1 + index % 2]
        for label in labels:
            place = np.s_[8 + 4 * index : 26 + 4 * index, 30 * (label - 1) + 4 : 30 * (label - 1) + 20]
            pixels[place] += np.array([150, 20, 90] if label == 1 else [20, 150, 60], np.uint8)
            truth[place] = label
        truth[0] = 255
        Image.fromarray(pixels).save(root / "JPEGImages" / f"p{index}.jpg")
        mask = Image.fromarray(truth)
        mask.putpalette([value for shade in range(256) for value in (shade, shade, shade)])
        mask.save(root / "SegmentationClass" / f"p{index}.png")
        rows.append(f"p{index},{';'.join(NAMES[label] for label in labels)}")
    (root / "labels.csv").write_text("\n".join([*rows, ""]))
    (root / "classes.txt").write_text("\n".join([*NAMES, ""]))
    (root / "ImageSets/Segmentation/train.txt").write_text("p0\np1\np2\np3\n")
    (root / "ImageSets/Segmentation/val.txt").write_text("p1\np2\np3\n")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = Classifier("test_resnet", 2, output_stride=8)
    torch.nn.init.normal_(network.head.weight, 0.1, 1.0, generator=torch.Generator().manual_seed(2))
    (root / "run").mkdir()
    save_classifier(
        root / "run" / "classifier.safetensors",
        network,
        LabelSpace(NAMES),
        (0.5,) * 3,
        (0.25,) * 3,
        {},
        "none",
    )
    return root


@pytest.mark.slow
def test_contribution_window(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 32), ("test", 12)):
        images = np.zeros((count, 28, 28), np.uint8)
        digits = source.integers(0, 10, count).astype(np.uint8)
        for image, digit in zip(images, digits, strict=True):
            image[6 + digit : 12 + digit, 8:18] = source.integers(100, 256, (6, 10))
        arrays |= {f"x_{part}": images, f"y_{part}": digits}
    np.savez(tmp_path / "digits.npz", **arrays)
    words = ("--mnist", tmp_path / "digits.npz", "--kernels", 1, 3, "--biased", "--seeds", 0, "--epochs", 1)
    more = ("--checked", 2, "--work", tmp_path / "work")
    result = run("contribution_window", tmp_path, *words, *more)
    rows = {(row["kernel"], row["bias"]): row for row in result["rows"]}
    assert set(rows) == {(1, False), (3, False)}
    three = rows[3, False]
    assert three["window"] == 11
    assert three["exact_sparse"]["pixels_checked"] > 0
    assert three["exact_sparse"]["largest_gradient_outside"] == 0.0
    assert three["exact_sparse"]["control_nonzero"] > 0
    assert rows[1, False]["exact"]["gradient_beyond_active_pixels"] == 0
    assert "epoch 1" in capsys.readouterr().err
    again = run("contribution_window", tmp_path, *words, *more)
    assert "epoch" not in capsys.readouterr().err, "trained once more"
    assert again["rows"] == result["rows"]


@pytest.mark.slow
def test_crop_sensitivity(tmp_path: Path, voc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (voc / "run", "--root", voc, "--size", 12, "--cells", 3, "--seeds", 0, 1)
    more = ("--average-over", "background cat dog", "--images", 3, "--work", tmp_path / "work")
    result = run("crop_sensitivity", tmp_path, *words, *more)
    assert [row["scale"] for row in result["grid"]] == [[0.05, 0.3]]
    for row in result["grid"]:
        for at in ("fixed", "best"):
            steps = {name: entry["value"] for name, entry in row["steps"][at].items()}
            assert steps["jump"] == pytest.approx(steps["chunk"] + steps["count"], abs=1e-12)
        sums = row["sums"]
        assert sums["200-sigmoid-chunk100"]["best"]["miou"] >= sums["200-sigmoid-chunk100"]["fixed"]["miou"]
        assert sums["150-sigmoid-chunk100"] != sums["150-sigmoid-chunk200"]
    assert set(result["seeds"]["rows"]) == {"0", "1"}
    assert "min left" in capsys.readouterr().err
    again = run("crop_sensitivity", tmp_path, *words, *more)
    assert "min left" not in capsys.readouterr().err, "measured once more"
    assert again["grid"] == result["grid"]


@pytest.mark.slow
def test_noise_vs_crops(tmp_path: Path, voc: Path) -> None:
    words = ("--classifier", voc / "run", "--gaussian", voc / "run", "--mask", voc / "run", "--root", voc)
    more = ("--images", 3, "--passes", 4, "--size", 12, "--average-over", "background cat dog")
    result = run("noise_vs_crops", tmp_path, *words, *more, "--work", tmp_path / "work")
    rows = {row["name"]: row for row in result["rows"]}
    assert {row["passes"] for row in rows.values()} == {1, 4, 28}
    assert rows["SmoothGrad 0.15"]["miou"] == rows["SmoothGrad 0.15, tuned"]["miou"], (
        "one and the same classifier"
    )
    assert rows["CAM"]["stability"] is None
    assert -1 <= rows["crops"]["stability"]["rank_correlation"] <= 1
    assert rows["BinaryMask 0.95"]["ndr_recall"] != rows["BinaryMask 0.5"]["ndr_recall"]


def test_counts_are_those_of_every_mask(voc: Path) -> None:
    from pseudolabel import registry
    from pseudolabel.metrics.regions import region_matrices

    subject = voc_maps.Subject(voc / "run", 4)
    chosen = voc_maps.draw_images(subject, voc, "train", 4, NAMES)
    component = registry.get("backgrounds", "constant")
    shares = [float(image.region[image.truth > 0].mean()) for image in chosen.images]
    assert 0 < sum(shares) < len(shares), "the images must show both regions"
    for image in chosen.images:
        for name in ("cam", "saliency"):
            scores = voc_maps.unit(subject.maps(voc_maps.bound(name), image, 0), image, name)
            shown = torch.from_numpy(image.image.copy())
            masks = component.traits["sweep"](
                scores, shown, component.params(), list(voc_maps.LEVELS)
            ).numpy()
            wanted = np.stack(region_matrices(image.truth, masks, image.region, len(NAMES)), axis=1)
            counted = voc_maps.matrices(voc_maps.counts(scores, image), image.ids, len(NAMES))
            np.testing.assert_array_equal(counted, wanted)


@pytest.fixture(scope="module", name="stored")
def _stored(voc: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stored maps of the kinds that the tests below count, where the script would look for them."""
    work = tmp_path_factory.mktemp("stored")
    for name in ("cam", "cam-multiscale", "saliency-multiscale"):
        recipe = kinds.KINDS[name].recipe(voc, "train", voc / "run")
        pseudolabel.generate(recipe, work / "maps" / name / "train", workers=0, quiet=True)
    return work


@pytest.mark.parametrize(
    ("name", "post"),
    [
        ("cam", "none"),
        ("saliency-multiscale", "none"),
        ("saliency-multiscale", "box + superpixel background"),
        ("cam+saliency .3", "longer walk"),
    ],
)
def test_a_cell_counts_the_masks_of_its_recipe(
    voc: Path, stored: Path, name: str, post: str, tmp_path: Path
) -> None:
    from pseudolabel import masks
    from pseudolabel.metrics.regions import discriminative, region_matrices
    from pseudolabel.scoring.truth import of_reader

    levels = (0.1, 0.35, 0.9)
    parts = kinds.parts_of(name)
    recipe = kinds.recipe_of(name, stored_maps.POSTS[post], voc, voc / "run")
    folders = [stored / "maps" / kind / "train" for kind in ("cam", *parts)]
    cell = stored_maps.Cell(recipe, tuple(folders[1:]), folders[0], levels, tmp_path / "superpixels")
    runs = {level: tmp_path / str(level) for level in levels}
    for level, folder in runs.items():
        options = ["data.split=train", f"background.threshold={level}"]
        pseudolabel.generate(recipe, folder, overrides=options, workers=0, quiet=True)
    values = set()
    for record in of_reader(recipe.data.model_copy(update={"split": "train"})).records:
        assert record.mask is not None
        assert record.labels is not None
        truth = masks.read_mask(record.mask)
        cams = stored_maps.maps_of(folders[0], record)[0].values.numpy()
        predictions = [masks.read_mask(folder / "masks" / f"{record.id}.png") for folder in runs.values()]
        values |= set(np.unique(np.stack(predictions)).tolist())
        region = discriminative(truth, cams, record.labels)
        wanted = np.stack(region_matrices(truth, np.stack(predictions), region, len(NAMES)), axis=1)
        ids, counts = cell.counts(record)
        np.testing.assert_array_equal(voc_maps.matrices(counts, ids, len(NAMES)), wanted)
    assert values >= {0, 2}, "the masks must show background and a class"


def test_counts_that_are_kept_belong_to_maps_and_reference(
    voc: Path, stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pseudolabel.scoring.truth import of_reader

    recipe = kinds.recipe_of("cam", stored_maps.POSTS["none"], voc, voc / "run")
    records = of_reader(recipe.data.model_copy(update={"split": "train"})).records
    kept, calls = tmp_path / "counts.npz", []
    counted = stored_maps.Cell.counts

    def counts(cell: Any, record: Any) -> Any:
        calls.append(record.id)
        return counted(cell, record)

    monkeypatch.setattr(stored_maps.Cell, "counts", counts)

    def new(maps: str, reference: str) -> int:
        """Images that a call counted anew."""
        folders = [stored / "maps" / kind / "train" for kind in (maps, reference)]
        cell = stored_maps.Cell(recipe, (folders[0],), folders[1], (0.1,), tmp_path / "superpixels")
        calls.clear()
        stored_maps.cell_counts(cell, records, kept, workers=0)
        return len(calls)

    assert [new("cam", "cam"), new("cam", "cam")] == [4, 0]
    assert [new("cam", "cam-multiscale"), new("cam-multiscale", "cam")] == [4, 4]


def test_postprocessing(voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--root", voc, "--classifier", voc / "run", "--average-over", "background cat dog")
    more = ("--maps", "cam", "saliency", "--post", "none", "box", "--workers", 0, "--work", tmp_path / "work")
    result = run("postprocessing", tmp_path, *words, *more)
    rows = {(row["maps"], row["post"]): row for row in result["rows"]}
    assert set(rows) == {(maps, post) for maps in ("cam", "saliency") for post in ("none", "box")}
    for entry in result["differences"]:
        of, over = (rows[tuple(entry[key])] for key in ("of", "over"))
        assert entry["miou"]["value"] == of["miou"] - over["miou"]
    assert "maps of saliency" in capsys.readouterr().err
    again = run("postprocessing", tmp_path, *words, *more)
    assert "maps of" not in capsys.readouterr().err, "generated once more"
    assert again["rows"] == result["rows"]


def random_counts(seed: int, *shape: int) -> Any:
    """Counts (*shape, 3, C+1, C+2) of a small data set: whole, DR and NDR."""
    source = np.random.default_rng(seed)
    dr, ndr = source.integers(0, 20, (*shape, 3, 4)), source.integers(0, 90, (*shape, 3, 4))
    dr[..., 0, :] = ndr[..., 0, :] = 0
    dr[..., 3] = ndr[..., 3] = 0
    background = np.zeros((3, 4), np.int64)
    background[0, :3] = 200, 30, 10
    return np.stack([dr + ndr + background, dr, ndr], axis=-3)


def test_figures_of_kept_counts_are_those_of_pl_evaluate() -> None:
    from pseudolabel.metrics.confusion import figures

    total, dr, ndr = counts = random_counts(0)
    for classes in (None, (0, 2)):
        wanted = figures(total, dr=dr, ndr=ndr, average_over=classes)
        for name, value in intervals.figures_of(counts, classes).items():
            expected = wanted.legacy[name] if name == "ndr_miou_legacy" else getattr(wanted, name)
            assert value == pytest.approx(expected, rel=1e-12), name


def test_a_difference_of_rows_is_the_first_minus_the_second() -> None:
    samples = {"miou": np.linspace(0.5, 0.7, 1001)}, {"miou": np.full(1001, 0.2)}
    entry = intervals.difference(({"miou": 0.6}, {"miou": 0.2}), samples, ["miou"])["miou"]
    assert entry["value"] == pytest.approx(0.4)
    assert entry["interval"] == pytest.approx([0.305, 0.495])
    assert intervals.difference(({"miou": None}, {"miou": 0.2}), samples, ["miou"])["miou"]["value"] is None


def test_thresholds_of_a_cell_are_picked_on_train_and_reported_on_val(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The counts of `train` and `val` have their largest mIoU at different thresholds."""
    from scripts.experiments.postprocessing import measure

    counts = {name: random_counts(seed, 5, 6) for name, seed in (("train", 1), ("val", 2))}
    for name, best in (("train", 3), ("val", 1)):
        for index in range(3):
            counts[name][best, :, 0, index, index] += 500
    table = measure.Table.__new__(measure.Table)
    table.picking, table.scoring = (SimpleNamespace(name=name, records=range(6)) for name in ("train", "val"))
    table.classes, table.samples = [0, 1, 2], {}
    table.times = measure.multiplicities(6)
    monkeypatch.setattr(measure, "LEVELS", (0.1, 0.2, 0.3, 0.4, 0.5))
    monkeypatch.setattr(table, "counts", lambda name, post, split, *_: counts[split.name], raising=False)
    row = table._row("cam", "none")
    assert row["threshold"] == 0.4
    curve = {name: intervals.figures_of(counts[name].sum(axis=1)) for name in ("train", "val")}
    assert row["miou_picked"] == pytest.approx(curve["train"]["miou"][3])
    for figure in intervals.FIGURES:
        assert row[figure] == pytest.approx(curve["val"][figure][3]), figure
        low, high = row["intervals"][figure]
        assert low <= row[figure] <= high
    assert row["oracle"] == pytest.approx(curve["val"]["miou"][1])
    assert row["oracle"] > row["miou"] + 0.05


def test_crf_exact(stored: Path, tmp_path: Path) -> None:
    pytest.importorskip("pydensecrf", reason="the extra crf is not installed")
    words = (stored / "maps/cam/train", "--set", "background.threshold=0.3", "--images", 3, "--side", 24)
    result = run("crf_exact", tmp_path, *words, figure=False)
    assert [row["preset"] for row in result["presets"]] == ["irn", "psa", "deeplab"]
    for row in result["presets"]:
        assert 0 <= row["labels_that_differ"]["mean"] < 0.5
        assert len(set(row["miou"].values())) > 1, "a CRF must change something"


def test_components(stored: Path, tmp_path: Path) -> None:
    words = (stored / "maps/saliency-multiscale/train", "--count", 2, "--others", 2, "--post", "none", "box")
    result = run("components", tmp_path, *words, figure=False)
    assert [way["post"] for way in result["ways"]] == ["none", "box"]
    assert all(set(way["miou"]) == set(result["images"]) for way in result["ways"])
    with Image.open(tmp_path / "components.jpg") as image:
        assert image.size[0] > 5 * 100, "five columns"


def test_precision(voc: Path, tmp_path: Path) -> None:
    recipe = kinds.KINDS["cam"].recipe(voc, "train", voc / "run")
    (tmp_path / "cam.yaml").write_text(json.dumps(recipe))
    words = (tmp_path / "cam.yaml", "--set", "output.maps=false", "--device", "cpu")
    (row,) = run("precision", tmp_path, *words, figure=False)["recipes"]
    assert (row["recipe"], row["images"]) == ("cam", 4)
    assert 0 <= row["pixels_that_differ"] < 0.5


def test_thresholds(voc: Path, stored: Path, tmp_path: Path) -> None:
    recipe = kinds.KINDS["cam"].recipe(voc, "train", voc / "run")
    pseudolabel.generate(recipe, tmp_path / "other", limit=2, workers=0, quiet=True)
    pair = f"CAM={stored / 'maps/cam/train'},{tmp_path / 'other'}"
    (only,) = run("thresholds", tmp_path, pair, "--few", 2, "--workers", 0, figure=False)["runs"]
    assert only["title"] == "CAM"
    picks = {pick["on"]: pick for pick in only["picks"]}
    assert set(picks) >= {"other images", "free"}
    assert picks["other images"]["images_picked"] == 2
